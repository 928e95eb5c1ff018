"""Faster R-CNN on Inception-ResNet-v2, as TensorFlow's Object Detection API builds it
(`faster_rcnn_inception_resnet_v2_atrous`).

Huang et al., Speed/Accuracy Trade-Offs for Modern Convolutional Object Detectors, CVPR 2017;
Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections, AAAI 2017.
The network is timm's; it is imported when a detector is made.

Reading (network, the detector): Xing et al. (MICCAI 2019) use "a Faster-RCNN built on
    InceptionV2-ResNet" on images of 256 pixels, with a learning rate of 0.0003.
    Here: It is the detector of that name of TensorFlow's API, whose sample configuration has the
        same learning rate. Images are not enlarged to its 600 pixels; anchors are smaller instead.
    Why: "All datasets are resized to 256×256".

Reading (network, norms): TensorFlow's batch norms are frozen, and their numbers come from COCO.
    Here: They are trained.
    Why: Without learnt numbers a frozen norm normalises nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.detectors import anchor_generator

if TYPE_CHECKING:
    from torchvision.models.detection import FasterRCNN

FIRST_STAGE = (
    "conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a",
    "mixed_5b", "repeat", "mixed_6a", "repeat_1",
)  # fmt: skip
SECOND_STAGE = ("mixed_7a", "repeat_2", "block8", "conv2d_7b")
SIZES = (64.0, 128.0, 256.0, 512.0)  # of anchors, in images of 600 pixels
RATIOS = (0.5, 1.0, 2.0)
FULL_SIZE = 600


class InceptionBackbone(nn.Module):
    """Image to the map of 1,088 channels that the first stage looks at, and of which the second
    stage cuts its regions: `layers` up to the twenty blocks of 17.

    TensorFlow pads its convolutions so that a map is the image's size over the stride; timm does
    not, so padding is added. At a stride of 8 the last halving is left out, and the blocks behind
    it are dilated.
    """

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.out_channels = 1088
        self.layers = nn.Sequential(*[network.get_submodule(name) for name in FIRST_STAGE])
        part: dict[str, Any] = {name: network.get_submodule(name) for name in FIRST_STAGE}
        mixed = part["mixed_6a"]
        halving = [mixed.branch0.conv, mixed.branch1[2].conv, mixed.branch2]
        convolutions = [part[name].conv for name in ("conv2d_1a", "conv2d_2a", "conv2d_4a")]
        pools = [part["maxpool_3a"], part["maxpool_5a"]]
        for layer in (*convolutions, *pools, *halving):
            layer.padding = 1 if isinstance(layer, nn.MaxPool2d) else (1, 1)
        if stride == 8:
            for layer in halving:
                layer.stride = 1 if isinstance(layer, nn.MaxPool2d) else (1, 1)
            for block in part["repeat_1"]:
                for long in (block.branch1[1].conv, block.branch1[2].conv):
                    long.dilation = (2, 2)
                    long.padding = tuple(2 * side for side in long.padding)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1088 h w"]:
        return self.layers(image)


class InceptionProposals(nn.Module):
    """The head of the first stage: a dilated 3x3 convolution to 512 channels and ReLU6, and from
    them a logit and four numbers of a box for each anchor of a cell.
    """

    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(1088, 512, 3, padding=2, dilation=2)
        self.logits = nn.Conv2d(512, anchors, 1)
        self.boxes = nn.Conv2d(512, 4 * anchors, 1)
        for layer in (self.shared, self.logits, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """For each map (B, 1088, h, w): logits (B, A, h, w) and boxes (B, 4 A, h, w)."""
        seen = [F.relu6(self.shared(one)) for one in maps]
        return [self.logits(one) for one in seen], [self.boxes(one) for one in seen]


class InceptionHead(nn.Module):
    """The second stage: regions of the map to vectors of 1,536 numbers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[network.get_submodule(name) for name in SECOND_STAGE])

    def forward(self, regions: Float[Tensor, "R 1088 h w"]) -> Float[Tensor, "R 1536"]:
        return self.layers(regions).mean((2, 3))


def inception_rcnn(
    classes: int,
    size: int,
    channels: int = 1,
    *,
    stride: int = 8,
    crop: int = 17,
    regions: int = 64,
    proposals: int = 300,
) -> FasterRCNN:
    """The detector; see `nn.detectors.faster_rcnn` for what it takes and gives.

    Args:
        classes: K, without background.
        size: height and width of the images in pixels, a multiple of 16.
        channels: of the images, which are in [-1, 1].
        stride: pixels of the image for a cell of the map: 8, as published, or 16.
        crop: a region is brought to so many cells, 17 as published; 5 or more.
        regions: of an image, that the second stage learns from in a step.
        proposals: of the first stage.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: another size, stride or crop, or no class.
    """
    if size < 1 or size % 16 or stride not in (8, 16) or crop < 5 or classes < 1:
        raise ValueError(
            "expected a size that is a multiple of 16, a stride of 8 or 16, a crop of 5 or more "
            f"and a class or more, got {size}, {stride}, {crop} and {classes}"
        )
    try:
        from timm.models.inception_resnet_v2 import InceptionResnetV2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Inception-ResNet-v2 needs timm >= 1 (pip install 'cxrtut[inception]')"
        ) from error
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign

    network = InceptionResnetV2(in_chans=channels, num_classes=0)
    anchors = anchor_generator([[size / FULL_SIZE * side for side in SIZES]], RATIOS)
    return FasterRCNN(
        InceptionBackbone(network, stride),
        min_size=size,
        max_size=size,
        image_mean=[0.0] * channels,
        image_std=[1.0] * channels,
        size_divisible=16,
        _skip_resize=True,
        rpn_anchor_generator=anchors,
        rpn_head=InceptionProposals(anchors.num_anchors_per_location()[0]),
        rpn_post_nms_top_n_train=proposals,
        rpn_post_nms_top_n_test=proposals,
        box_roi_pool=MultiScaleRoIAlign(["0"], crop, 1),
        box_head=InceptionHead(network),
        box_predictor=FastRCNNPredictor(1536, classes + 1),
        box_batch_size_per_image=regions,
        box_score_thresh=5e-4,
        box_nms_thresh=0.6,
        box_detections_per_img=200,
    )
