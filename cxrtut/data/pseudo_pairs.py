"""Pairs of a normal and an abnormal image of one patient, made of two patients: pixels of a similar
image are blended into the boxes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from cxrtut.data.annotated import boxed, with_all_boxes
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.pairing import training_neighbours
from cxrtut.data.poisson import poisson_blend
from cxrtut.data.sample import PADDING, from_uint8, to_uint8
from cxrtut.data.split import Split


def pseudo_normal_pairs(
    split: Split, k: int = 1, device: torch.device | str = "cpu"
) -> DeviceStore:
    """The abnormal training images with boxes, each with its blended image as `healthy`: what lies
    in its boxes is from the normal image most like it. Behind them stand the normal training
    images, each its own `healthy`.

    The true healthy twin of a simulated image is not looked at.

    Args:
        split: gives images and boxes.
        k: of each abnormal image so many pairs, with its k nearest neighbours.
        device: where the images are put.

    Raises:
        StoreError: no abnormal training image with a box, or fewer than k normal ones of others.
    """
    rows, well = boxed(split), with_all_boxes(split, split.normal())
    near = training_neighbours(split, rows, split.normal(), k, device)
    ill = with_all_boxes(split, np.repeat(rows, k))
    sources = with_all_boxes(split, near.flatten().numpy())
    pairs = replace(ill, healthy=_blended(ill.images, sources.images, ill))
    both = DeviceStore.joined([pairs, replace(well, healthy=well.images)])
    return both.moved(lambda tensor: tensor.to(device))


def pseudo_abnormal_images(
    split: Split, k: int = 1, device: torch.device | str = "cpu"
) -> DeviceStore:
    """The normal training images, each with the pixels of the abnormal image most like it in the
    boxes of that one, its labels and its boxes; the image as it was is the `healthy` of each.

    Args:
        split: gives images and boxes.
        k: of each normal image so many.
        device: where the images are put.

    Raises:
        StoreError: no abnormal training image with a box, or fewer than k of other patients.
    """
    rows = split.normal()
    near = training_neighbours(split, rows, boxed(split), k, device)
    well = with_all_boxes(split, np.repeat(rows, k))
    ill = with_all_boxes(split, near.flatten().numpy())
    made = replace(
        ill, images=_blended(well.images, ill.images, ill), healthy=well.images, index=well.index
    )
    return made.moved(lambda tensor: tensor.to(device))


def _blended(
    images: UInt8[Tensor, "n C H W"], sources: UInt8[Tensor, "n C H W"], boxes: DeviceStore
) -> UInt8[Tensor, "n C H W"]:
    """Each image with its source blended into the boxes; grey levels outside stay as they are."""
    made = [
        to_uint8(poisson_blend(from_uint8(image), from_uint8(source), xyxy[label != PADDING]))
        for image, source, xyxy, label in zip(
            images, sources, boxes.boxes, boxes.box_label, strict=True
        )
    ]
    return torch.stack(made) if made else images
