"""Which images are learnt from, which are looked at meanwhile, and which are tested: rows of a view
of a store, never copies. No patient is on two sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cxrtut.data.augment import Augmentation
from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch
from cxrtut.data.splits import patient_hash_split
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.view import StoreView, view
from cxrtut.randomness import balanced, generator, shuffled

Rows = Int64[np.ndarray, "_"]  # each of its own length, also in one call
Side = Literal["train", "validation", "test"]
READING = "reading"  # RSNA's column of what the radiologists said
NORMAL_READING = "Normal"
ANY = "any"  # disease


@dataclass(frozen=True, eq=False)
class Split:
    """Images with labels to learn from, and images of other patients to test with.

    Attributes:
        name: of the data, for tables.
        store: images, labels, boxes and masks of the classes.
        train: rows to learn from.
        validation: rows to decide on during training; may be none.
        test: rows of patients never seen.
        identity: what the images are, in words and numbers that are the same on every machine.
        poses: of rows to their true poses (see `PhantomSample.pose`), where they are known.
    """

    name: str
    store: StoreView
    train: Rows
    validation: Rows
    test: Rows
    identity: Mapping[str, str | int | float]
    poses: Callable[[Rows], Float[Tensor, "n 2 3"]] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The K classes."""
        return self.store.classes

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.store.size

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.store.channels

    def rows(self, side: Side) -> Rows:
        """The rows of one side."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[side]

    def patients(self, rows: Rows) -> list[str]:
        """Whose images some rows are."""
        return [str(patient) for patient in self.store.store.table["patient"][rows]]

    def normal(self, side: Side = "train") -> Rows:
        """The rows of a side without any disease, of these classes or others. Where a store has the
        radiologists' reading (RSNA), "No Lung Opacity / Not Normal" is not normal.
        """
        rows = self.rows(side)
        return rows[is_normal(self.store.store)[rows]]

    def abnormal(self, side: Side = "train") -> Rows:
        """The rows of a side with one of the classes."""
        rows = self.rows(side)
        return rows[self.store.labels[rows].any(axis=1)]

    def with_truth(self, side: Side, at_most: int | None = None) -> Rows:
        """The abnormal rows of a side whose disease somebody has outlined, by mask or box.

        Args:
            side: of the split.
            at_most: so many of them, evenly; all by default.
        """
        rows = self.abnormal(side)
        return evenly(rows[self._outlined(rows)], at_most)

    def _outlined(self, rows: Rows) -> Bool[np.ndarray, "n"]:
        known = np.isin(rows, self.store.boxes.row)
        masks = self.store.store.masks
        if masks is not None:
            bits = np.uint8(sum(1 << k for k in self.store.columns))
            inside = [(masks[part] & bits).any(axis=(1, 2)) for part in row_parts(rows)]
            known |= np.concatenate([np.zeros(0, dtype=bool), *inside])
        return known

    def pairs(self, side: Side = "test") -> tuple[Rows, Rows]:
        """(row, class) of all boxes of a side's images, once each: what localisation is scored
        on.
        """
        boxes = self.store.boxes
        known = np.isin(boxes.row, self.rows(side))
        both = np.unique(np.stack([boxes.row[known], boxes.label[known]]), axis=1)
        return both[0].astype(np.int64), both[1].astype(np.int64)

    def boxes_of(self, row: int, label: int) -> Float[Tensor, "m 4"]:
        """The boxes of a class in an image, xyxy in pixels."""
        boxes, labels = self.store.boxes.of(row)
        return torch.from_numpy(boxes[labels == label])

    @property
    def has_boxes_to_learn_from(self) -> bool:
        """Whether any training image has a box."""
        return bool(np.isin(self.store.boxes.row, self.train).any())

    def average_boxes(self) -> Float[Tensor, "K 4"]:
        """The mean corners of the training images' boxes of each class; zeros where it has none."""
        boxes = self.store.boxes
        known = np.isin(boxes.row, self.train)
        label = torch.from_numpy(boxes.label[known].astype(np.int64))
        total = torch.zeros(len(self.classes), 4)
        total.index_add_(0, label, torch.from_numpy(boxes.xyxy[known]).float())
        return total / torch.bincount(label, minlength=len(total)).clamp_min(1)[:, None]

    def batch(self, rows: Rows, device: torch.device | str = "cpu") -> Batch:
        """The images of some rows, on a device."""
        return self.store.batch(rows, device)

    def loader(
        self,
        order: Literal["shuffled", "balanced"] = "shuffled",
        *,
        augmentation: Augmentation | None = None,
        with_targets: bool = False,
    ) -> Loader:
        """Training batches.

        Args:
            order: `shuffled`, every training image once in an epoch; or `balanced`, normal and
                abnormal images in turn, so that any even share of a batch is half and half. An
                epoch then has each image of the larger group once, and the smaller is repeated.
            augmentation: how images are changed, if they are.
            with_targets: see `Loader`.

        Raises:
            ValueError: balanced, and there are no normal or no abnormal images to learn from.
        """
        if order == "shuffled":
            return Loader(
                self.store, shuffled(torch.from_numpy(self.train)), augmentation, with_targets
            )
        pair = torch.from_numpy(self.normal()), torch.from_numpy(self.abnormal())
        return Loader(self.store, balanced(*pair, largest=True), augmentation, with_targets)

    def showing_boxes(self, share: float, seed: int) -> Split:
        """The same images with the boxes of a random share of them only: what a method that learns
        from a few boxes is shown.
        """
        chosen = torch.rand(len(self.store), generator=generator("known boxes", seed)).numpy()
        store = self.store.store
        known = chosen[store.boxes.row] < share
        kept = replace(
            store.boxes, row=store.boxes.row[known], label=store.boxes.label[known],
            xyxy=store.boxes.xyxy[known], origin=store.boxes.origin[known],
        )  # fmt: skip
        shown = view(replace(store, boxes=kept), classes=self.classes, size=self.size)
        return replace(self, store=shown)

    def some_normal(self, n: int, seed: int) -> Rows:
        """At most n normal rows to learn from, at random.

        Raises:
            StoreError: there are none.
        """
        rows = self.normal()
        if not len(rows):
            raise StoreError(f"{self.name}: expected normal images to learn from, got none")
        order = torch.randperm(len(rows), generator=generator("normal", seed))
        return rows[order[:n].numpy()]


def is_normal(store: ArrayStore) -> Bool[np.ndarray, "n"]:
    """Which images of a store show no disease, as far as it knows."""
    normal = np.asarray(~store.labels.any(axis=1))
    if READING in store.table and (store.table[READING] != "").any():
        normal &= store.table[READING] == NORMAL_READING
    return normal


def is_held_out(store: ArrayStore) -> Bool[np.ndarray, "n"]:
    """Which images are for testing: those of split `test` and all others of their patients, or, in
    a source without such a split, a fifth of the patients.
    """
    out = np.asarray(store.table["split"] == "test")
    if out.any() and not out.all():
        return np.isin(store.table["patient"], store.table["patient"][out])
    return np.array([patient_hash_split(str(p)) == "test" for p in store.table["patient"]], bool)


def chosen_by(store: ArrayStore, where: Mapping[str, str]) -> Bool[np.ndarray, "n"]:
    """Which images have these texts in the columns of the store's table, such as view "PA".

    Raises:
        StoreError: no such column.
    """
    chosen = np.zeros(len(store), dtype=bool)
    chosen[store.rows(**where)] = True
    return chosen


def one_disease(
    store: ArrayStore,
    size: int | None = None,
    *,
    disease: str = "Pneumonia",
    where: Mapping[str, str] | None = None,
    name: str = "",
    identity: Mapping[str, str | int | float] | None = None,
) -> Split:
    """One disease of a store against its normal images.

    Args:
        store: of any source.
        size: of the images, pixels; the store's by default.
        disease: one of the classes, or `any` of them.
        where: only images with these texts in these columns of the table.
        name: of the data; made of the disease and the source by default.
        identity: see `Split`; the store's by default.

    Raises:
        StoreError: no such class or column, or no normal or no abnormal images to learn from.
    """
    every = disease == ANY and disease not in store.classes
    shown = view(store, classes=store.classes if every else (disease,), size=size)
    used = shown.labels.any(axis=1) | is_normal(store)
    used &= chosen_by(store, where or {})
    out = is_held_out(store)
    title = name or f"{disease} ({store.source})"
    split = Split(
        title, shown, np.flatnonzero(used & ~out), np.zeros(0, dtype=np.int64),
        np.flatnonzero(used & out), identity or identity_of(store),
    )  # fmt: skip
    n_normal, n_abnormal = len(split.normal()), len(split.abnormal())
    if not n_normal or not n_abnormal:
        raise StoreError(
            f"{title}: expected normal and abnormal images to train on, got {n_normal} and "
            f"{n_abnormal}"
        )
    return split


def all_diseases(
    store: ArrayStore,
    size: int | None = None,
    *,
    where: Mapping[str, str] | None = None,
    name: str = "",
    identity: Mapping[str, str | int | float] | None = None,
    poses: Callable[[Rows], Float[Tensor, "n 2 3"]] | None = None,
) -> Split:
    """Images with any number of diseases.

    Tested are the official test images and all patients of whom an image has a box, so that no box
    and no patient with one is in training; of simulated images, whose every disease has a box, the
    test patients alone.

    Args:
        store: of any source.
        size: of the images, pixels; the store's by default.
        where: only images with these texts in these columns of the table.
        name: of the data; made of the source by default.
        identity: see `Split`; the store's by default.
        poses: see `Split`; given, the images are simulated.

    Raises:
        StoreError: nothing left to learn from or to test, or no such column.
    """
    used = chosen_by(store, where or {})
    patient = store.table["patient"]
    out = store.table["split"] == "test"
    if poses is None:
        out |= np.isin(patient, patient[out]) | np.isin(patient, patient[store.boxes.row])
    title = name or f"{len(store.classes)} diseases ({store.source})"
    train, test = np.flatnonzero(used & ~out), np.flatnonzero(used & out)
    if not len(train) or not len(test):
        raise StoreError(
            f"{title}: expected images to learn from and others to test, got {len(train)} and "
            f"{len(test)}"
        )
    return Split(
        title, view(store, size=size), train, np.zeros(0, dtype=np.int64), test,
        identity or identity_of(store), poses,
    )  # fmt: skip


def identity_of(store: ArrayStore) -> dict[str, str | int | float]:
    """What the images of a store are: of a folder, the fingerprint of its files."""
    return {"source": store.source, "images": len(store), "fingerprint": store.fingerprint}


def evenly(rows: Rows, at_most: int | None) -> Rows:
    """At most so many of the rows, evenly spaced; all of them for None."""
    if at_most is None or len(rows) <= at_most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, at_most).astype(np.int64)]


def row_parts(rows: Rows, size: int = 256) -> list[Rows]:
    """The rows in parts that fit a device."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def ground_truth(batch: Batch) -> Bool[Tensor, "B H W"]:
    """Where the disease is: the masks, or the boxes of an image that has none."""
    height, width = batch.image.shape[-2:]
    boxes = [batch.boxes_of(i)[0] for i in range(len(batch))]
    boxed = torch.stack([boxes_to_mask(box, height, width) for box in boxes])
    if batch.mask is None:
        return boxed
    masked = batch.mask.any(dim=1)
    return torch.where(masked.any(dim=(1, 2), keepdim=True), masked, boxed)
