"""The detectors of GRANet's tables: as published, and small ones for a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cxrtut.baselines.dgm import DisentangledInput
from cxrtut.baselines.pyolo import PYolo
from cxrtut.baselines.yolov3 import YOLOv3
from cxrtut.nn.detectors import faster_rcnn, mask_rcnn
from cxrtut.nn.dgm import DisentangledGenerator
from cxrtut.nn.pyramids import Pyramid, ResNet50Pyramid, SmallPyramid, SmallStages
from cxrtut.nn.residual_attention import AttendedBackbone, ResidualAttention
from cxrtut.nn.retinanet import retinanet
from cxrtut.nn.retinanet_dagger import RetinaNetDagger, SEResNeXtPyramid
from cxrtut.nn.ssd import small_ssd, ssd300
from cxrtut.papers.granet import Config
from cxrtut.randomness import seeded

# The label of the first class, see `data.box_targets`
FIRST = {
    "RetinaNet": 0, "RetinaNet + DGM": 0, "RetinaNet-dagger": 0, "YOLOv3": 0, "PYolo": 0,
    "Faster R-CNN": 1, "Mask R-CNN": 1, "SSD": 1,
}  # fmt: skip
SHARES = (1 / 8, 3 / 16, 9 / 32, 27 / 64)  # of the image's side: anchors of small detectors
WIDTH = 8  # of the small YOLOv3
# Of YOLOv3, for images of 416 pixels
COCO = (
    (10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326),
)  # fmt: skip
Attend = Callable[[nn.Module], Pyramid]
OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


def make_detector(
    name: str, config: Config, classes: int, seed: int, generator: nn.Module | None = None
) -> nn.Module:
    """A detector with the initial weights of a seed.

    Args:
        name: one of `FIRST`.
        config: its size, its channels, and whether detectors are small.
        classes: K.
        seed: of the initial weights.
        generator: whose residual is attended to, if any is; or a DGM, whose answers are seen.

    Raises:
        ValueError: attention of a detector that has no pyramid.
    """
    if generator is not None and name in ("SSD", "YOLOv3", "PYolo"):
        raise ValueError(f"{name}: expected no generator, since it has no pyramid to attend to")

    def attended(backbone: nn.Module) -> Pyramid:
        if generator is None:
            assert isinstance(backbone, Pyramid)
            return backbone
        if isinstance(generator, DisentangledGenerator):
            return DisentangledInput(backbone, generator)
        return AttendedBackbone(backbone, ResidualAttention(generator), kind=config.attention)

    with seeded("granet, detector", seed):
        if config.detector == "small":
            return _small(name, config, classes, attended)
        return _published(name, config, classes, attended)


def _small(name: str, config: Config, classes: int, attended: Attend) -> nn.Module:
    size, channels = config.size, config.channels
    sides = [share * size for share in SHARES]
    if name in ("RetinaNet", "RetinaNet + DGM"):
        backbone = attended(SmallPyramid(_seen(name, channels), 16, 32, (4,)))
        return retinanet(backbone, classes, size, channels, sizes=[sides])
    if name == "RetinaNet-dagger":
        backbone = attended(SmallPyramid(channels, 16, 32, (4, 8)))
        assert isinstance(backbone, nn.Module)
        return RetinaNetDagger(
            backbone, classes, size, sizes=[sides[0], sides[2]], whole=2, norms=True
        )
    if name in ("Faster R-CNN", "Mask R-CNN"):
        backbone = attended(SmallPyramid(channels, 16, 32, (4,)))
        make = faster_rcnn if name == "Faster R-CNN" else mask_rcnn
        return make(backbone, classes, size, channels, sizes=[sides])
    if name == "SSD":
        stages = SmallStages(channels, 16, (4, 8))
        scales = [sides[0] / size, sides[2] / size, sides[3] / size]
        return small_ssd(stages, classes, size, channels, scales=scales)
    return _yolo(name, config, classes, WIDTH)


def _published(name: str, config: Config, classes: int, attended: Attend) -> nn.Module:
    size, channels = config.size, config.channels
    if name in ("RetinaNet", "RetinaNet + DGM"):
        backbone = attended(ResNet50Pyramid(_seen(name, channels), finest=8))
        sizes = [[4 * s * octave for octave in OCTAVES] for s in backbone.strides]
        return retinanet(backbone, classes, size, channels, sizes=sizes, ratios=(0.5, 1.0, 2.0))
    if name == "RetinaNet-dagger":
        backbone = attended(SEResNeXtPyramid(imagenet=config.imagenet))
        assert isinstance(backbone, nn.Module)
        return RetinaNetDagger(
            backbone, classes, size, sizes=[4.0 * s for s in backbone.strides], whole=2
        )
    if name in ("Faster R-CNN", "Mask R-CNN"):
        backbone = attended(ResNet50Pyramid(channels))
        sizes = [[8.0 * s * octave for octave in OCTAVES] for s in backbone.strides]
        how: dict[str, Any] = {"sizes": sizes, "pooled": 7, "head": 1024, "proposals": (1000, 300)}
        if name == "Faster R-CNN":
            return faster_rcnn(backbone, classes, size, channels, **how)
        return mask_rcnn(backbone, classes, size, channels, mask_layers=(256,) * 4, **how)
    if name == "SSD":
        return ssd300(classes, channels)
    return _yolo(name, config, classes, 32)


def _seen(name: str, channels: int) -> int:
    """Channels that a backbone sees."""
    return 3 * channels if name == "RetinaNet + DGM" else channels


def _yolo(name: str, config: Config, classes: int, width: int) -> nn.Module:
    """With anchors of COCO's kind, before those of the training images are put in."""
    anchors = torch.tensor(COCO, dtype=torch.float32) * config.size / 416
    make = PYolo if name == "PYolo" else YOLOv3
    return make(classes, config.size, anchors, config.channels, width=width)
