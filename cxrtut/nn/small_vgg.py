"""A small VGG for small images."""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

STAGES = 4
CONVOLUTIONS = 2  # of a stage


class SmallVGG(nn.Module):
    """VGG (Simonyan and Zisserman, ICLR 2015) made small: four stages of two 3x3 convolutions with
    batch norm and ReLU, halved by pooling between them, and two linear layers on the last map,
    pooled to 2 x 2.

    Layers of `features` carry the names of `VGG19`, with the norms beside them: `norm4_2` is what
    goes into the last ReLU, at stride 8. As in VGG-19, there is more than one linear layer behind
    the last map: Grad-CAM applies to this network, CAM does not. ReLUs are not in place.
    """

    def __init__(self, channels: int = 1, width: int = 16, classes: int = 2) -> None:
        """
        Args:
            channels: channels of the image.
            width: channels of the first stage; the last one has 8 times as many.
            classes: number of logits.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        if min(channels, width, classes) < 1:
            raise ValueError(
                "expected channels, width and classes of 1 or more, got "
                f"{channels}, {width} and {classes}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for stage in range(1, STAGES + 1):
            for number in range(1, CONVOLUTIONS + 1):
                wider = width * 2 ** (stage - 1)
                place = f"{stage}_{number}"
                layers[f"conv{place}"] = nn.Conv2d(channels, wider, 3, 1, 1, bias=False)
                layers[f"norm{place}"] = nn.BatchNorm2d(wider)
                layers[f"relu{place}"] = nn.ReLU()
                channels = wider
            if stage < STAGES:
                layers[f"pool{stage}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 4 * width), nn.ReLU(),
            nn.Linear(4 * width, classes),
        )  # fmt: skip

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.classifier(self.features(image))
