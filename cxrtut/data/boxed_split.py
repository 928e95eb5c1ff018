"""Images with boxes on both sides of a split: what a detector learns from, and is tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64

from cxrtut.data.annotated import one_box_each
from cxrtut.data.split import Rows, Split, identity_of, is_normal
from cxrtut.data.splits import patient_hash_split
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.view import StoreView, view
from cxrtut.randomness import generator

TEST_SHARE = 0.3  # Section 3 of Xing et al.: 70 % of the annotations are learnt from


def split_boxed(
    store: ArrayStore,
    size: int | None = None,
    *,
    classes: Sequence[str],
    seed: int = 0,
    share: float = TEST_SHARE,
    name: str = "",
    identity: Mapping[str, str | int | float] | None = None,
) -> Split:
    """Images with boxes of some classes, and normal ones, by patient: whoever has an image that is
    tested has none that is learnt from.

    Patients with boxes are drawn at random, and tested as long as the boxes of one of their classes
    do not reach the share. Of the others the name decides. Images with a finding and without a
    box are on neither side.

    Reading (data, the split): Xing et al. (MICCAI 2019) split 820 annotations, of 741 images, into
        70 and 30 %.
        Here: Patients are split, so that each class has about 30 % of its boxes in the test.
        Why: Two boxes of one image, or two images of one patient, would else be on both sides; see
            `split_annotations`.

    Args:
        store: of any source.
        size: of the images, pixels; the store's by default.
        classes: whose boxes count.
        seed: of the draw.
        share: of the boxes of each class, in (0, 1), that are tested.
        name: of the data; made of the source by default.
        identity: see `Split`; the store's by default.

    Raises:
        ValueError: a share outside (0, 1).
        StoreError: no such class, or no boxes to learn from or to test.
    """
    _check_share(share)
    shown = view(store, classes=tuple(classes), size=size)
    patient = store.table["patient"].astype(str)
    with_box = np.unique(shown.boxes.row)
    tested = set(_drawn(shown, patient, share, seed))
    normal = np.flatnonzero(is_normal(store))
    boxed_patients = set(patient[with_box])
    out = np.array(
        [
            p in tested if p in boxed_patients else patient_hash_split(p, share) == "test"
            for p in patient
        ],
        dtype=bool,
    )
    used = np.union1d(with_box, normal)
    diseases = "1 disease" if len(classes) == 1 else f"{len(classes)} diseases"
    title = name or f"{diseases} with boxes ({store.source})"
    return _made(title, shown, used[~out[used]], used[out[used]], identity or identity_of(store))


def split_annotations(
    store: ArrayStore,
    size: int | None = None,
    *,
    classes: Sequence[str],
    seed: int = 0,
    share: float = TEST_SHARE,
) -> Split:
    """The paper's own way, to show what it lets through: every annotation is a row of its own, with
    its image and no other box, and 30 % of each class are tested, whoever's they are. A patient can
    be, and an image, on both sides (`leaks`).

    Args, Raises: as `split_boxed`.
    """
    _check_share(share)
    whole = split_boxed(store, size, classes=classes, seed=seed, share=share)
    both = [one_box_each(whole, side) for side in ("train", "test")]
    boxes = torch.cat([part.boxes[:, 0] for part in both])
    labels = torch.cat([part.box_label[:, 0] for part in both])
    index = torch.cat([part.index for part in both]).tolist()
    table = [{column: values[row] for column, values in store.table.items()} for row in index]
    rows = [
        (i, int(k), *box.tolist(), "one of several")
        for i, (k, box) in enumerate(zip(labels, boxes, strict=True))
    ]
    single = ArrayStore.from_arrays(
        torch.cat([part.images for part in both]).numpy(),
        torch.cat([part.label_vector for part in both]).to(torch.uint8).numpy(),
        tuple(classes), table_rows=table, boxes_rows=rows, source=store.source,
        licence=store.licence,
    )  # fmt: skip
    draw, out = generator("annotations", seed), np.zeros(len(single), dtype=bool)
    for k in range(len(classes)):
        of_class = np.flatnonzero(labels.numpy() == k)
        order = torch.randperm(len(of_class), generator=draw).numpy()
        out[of_class[order[: round(share * len(of_class))]]] = True
    title = f"{len(classes)} diseases, split by annotation ({store.source})"
    return _made(title, view(single), np.flatnonzero(~out), np.flatnonzero(out), identity_of(store))


def leaks(split: Split) -> float:
    """The share of the test images of whose patient another image, or the same, is learnt from."""
    learnt = set(split.patients(split.train))
    return float(np.mean([p in learnt for p in split.patients(split.test)]))


def _drawn(shown: StoreView, patient: np.ndarray, share: float, seed: int) -> list[str]:
    """Patients whose boxes are tested."""
    owner, label = patient[shown.boxes.row], shown.boxes.label
    wanted = share * np.bincount(label, minlength=len(shown.classes))
    everyone = np.unique(owner)
    order = torch.randperm(len(everyone), generator=generator("boxed patients", seed)).numpy()
    have, chosen = np.zeros_like(wanted), list[str]()
    for one in everyone[order]:
        boxes = np.bincount(label[owner == one], minlength=len(wanted))
        if ((boxes > 0) & (have + boxes / 2 <= wanted)).any():
            have = have + boxes
            chosen.append(str(one))
    return chosen


def _made(
    title: str,
    shown: StoreView,
    train: Int64[np.ndarray, "n"],
    test: Int64[np.ndarray, "m"],
    identity: Mapping[str, str | int | float],
) -> Split:
    split = Split(title, shown, train, np.zeros(0, dtype=np.int64), test, identity)
    for side, rows in (("learn from", train), ("test", test)):
        if not _boxed(shown, rows).any():
            raise StoreError(f"{title}: expected images with boxes to {side}, got none")
    return split


def _boxed(shown: StoreView, rows: Rows) -> Bool[np.ndarray, "n"]:
    return np.isin(rows, shown.boxes.row)


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share: expected one in (0, 1), got {share}")
