"""SSD for square images of one size and any number of channels, trained from scratch.

Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016. Torchvision is imported when a detector
is made.

Reading (loss, images without a box): SSD learns from three negatives for each positive anchor of an
    image, so that an image without a box teaches it nothing.
    Here: `mended` takes three of such an image, too; `published` does as the paper does.
    Why: Of the RSNA's images 77 % have no box, and a detector that never sees them as such finds
        boxes in them.

Reading (network, SSD on small images): SSD300 enlarges every image to 300 pixels.
    Here: `small_ssd` takes images as they are, and has maps at strides 4, 8 and 16; `ssd300` is the
        published network.
    Why: Nothing is in an enlarged image that was not in the small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrtut.nn.pyramids import SmallStages

if TYPE_CHECKING:
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD

NEGATIVES = ("mended", "published")
PER_POSITIVE = 3  # negatives
RATIOS_300 = ([2], [2, 3], [2, 3], [2, 3], [2], [2])
SCALES_300 = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
STEPS_300 = (8, 16, 32, 64, 100, 300)


def small_ssd(
    backbone: SmallStages,
    classes: int,
    size: int,
    channels: int = 1,
    *,
    scales: Sequence[float],
    negatives: str = "mended",
) -> SSD:
    """SSD on the maps of a small network.

    In training mode it takes a list of images and one of targets (boxes xyxy in pixels and labels
    from 1, 0 being background; an image may have none) and gives its losses; in evaluation mode
    boxes with labels and scores.

    Args:
        backbone: gives the maps.
        classes: K, without background.
        size: height and width of the images in pixels, a multiple of the coarsest stride.
        channels: of the images, which are in [-1, 1].
        scales: of the boxes of each map as shares of the size, and one more, which the last map's
            largest box is made of.
        negatives: `mended` or `published`, see the module.

    Raises:
        ValueError: another size, no class, another kind of negatives, or scales of another number
            of maps.
    """
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSDHead

    coarsest = backbone.strides[-1]
    if size < 1 or size % coarsest:
        raise ValueError(f"size: expected a multiple of the stride {coarsest}, got {size}")
    if len(scales) != len(backbone.strides) + 1:
        raise ValueError(
            f"scales: expected {len(backbone.strides) + 1}, one more than maps, got {len(scales)}"
        )
    boxes = DefaultBoxGenerator(
        [[2]] * len(backbone.strides), scales=list(scales), steps=list(backbone.strides)
    )
    head = SSDHead(list(backbone.widths), boxes.num_anchors_per_location(), classes + 1)
    return _ssd(backbone, boxes, classes, size, channels, negatives, head)


def ssd300(classes: int, channels: int = 1, *, negatives: str = "mended") -> SSD:
    """The published network, on VGG-16, for images of 300 pixels; others are brought to that.

    Args:
        classes, channels, negatives: see `small_ssd`.

    Raises:
        ValueError: no class, or another kind of negatives.
    """
    from torchvision.models import vgg16
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSDFeatureExtractorVGG, SSDHead

    backbone = SSDFeatureExtractorVGG(vgg16(weights=None).features, False)
    if channels != 3:
        backbone.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    boxes = DefaultBoxGenerator(
        [list(r) for r in RATIOS_300], scales=list(SCALES_300), steps=list(STEPS_300)
    )
    widths = [512, 1024, 512, 256, 256, 256]
    head = SSDHead(widths, boxes.num_anchors_per_location(), classes + 1)
    return _ssd(backbone, boxes, classes, 300, channels, negatives, head)


def _ssd(
    backbone: nn.Module,
    boxes: DefaultBoxGenerator,
    classes: int,
    size: int,
    channels: int,
    negatives: str,
    head: nn.Module,
) -> SSD:
    if classes < 1:
        raise ValueError(f"classes: expected 1 or more, got {classes}")
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives: expected one of {', '.join(NEGATIVES)}, got {negatives!r}")
    from torchvision.models.detection.ssd import SSD

    class MendedSSD(SSD):
        def compute_loss(
            self,
            targets: list[dict[str, Tensor]],
            head_outputs: dict[str, Tensor],
            anchors: list[Tensor],
            matched_idxs: list[Tensor],
        ) -> dict[str, Tensor]:
            found: dict[str, Tensor] = super().compute_loss(
                targets, head_outputs, anchors, matched_idxs
            )
            empty = torch.stack([(matched < 0).all() for matched in matched_idxs])
            positives = sum((matched >= 0).sum() for matched in matched_idxs)
            found["classification"] = found["classification"] + _of_empty(
                head_outputs["cls_logits"][empty]
            ) / torch.as_tensor(positives).clamp_min(1)
            return found

    made = MendedSSD if negatives == "mended" else SSD
    return made(
        backbone, boxes, (size, size), classes + 1, image_mean=[0.0] * channels,
        image_std=[0.5] * channels, head=head, score_thresh=0.01, nms_thresh=0.45,
        detections_per_img=200,
    )  # fmt: skip


def _of_empty(logits: Tensor) -> Tensor:
    """The sum of the three largest losses of each image without a box, (b, A, K + 1)."""
    background = logits.new_zeros(logits.shape[:2], dtype=torch.int64)
    loss = F.cross_entropy(logits.flatten(0, 1), background.flatten(), reduction="none")
    worst = loss.view(background.shape).topk(min(PER_POSITIVE, logits.shape[1]), dim=1)
    return worst.values.sum()
