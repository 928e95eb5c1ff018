"""The training images of a split, aligned, with their boxes: what pairs are made of and detectors
learn from where images are aligned first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cxrtut.data.sample import to_uint8
from cxrtut.data.split import Split, row_parts
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import view
from cxrtut.localize.box_warp import warp_boxes
from cxrtut.nn.spatial_transformer import align, invert

LEAST = 1.0  # pixels of a side that is left of a box after it was cut off at the border


def aligned_training(split: Split, aligner: nn.Module, device: torch.device | str = "cpu") -> Split:
    """A split of the training images alone, aligned; its rows count them from 0. Boxes are carried
    along and cut off at the border, and one of which less than a pixel is left is left out. Masks
    and healthy twins are left out.

    Args:
        split: gives images, labels and boxes.
        aligner: images to matrices; on the device.
        device: where images are aligned.
    """
    store, rows = split.store.store, split.train
    images, matrices = [], []
    for part in row_parts(rows):
        aligned, matrix = align(aligner, split.batch(part, device).image)
        images.append(to_uint8(aligned).cpu())
        matrices.append(invert(matrix).cpu())
    to_aligned = torch.cat(matrices)
    place = {int(row): i for i, row in enumerate(rows)}
    table, boxes = split.store.boxes, []
    for row, label, corners, origin in zip(
        table.row, table.label, table.xyxy, table.origin, strict=True
    ):
        if (i := place.get(int(row))) is None:
            continue
        box = warp_boxes(torch.from_numpy(corners).float(), to_aligned[i], split.size)
        x0, y0, x1, y1 = box.clamp(0, split.size).tolist()
        if min(x1 - x0, y1 - y0) >= LEAST:
            column = split.store.columns[int(label)]
            boxes.append((i, column, x0, y0, x1, y1, str(origin)))
    names = list(store.table)
    made = ArrayStore.from_arrays(
        torch.cat(images).numpy(), np.asarray(store.labels[rows]), store.classes,
        table_rows=[{name: str(store.table[name][row]) for name in names} for row in rows],
        boxes_rows=boxes, source=f"{store.source}, aligned",
    )  # fmt: skip
    none = np.zeros(0, dtype=np.int64)
    return replace(
        split, store=view(made, classes=split.classes), train=np.arange(len(rows)),
        validation=none, test=none, poses=None, identity={**split.identity, "aligned": "yes"},
    )  # fmt: skip
