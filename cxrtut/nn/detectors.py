"""Torchvision's detectors of two stages for square images of one size and any number of channels,
trained from scratch.

Ren, He, Girshick and Sun, Faster R-CNN, NIPS 2015; He, Gkioxari, Dollar and Girshick, Mask R-CNN,
ICCV 2017. Torchvision is imported when a detector is made.

Reading (network, detectors from scratch): Torchvision's detectors expect a network that has learnt
    ImageNet, with norms that are frozen.
    Here: All layers are trained, norms are group norms, images are neither resized nor shifted, and
        anchors keep their fractions of pixels.
    Why: Without learnt weights a frozen norm normalises nothing, and batches are small. On small
        images an anchor rounded to whole pixels has another shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cxrtut.nn.pyramids import Pyramid

if TYPE_CHECKING:
    from torchvision.models.detection import FasterRCNN, MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

_CPU = torch.device("cpu")


def anchor_generator(sizes: Sequence[Sequence[float]], ratios: Sequence[float]) -> AnchorGenerator:
    """Torchvision's anchors, but not rounded to whole pixels.

    Args:
        sizes: of each map, the roots of the anchors' areas in pixels of the image.
        ratios: height over width.

    Raises:
        ValueError: no map, no size, no ratio, or one that is not positive.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    if not sizes or not all(sizes) or not ratios:
        raise ValueError(f"expected sizes for each map and ratios, got {sizes} and {ratios}")
    if min(min(map(min, sizes)), min(ratios)) <= 0:
        raise ValueError(f"expected sizes and ratios above 0, got {sizes} and {ratios}")

    class UnroundedAnchors(AnchorGenerator):
        def generate_anchors(
            self,
            scales: Sequence[float],
            aspect_ratios: Sequence[float],
            dtype: torch.dtype = torch.float32,
            device: torch.device = _CPU,
        ) -> Tensor:
            side = torch.as_tensor(scales, dtype=dtype, device=device)
            root = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
            width, height = (f[:, None] * side[None, :] for f in (1 / root, root))
            corner = torch.stack((width.flatten(), height.flatten()), dim=1) / 2
            return torch.cat((-corner, corner), dim=1)

    return UnroundedAnchors(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))


def faster_rcnn(
    backbone: Pyramid,
    classes: int,
    size: int,
    channels: int = 1,
    *,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    pooled: int = 5,
    head: int = 128,
    regions: int = 64,
    proposals: tuple[int, int] = (200, 50),
) -> FasterRCNN:
    """Faster R-CNN on a pyramid.

    In training mode it takes a list of images and one of targets (boxes xyxy in pixels and labels
    from 1, 0 being background; an image may have none) and gives its losses; in evaluation mode it
    gives boxes with labels and scores, everything above a score of nearly 0 after a suppression of
    overlaps above 0.5: what is to be kept is for a measure to say.

    Args:
        backbone: gives the maps; an attended one has those of the backbone in it.
        classes: K, without background.
        size: height and width of the images in pixels, a multiple of the coarsest stride.
        channels: of the images, which are in [-1, 1].
        sizes: of the anchors of each map, see `anchor_generator`.
        ratios: of the anchors, height over width.
        pooled: a region is brought to so many cells in height and width.
        head: units of the two layers behind them.
        regions: of an image, that the second stage learns from in a step.
        proposals: of the first stage, that are looked at by the second: in training, and after it.

    Raises:
        ValueError: another size, no class, or anchors for another number of maps.
    """
    from torchvision.models.detection import FasterRCNN

    made = _two_stages(
        backbone, classes, size, channels, sizes, ratios, pooled, head, regions, proposals
    )
    return FasterRCNN(**made)


def mask_rcnn(
    backbone: Pyramid,
    classes: int,
    size: int,
    channels: int = 1,
    *,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    pooled: int = 5,
    head: int = 128,
    regions: int = 64,
    proposals: tuple[int, int] = (200, 50),
    mask_layers: Sequence[int] = (32, 32),
    mask_pooled: int = 14,
) -> MaskRCNN:
    """Mask R-CNN on a pyramid, where boxes are all that is known: `faster_rcnn` with a third answer
    for each region, in which of its cells the disease is.

    Reading (network, boxes as masks): GRANet (Table 2) trains a Mask R-CNN on radiographs that have
        boxes and no masks.
        Here: The mask of a box is the whole box: a pixel is inside when its centre is.
        Why: Nothing else is known of it. The third answer then learns once more where the box ends.

    Args:
        backbone, classes, size, channels, sizes, ratios, pooled, head, regions, proposals: see
            `faster_rcnn`.
        mask_layers: channels of the 3x3 convolutions of the third answer.
        mask_pooled: a region is brought to so many cells for it; its mask has twice as many.

    Raises:
        ValueError: see `faster_rcnn`.
    """
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign

    class BoxMaskRCNN(MaskRCNN):
        def forward(
            self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
        ) -> Any:
            if targets is not None:
                targets = [t | {"masks": filled_boxes(t["boxes"], size)} for t in targets]
            return super().forward(images, targets)

    made = _two_stages(
        backbone, classes, size, channels, sizes, ratios, pooled, head, regions, proposals
    )
    names = [str(s) for s in backbone.strides]
    return BoxMaskRCNN(
        **made, mask_roi_pool=MultiScaleRoIAlign(names, mask_pooled, 2),
        mask_head=MaskRCNNHeads(backbone.out_channels, list(mask_layers), 1),
        mask_predictor=MaskRCNNPredictor(mask_layers[-1], mask_layers[-1], classes + 1),
    )  # fmt: skip


def filled_boxes(boxes: Float[Tensor, "n 4"], size: int) -> UInt8[Tensor, "n {size} {size}"]:
    """Each box as a mask of ones in square images of `size` pixels."""
    at = torch.arange(size, device=boxes.device) + 0.5
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    inside_x, inside_y = (left <= at) & (at < right), (top <= at) & (at < bottom)
    return (inside_y[:, :, None] & inside_x[:, None, :]).byte()


def _two_stages(
    backbone: Pyramid,
    classes: int,
    size: int,
    channels: int,
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    pooled: int,
    head: int,
    regions: int,
    proposals: tuple[int, int],
) -> dict[str, Any]:
    """What torchvision's Faster and Mask R-CNN are made of."""
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    coarsest = backbone.strides[-1]
    if size < 1 or size % coarsest:
        raise ValueError(f"size: expected a multiple of the stride {coarsest}, got {size}")
    if classes < 1:
        raise ValueError(f"classes: expected 1 or more, got {classes}")
    if len(sizes) != len(backbone.strides):
        raise ValueError(
            f"sizes: expected anchors for {len(backbone.strides)} maps, got {len(sizes)}"
        )
    return {
        "backbone": backbone,
        "min_size": size,
        "max_size": size,
        "image_mean": [0.0] * channels,
        "image_std": [1.0] * channels,
        "size_divisible": coarsest,
        "_skip_resize": True,
        "rpn_anchor_generator": anchor_generator(sizes, ratios),
        "rpn_pre_nms_top_n_train": proposals[0],
        "rpn_pre_nms_top_n_test": proposals[0],
        "rpn_post_nms_top_n_train": proposals[0],
        "rpn_post_nms_top_n_test": proposals[1],
        "box_roi_pool": MultiScaleRoIAlign([str(s) for s in backbone.strides], pooled, 2),
        "box_head": TwoMLPHead(backbone.out_channels * pooled**2, head),
        "box_predictor": FastRCNNPredictor(head, classes + 1),
        "box_batch_size_per_image": regions,
        "box_score_thresh": 5e-4,
        "box_detections_per_img": 200,
    }
