"""RetinaNet for square images of one size and any number of channels, trained from scratch.

Lin, Goyal, Girshick, He and Dollar, Focal Loss for Dense Object Detection, ICCV 2017.
Torchvision is imported when a detector is made.

Reading (network, RetinaNet from scratch): Torchvision's RetinaNet expects a network that has learnt
    ImageNet, starts its towers at a standard deviation of .01, and predicts offsets as they are.
    Here: Towers have group norms and begin as He et al. (2015) begin them, offsets of the middle
        count ten times and those of the size five times, and images are neither resized nor
        shifted.
    Why: A tower of four layers that begins near zero passes next to nothing on, which a network
        that has learnt nothing else cannot make up for. The offsets are those of Faster R-CNN, and
        make the loss of boxes, which is small at first, as many times larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from cxrtut.nn.detectors import anchor_generator
from cxrtut.nn.pyramids import Pyramid

if TYPE_CHECKING:
    from torchvision.models.detection import RetinaNet

OFFSETS = (10.0, 10.0, 5.0, 5.0)


def retinanet(
    backbone: Pyramid,
    classes: int,
    size: int,
    channels: int = 1,
    *,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (0.7, 1.1, 1.7),
    positive: float = 0.5,
    negative: float = 0.4,
    overlap: float = 0.3,
) -> RetinaNet:
    """RetinaNet on a pyramid.

    In training mode it takes a list of images and one of targets (boxes xyxy in pixels and labels
    from 0; an image may have none, and then all its anchors are to say so) and gives its losses; in
    evaluation mode boxes with labels and scores above .02, of images that are brought to `size`.

    Args:
        backbone: gives the maps, of a multiple of 8 channels; an attended one has those of the
            backbone in it.
        classes: K; there is no background.
        size: height and width of the images in pixels, a multiple of the coarsest stride.
        channels: of the images, which are in [-1, 1].
        sizes: of the anchors of each map, as many for each; see `nn.detectors.anchor_generator`.
        ratios: of the anchors, height over width.
        positive: an anchor with this IoU with a true box or more is to find it.
        negative: one with less is to say that nothing is there; those between are left out.
        overlap: of two boxes of a class with a larger IoU the less sure one is dropped.

    Raises:
        ValueError: another size, no class, or anchors for another number of maps, or not as many
            sizes for each.
    """
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.retinanet import RetinaNetHead

    coarsest = backbone.strides[-1]
    if size < 1 or size % coarsest:
        raise ValueError(f"size: expected a multiple of the stride {coarsest}, got {size}")
    if classes < 1:
        raise ValueError(f"classes: expected 1 or more, got {classes}")
    if len(sizes) != len(backbone.strides) or len(set(map(len, sizes))) > 1:
        raise ValueError(
            f"sizes: expected as many anchors for each of {len(backbone.strides)} maps, got "
            f"{[len(of_map) for of_map in sizes]}"
        )
    anchors = anchor_generator(sizes, ratios)
    head = RetinaNetHead(
        backbone.out_channels, anchors.num_anchors_per_location()[0], classes,
        norm_layer=partial(nn.GroupNorm, 8),
    )  # fmt: skip
    for tower in (head.classification_head.conv, head.regression_head.conv):
        for layer in tower.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    made = RetinaNet(
        backbone, classes, min_size=size, max_size=size, image_mean=[0.0] * channels,
        image_std=[1.0] * channels, size_divisible=coarsest, _skip_resize=True,
        anchor_generator=anchors, head=head, score_thresh=0.02, nms_thresh=overlap,
        detections_per_img=100, fg_iou_thresh=positive, bg_iou_thresh=negative,
    )  # fmt: skip
    made.box_coder = head.regression_head.box_coder = BoxCoder(weights=OFFSETS)
    return made
