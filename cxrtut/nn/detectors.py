"""Torchvision's detectors for square images of one size and any number of channels, trained from
scratch.

Ren, He, Girshick and Sun, Faster R-CNN, NIPS 2015; Lin et al., Feature Pyramid Networks, CVPR 2017.
Torchvision is imported when a detector is made.

Reading (network, detectors from scratch): Torchvision's detectors expect a network that has learnt
    ImageNet, with norms that are frozen.
    Here: All layers are trained, norms are group norms, images are neither resized nor shifted, and
        anchors keep their fractions of pixels.
    Why: Without learnt weights a frozen norm normalises nothing, and batches are small. On small
        images an anchor rounded to whole pixels has another shape.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.residual_attention import AttendedBackbone

if TYPE_CHECKING:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

STRIDES = (4, 8, 16)
_CPU = torch.device("cpu")


class SmallPyramid(nn.Module):
    """A residual network with group norms and a feature pyramid on top, for small images.

    A 3x3 convolution of stride 2 and three residual blocks of stride 2 give maps at strides 4, 8
    and 16 with one, two and four times `width` channels; the pyramid adds to each what lies above
    it, with `channels_out` channels.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 16,
        channels_out: int = 32,
        strides: Sequence[int] = (8,),
    ) -> None:
        """
        Args:
            channels: channels of the image.
            width: channels of the first convolution, a multiple of 8.
            channels_out: channels of every map of the pyramid.
            strides: which maps are given, of `STRIDES`; those above the coarsest are not made.

        Raises:
            ValueError: other strides, or a width that is no multiple of 8.
        """
        super().__init__()
        if not strides or list(strides) != [s for s in STRIDES if s in strides]:
            raise ValueError(
                f"strides: expected some of {STRIDES}, finest first, got {tuple(strides)}"
            )
        if width < 8 or width % 8:
            raise ValueError(f"width: expected a multiple of 8, got {width}")
        from torchvision.ops import FeaturePyramidNetwork

        self.strides, self.out_channels = tuple(strides), channels_out
        widths = [width, 2 * width, 4 * width][: STRIDES.index(strides[-1]) + 1]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False), _norm(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            _Block(a, b) for a, b in zip([width, *widths], widths, strict=False)
        )
        self.pyramid = FeaturePyramidNetwork(widths, channels_out)

    def forward(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """The maps by their stride, finest first."""
        x = self.stem(image)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for stride, block in zip(STRIDES, self.blocks, strict=False):
            x = maps[str(stride)] = block(x)
        made = self.pyramid(maps)
        return OrderedDict((str(stride), made[str(stride)]) for stride in self.strides)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([_norm(channels), _norm(channels)])
        self.skip = nn.Conv2d(channels_in, channels, 1, 2, bias=False)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d p q"]:
        h = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(h)) + self.skip(x))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


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
    backbone: SmallPyramid | AttendedBackbone,
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
    """Faster R-CNN on a small pyramid.

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
    return FasterRCNN(
        backbone,
        min_size=size,
        max_size=size,
        image_mean=[0.0] * channels,
        image_std=[1.0] * channels,
        size_divisible=coarsest,
        _skip_resize=True,
        rpn_anchor_generator=anchor_generator(sizes, ratios),
        rpn_pre_nms_top_n_train=proposals[0],
        rpn_pre_nms_top_n_test=proposals[0],
        rpn_post_nms_top_n_train=proposals[0],
        rpn_post_nms_top_n_test=proposals[1],
        box_roi_pool=MultiScaleRoIAlign([str(s) for s in backbone.strides], pooled, 2),
        box_head=TwoMLPHead(backbone.out_channels * pooled**2, head),
        box_predictor=FastRCNNPredictor(head, classes + 1),
        box_batch_size_per_image=regions,
        box_score_thresh=5e-4,
        box_detections_per_img=200,
    )
