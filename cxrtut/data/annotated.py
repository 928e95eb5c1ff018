"""Images with boxes as tensors of one device: a row for each annotation instead of one for each
image, boxes drawn where nobody has drawn any, and several such stores together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import PADDING
from cxrtut.data.split import Rows, Side, Split
from cxrtut.data.store import StoreError
from cxrtut.randomness import generator

INSIDE = 0.9  # of height and width: where drawn boxes lie


def one_box_each(
    split: Split, side: Side = "train", device: torch.device | str = "cpu"
) -> DeviceStore:
    """The boxes of a side's images one by one: each with its image, the label of its class alone,
    and no other box. Masks and healthy twins are left out.

    Args:
        split: its store has the boxes.
        side: of the split.
        device: where the images are put; each as often as it has boxes.

    Raises:
        StoreError: the images of this side have no box.
    """
    table = split.store.boxes
    known = np.flatnonzero(np.isin(table.row, split.rows(side)))
    if not len(known):
        raise StoreError(f"{split.name}: expected {side} images with boxes, got none")
    boxes = torch.from_numpy(table.xyxy[known]).float()
    labels = torch.from_numpy(table.label[known].astype(np.int64))
    return _with_one_box(split, table.row[known].astype(np.int64), boxes, labels, device)


def with_boxes_drawn(
    split: Split,
    rows: Rows,
    boxes: Float[Tensor, "n 4"],
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> DeviceStore:
    """Images with one box each, drawn at random: height and width together are those of one of the
    given boxes, and the place is uniform within the central nine tenths of the image, or the middle
    for a box that is larger than that. No label is set; the box has class 0.

    Reading (training, boxes of healthy images): Xing et al. (MICCAI 2019) "randomly generate masks
        ... with reasonable size" for healthy images.
        Here: The sizes are those of the boxes of the diseased images, and places are uniform within
            the central nine tenths of the image.
        Why: No size is more reasonable than one that a radiologist has drawn.

    Args:
        split: gives the images.
        rows: which.
        boxes: whose sizes are taken, xyxy in pixels of the split's images; one at least.
        seed: of sizes and places.
        device: where the images are put.

    Raises:
        ValueError: no boxes.
    """
    if not len(boxes):
        raise ValueError("boxes: expected one at least, whose size can be taken, got none")
    draw = generator("boxes drawn", seed)
    chosen = boxes[torch.randint(len(boxes), (len(rows),), generator=draw)]
    size = chosen[:, 2:] - chosen[:, :2]
    margin = (1 - INSIDE) / 2 * split.size
    room = split.size - 2 * margin - size
    place = torch.rand(len(rows), 2, generator=draw)
    corner = torch.where(room > 0, margin + room * place, (split.size - size) / 2).round()
    drawn = torch.cat((corner, corner + size), dim=1)
    labels = torch.zeros(len(rows), dtype=torch.int64)
    made = _with_one_box(split, rows, drawn, labels, device)
    made.label_vector.zero_()
    return made


def _with_one_box(
    split: Split,
    rows: Rows,
    boxes: Float[Tensor, "n 4"],
    labels: Tensor,
    device: torch.device | str,
) -> DeviceStore:
    block = split.store.narrowed(split.store.block(rows))
    made = DeviceStore(
        images=block.images, label_vector=torch.eye(len(split.classes))[labels],
        boxes=boxes[:, None], box_label=labels[:, None], index=torch.from_numpy(rows),
    )  # fmt: skip
    return made.moved(lambda tensor: tensor.to(device))


def boxed(split: Split) -> Rows:
    """The training rows with a box.

    Raises:
        StoreError: there is none.
    """
    rows = split.train[np.isin(split.train, split.store.boxes.row)]
    if not len(rows):
        raise StoreError(f"{split.name}: expected training images with boxes, got none")
    return rows


def with_all_boxes(split: Split, rows: Rows, device: torch.device | str = "cpu") -> DeviceStore:
    """Some images with all their boxes, as a detector learns from them. Masks and healthy twins are
    left out.
    """
    block = split.store.narrowed(split.store.block(rows))
    return replace(block, masks=None, healthy=None).moved(lambda tensor: tensor.to(device))


def together(*stores: DeviceStore) -> DeviceStore:
    """Images of several stores, one after the other, without masks and healthy twins. The boxes are
    padded to the largest number that an image has.
    """
    return with_twins(*(replace(store, healthy=None) for store in stores))


def with_twins(*stores: DeviceStore) -> DeviceStore:
    """`together`, with the healthy twins that all of the stores have."""
    most = max(store.boxes.shape[1] for store in stores)
    return DeviceStore.joined(
        [
            replace(
                store,
                boxes=F.pad(store.boxes, (0, 0, 0, most - store.boxes.shape[1])),
                box_label=F.pad(
                    store.box_label, (0, most - store.box_label.shape[1]), value=PADDING
                ),
                masks=None,
            )
            for store in stores
        ]
    )
