"""Images with any number of diseases: labels to learn from, boxes of other images to score with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from cxrtut.data.feed import Feed
from cxrtut.data.phantom import PRESETS, ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.selection import select
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.randomness import generator, shuffled

PREVALENCE = 0.8  # of simulated images with any disease: enough of each to learn from few images
POSED = 256  # test images whose true pose is asked for, at most


@dataclass(frozen=True, eq=False)
class LabelStudy:
    """Who is learnt from and who is tested; no patient is both.

    Attributes:
        name: of the data, for tables.
        store: images, labels, boxes.
        train: rows to learn from.
        test: rows of other patients, those with boxes among them.
        poses: of test rows to their true poses (see `PhantomSample.pose`), where they are known.
    """

    name: str
    store: ArrayStore
    train: Int64[np.ndarray, "a"]
    test: Int64[np.ndarray, "b"]
    poses: Callable[[Int64[np.ndarray, "n"]], Float[Tensor, "n 2 3"]] | None = None

    @property
    def normal(self) -> Int64[np.ndarray, "c"]:
        """Rows to learn from that have no disease."""
        return self.train[~self.store.labels[self.train].any(axis=1)]

    @property
    def pairs(self) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
        """(row, class) of all boxes of test images, once each: what localisation is scored on."""
        boxes = self.store.boxes
        known = np.isin(boxes.row, self.test)
        both = np.unique(np.stack([boxes.row[known], boxes.label[known]]), axis=1)
        return both[0], both[1]

    @property
    def boxes_to_learn_from(self) -> bool:
        """Whether any training image has a box."""
        return bool(np.isin(self.store.boxes.row, self.train).any())

    def average_boxes(self) -> Float[Tensor, "K 4"]:
        """The mean corners of the training images' boxes of each class; zeros where it has none."""
        boxes = self.store.boxes
        known = np.isin(boxes.row, self.train)
        label = torch.from_numpy(boxes.label[known].astype(np.int64))
        total = torch.zeros(len(self.store.classes), 4)
        total.index_add_(0, label, torch.from_numpy(boxes.xyxy[known]).float())
        return total / torch.bincount(label, minlength=len(total)).clamp_min(1)[:, None]

    def boxes_of(self, row: int, label: int) -> Float[Tensor, "m 4"]:
        """The boxes of a class in an image."""
        boxes, labels = self.store.boxes.of(row)
        return torch.from_numpy(boxes[labels == label])

    def feed(self) -> Feed:
        """Training batches; each epoch has every image once."""
        return Feed(self.store, shuffled(torch.from_numpy(self.train)))

    def feed_with_boxes(self, share: float, seed: int) -> Feed:
        """Training batches in which the boxes of a share of the images are known: more than any
        weakly supervised method sees.
        """
        draw = torch.rand(len(self.store), generator=generator("known boxes", seed)).numpy()
        table = self.store.boxes
        known = draw[table.row] < share
        kept = replace(
            table, row=table.row[known], label=table.label[known], xyxy=table.xyxy[known],
            origin=table.origin[known],
        )  # fmt: skip
        return Feed(replace(self.store, boxes=kept), shuffled(torch.from_numpy(self.train)))

    def some_normal(self, n: int, seed: int) -> Int64[np.ndarray, "d"]:
        """At most n normal rows to learn from, by lot.

        Raises:
            StoreError: there are none.
        """
        rows = self.normal
        if not len(rows):
            raise StoreError(f"{self.name}: expected normal images to learn from, got none")
        order: Int[Tensor, " n"] = torch.randperm(len(rows), generator=generator("normal", seed))
        return rows[order[:n].numpy()]


def phantom_labels(
    size: int, *, n: int = 8192, preset: str = "easy", seed: int = 0, prevalence: float = PREVALENCE
) -> LabelStudy:
    """Eight diseases on simulated radiographs, posed as in the clinic whatever the preset.

    Args:
        size: of the images, pixels.
        n: images; a fifth of the patients are for testing.
        preset: of the simulation, for severity and dose.
        seed: of the simulated patients.
        prevalence: share of the images with any disease.
    """
    posed = replace(PRESETS[preset], pose=PRESETS["default"].pose)
    phantom = ChestPhantom(size, posed, seed=seed, prevalence=prevalence)
    store = in_memory(phantom, n)
    out = store.table["split"] == "test"
    return LabelStudy(
        f"eight diseases on simulated radiographs ({preset})", store, np.flatnonzero(~out),
        np.flatnonzero(out), lambda rows: phantom.sample(torch.from_numpy(rows)).pose,
    )  # fmt: skip


def store_labels(path: Path | str, size: int) -> LabelStudy:
    """All diseases of a prepared store of radiographs.

    Tested are the official test images and all patients of whom an image has a box, so that no box
    and no patient with one is in training.

    Raises:
        StoreError: no such store, or nothing left to learn from or to test.
    """
    whole = ArrayStore.open(path)
    store = whole if size == whole.size else select(whole, np.arange(len(whole)), size=size)
    patient = store.table["patient"]
    out = store.table["split"] == "test"
    out |= np.isin(patient, patient[out]) | np.isin(patient, patient[store.boxes.row])
    if out.all() or not out.any():
        raise StoreError(
            f"{path}: expected images to learn from and others to test, got {int((~out).sum())} "
            f"and {int(out.sum())}"
        )
    name = f"{len(store.classes)} diseases ({store.source})"
    return LabelStudy(name, store, np.flatnonzero(~out), np.flatnonzero(out))


def row_parts(rows: Int64[np.ndarray, "n"], size: int = 256) -> list[Int64[np.ndarray, "m"]]:
    """The rows in parts that fit a device."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]
