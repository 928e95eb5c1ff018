"""Splits, maps and systems of which a test knows what localisation accuracy they have."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from evaluation.answers import Answers, marked, rows_of, split_by_hand
from torch import nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import view
from cxrtut.evaluation.localisation import largest_region, localisation_accuracy
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.papers.disease_masks import SMOKE

CUT = 180 / 255
LARGEST = partial(largest_region, threshold=CUT)
SIZE = 16


def study_of(*boxes, n=4, classes=("A", "B", "C"), labels=None, size=SIZE):
    """Images of which the first is for training and the others for testing, in another order."""
    found = np.zeros((n, len(classes)), np.uint8)
    for row, label, *_ in boxes:
        found[row, label] = 1
    store = ArrayStore.from_arrays(
        np.zeros((n, 1, size, size), np.uint8), found if labels is None else labels, classes,
        boxes_rows=[(*box, "hand") for box in boxes],
    )  # fmt: skip
    return split_by_hand(store, [0], [*range(n - 1, 0, -1)])


def maps_of(study, cells):
    """Maps that are 1 in the boxes of their class and 0 elsewhere, on a grid of so many cells."""
    maps = torch.zeros(len(study.test), len(study.classes), cells, cells)
    for i, row in enumerate(study.test):
        for k in range(maps.shape[1]):
            boxes = study.boxes_of(int(row), k) * cells / study.size
            maps[i, k] = boxes_to_mask(boxes, cells, cells).float()
    return maps


class Looking(nn.Module):
    """An aligner that has a matrix for each row, and remembers which rows it was shown."""

    def __init__(self, place, matrix):
        super().__init__()
        self.place, self.matrix, self.seen = place, matrix, []

    def forward(self, images):
        rows = rows_of(images)
        self.seen += rows
        return self.matrix[[self.place[row] for row in rows]]


class Behind(Answers):
    """Answers for the rows that an aligner has just seen: their images are moved."""

    def predict(self, images):
        rows, self.aligner.seen = self.aligner.seen, []
        return self.answer(rows)


def system_of(maps, logits, study, matrix=None, rows=None):
    """A system with these maps of a feature layer; behind an alignment where there is a matrix."""
    given = {
        "heatmap": heatmap_from_maps(maps, (study.size, study.size)),
        "scores": None if logits is None else logits.double().sigmoid(), "rows": rows,
    }  # fmt: skip
    if matrix is None:
        return Answers(study, **given)
    inner = Behind(study, **given)
    inner.aligner = Looking(inner.place, matrix)
    anchor = torch.zeros(1, study.channels, study.size, study.size)
    return Aligned(inner, inner.aligner, anchor, grid_size=SMOKE.grid_size)


def scored(maps, logits, study, *, cut=CUT, matrix=None):
    return localisation_accuracy(
        system_of(maps, logits, study, matrix), study, "test", threshold=cut
    )


def one_box_each(study):
    """The split without the pairs that have several boxes, of which no single box can be right."""
    table = study.store.boxes
    key = table.row * 1000 + table.label
    alone = np.array([(key == k).sum() == 1 for k in key])
    kept = replace(
        table, row=table.row[alone], label=table.label[alone], xyxy=table.xyxy[alone],
        origin=table.origin[alone],
    )  # fmt: skip
    return replace(study, store=view(replace(marked(study.store.store), boxes=kept)))


def certain(study):
    """Logits that are right about every image."""
    labels = torch.from_numpy(study.store.labels[study.test]).float()
    boxed = torch.zeros_like(labels)
    place = {int(row): i for i, row in enumerate(study.test)}
    for row, label in zip(*study.pairs(), strict=True):
        boxed[place[int(row)], int(label)] = 1
    return 20 * boxed - 10
