"""Studies: normal and abnormal images with a ground truth, for methods taught by image labels.

A paper on localisation may train and evaluate on the same images "on purpose"; a study keeps both
protocols apart, and its held-out images are of patients that were never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from cxrtut.data.blending import crop_thumbnails, paste_thumbnails, texture_thumbnails
from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.feed import Feed
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.resident import pack_masks
from cxrtut.data.sample import Batch
from cxrtut.data.selection import select
from cxrtut.data.splits import patient_hash_split
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.randomness import balanced, generator

EVALUATED = 512  # images of each kind that are scored at most
PASTED = "Pasted biomarker"


@dataclass(frozen=True, eq=False)
class Study:
    """Images to train on and images to score.

    Attributes:
        name: of the data, for tables.
        store: images, labels, and masks or boxes as the ground truth.
        normal, abnormal: rows to train on.
        same: abnormal rows of those, to score: the paper's protocol.
        held_out: abnormal rows of other patients.
        held_out_normal: normal rows of other patients.
    """

    name: str
    store: ArrayStore
    normal: Int64[np.ndarray, "a"]
    abnormal: Int64[np.ndarray, "b"]
    same: Int64[np.ndarray, "c"]
    held_out: Int64[np.ndarray, "d"]
    held_out_normal: Int64[np.ndarray, "e"]

    @classmethod
    def of(cls, name: str, store: ArrayStore) -> Study:
        """Splits a store: rows of split `test` are held out, or, in a source without such a split,
        a fifth of the patients.

        Raises:
            StoreError: no normal or no abnormal images to train on.
        """
        ill = store.labels.any(axis=1)
        out = store.table["split"] == "test"
        if not out.any() or out.all():
            of_patient = [patient_hash_split(str(name)) for name in store.table["patient"]]
            out = np.asarray(of_patient) == "test"
        known = np.zeros(len(store), dtype=bool)
        known[store.boxes.row] = True
        if store.masks is not None:
            known |= store.masks.reshape(len(store), -1).any(axis=1)
        rows = {
            "normal": ~ill & ~out,
            "abnormal": ill & ~out,
            "same": ill & ~out & known,
            "held_out": ill & out & known,
            "held_out_normal": ~ill & out,
        }
        chosen = {kind: np.flatnonzero(where) for kind, where in rows.items()}
        if not len(chosen["normal"]) or not len(chosen["abnormal"]):
            raise StoreError(
                f"{name}: expected normal and abnormal images to train on, got "
                f"{len(chosen['normal'])} and {len(chosen['abnormal'])}"
            )
        scored = {kind: _spread(chosen[kind]) for kind in ("same", "held_out", "held_out_normal")}
        return cls(name, store, **(chosen | scored))

    def feed(self) -> Feed:
        """Training batches with normal and abnormal images in turn."""
        pair = torch.from_numpy(self.normal), torch.from_numpy(self.abnormal)
        return Feed(self.store, balanced(*pair, largest=True))


def _spread(rows: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "m"]:
    """At most `EVALUATED` of the rows, evenly."""
    if len(rows) <= EVALUATED:
        return rows
    return rows[np.linspace(0, len(rows) - 1, EVALUATED).astype(np.int64)]


def phantom_study(
    size: int,
    *,
    n: int = 2048,
    preset: str = "easy",
    disease: str = "Pneumonia",
    seed: int = 0,
) -> Study:
    """One disease on simulated radiographs; the ground truth is the region a reader would outline.

    Args:
        size: of the images, pixels.
        n: images, half of them abnormal.
        preset: of the simulation; `easy` is far more conspicuous than the clinic.
        disease: one of the eight.
        seed: of the simulated patients.
    """
    phantom = ChestPhantom(size, preset, seed=seed, classes=(disease,))
    store = select(in_memory(phantom, n), np.arange(n), classes=(disease,))
    return Study.of(f"{disease} on simulated radiographs ({preset})", store)


def pasted_study(store: ArrayStore, size: int, *, seed: int = 0) -> Study:
    """The paper's second set: pictures pasted into every other normal image of a store, the squares
    as ground truth, the untouched image as the healthy twin.

    The pictures are cut from the store's own images and from drawn stripes, half and half.

    Raises:
        StoreError: the store has no normal images, or they are smaller than `size`.
    """
    rows = np.flatnonzero(~store.labels.any(axis=1))
    if len(rows) < 4:
        raise StoreError(f"expected at least 4 normal images to paste into, got {len(rows)}")
    clean = select(store, rows, size=size)
    healthy = torch.from_numpy(np.ascontiguousarray(clean.images))
    draw = generator("pasted", seed)
    thumbnails = torch.cat(
        [
            crop_thumbnails(healthy, 200, 16, generator=draw),
            texture_thumbnails(200, clean.channels, 16, generator=draw),
        ]
    )
    ill = torch.arange(len(rows)) % 2 == 1
    pasted = paste_thumbnails(healthy[ill], thumbnails, generator=draw)
    images, masks = healthy.clone(), torch.zeros(len(rows), 1, *healthy.shape[2:], dtype=torch.bool)
    images[ill], masks[ill, 0] = pasted.image, pasted.mask
    table = [{k: column[i] for k, column in clean.table.items()} for i in range(len(rows))]
    made = ArrayStore.from_arrays(
        images.numpy(), ill.to(torch.uint8)[:, None].numpy(), (PASTED,), table_rows=table,
        healthy=healthy.numpy(), masks=pack_masks(masks.numpy()), source=f"pasted: {store.source}",
        licence=store.licence,
    )  # fmt: skip
    return Study.of(f"pasted biomarkers ({store.source})", made)


def disease_study(path: Path | str, size: int, *, disease: str = "Pneumonia") -> Study:
    """One disease of a prepared store against its normal images; the boxes (or masks) are the
    ground truth.

    Args:
        path: the store, of any source.
        size: of the images, pixels.
        disease: one of its classes, or `any` of them.

    Raises:
        StoreError: no such store or class, or no normal images in it.
    """
    store = ArrayStore.open(path)
    normal = np.flatnonzero(~store.labels.any(axis=1))
    any_of_them = disease == "any" and disease not in store.classes
    classes = store.classes if any_of_them else (disease,)
    ill = np.flatnonzero(store.labels.any(axis=1)) if any_of_them else store.rows(label=disease)
    chosen = select(store, np.union1d(ill, normal), size=size, classes=classes)
    return Study.of(f"{disease} ({store.source})", chosen)


def ground_truth(batch: Batch) -> Bool[Tensor, "B H W"]:
    """Where the disease is: the masks, or the boxes where there are none."""
    if batch.mask is not None:
        return batch.mask.any(dim=1)
    height, width = batch.image.shape[-2:]
    boxes = [batch.boxes_of(i)[0] for i in range(len(batch))]
    return torch.stack([boxes_to_mask(box, height, width) for box in boxes])
