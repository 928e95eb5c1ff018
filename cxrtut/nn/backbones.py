"""Classifiers that one can look into: residual networks of 10, 18 and 50 layers, DenseNet
and VGG-19.

Each has two parts, and a class activation map needs no more: `features` takes the image to the last
feature map (B, c, h, w), `classifier` takes that map, pooled, to logits (B, K). Weights are random,
drawn from torch's global generator; torchvision is imported when one of its networks is made.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.evaluation_mode import evaluating, in_parts

_STRIDES = (2, 4, 8, 16)
# Layers: growth, layers of the blocks (each of two convolutions), channels of the first convolution
_DENSE = {121: (32, (6, 12, 24, 16), 64), 21: (8, (2, 2, 2, 2), 16)}


class ResNet10(nn.Module):
    """A small residual network for small images: one convolution, four blocks of two, one linear
    layer on the mean of the last feature map, which has 8 x `width` channels.

    He et al. (CVPR 2016), made small. At 64 px and stride 8 a class activation map has 8 x 8 cells;
    at stride 16 it has 4 x 4, too coarse for most findings.
    """

    def __init__(
        self, channels: int = 1, width: int = 16, classes: int = 2, stride: int = 8
    ) -> None:
        """
        Args:
            channels: channels of the image.
            width: channels of the first convolution.
            classes: number of logits.
            stride: pixels of the image for one pixel of the last feature map: 2, 4, 8 or 16.

        Raises:
            ValueError: another stride.
        """
        super().__init__()
        if stride not in _STRIDES:
            raise ValueError(f"expected a stride of 2, 4, 8 or 16, got {stride}")
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        blocks["stem"] = nn.Conv2d(channels, width, 3, 2, 1)
        for k, reached in enumerate(_STRIDES):
            halving = 2 if 2 < reached <= stride else 1
            blocks[f"block{k + 1}"] = _Block(widths[k], widths[k + 1], halving)
        self.features = nn.Sequential(blocks)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.classifier(self.features(image).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])
        self.skip = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d p q"]:
        h = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(h)) + self.skip(x))


class ResNet18(nn.Module):
    """ResNet-18 (He et al., CVPR 2016), torchvision's layers under torchvision's names.

    The last feature map has 512 channels at stride 32; `classifier` is linear on its mean.
    """

    def __init__(self, channels: int = 1, classes: int = 2) -> None:
        """
        Args:
            channels: channels of the image; the first convolution is made for them, with the
                initial weights of torchvision's.
            classes: number of logits.
        """
        from torchvision.models import resnet18

        super().__init__()
        self.features, self.classifier = _parts(resnet18(weights=None), channels, classes)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.classifier(self.features(image).mean((2, 3)))


class ResNet50(nn.Module):
    """ResNet-50 (He et al., CVPR 2016), torchvision's layers under torchvision's names.

    The last feature map has 2048 channels at stride 32; `classifier` is linear on its mean.
    """

    def __init__(self, channels: int = 3, classes: int = 14, *, imagenet: bool = False) -> None:
        """
        Args:
            channels: channels of the image. With ImageNet's weights and one channel, the first
                convolution is the sum over the three colours: what it gives for a grey image.
            classes: number of logits.
            imagenet: begin with the weights that torchvision keeps (`IMAGENET1K_V1`); fetched once.

        Raises:
            ValueError: ImageNet's weights for another number of channels than one or three.
            ConnectionError: ImageNet's weights are not here and cannot be fetched.
        """
        from torchvision.models import resnet50

        super().__init__()
        if imagenet and channels not in (1, 3):
            raise ValueError(f"ImageNet's weights: expected 1 or 3 channels, got {channels}")
        try:
            network = resnet50(weights="IMAGENET1K_V1" if imagenet else None)
        except OSError as error:
            raise ConnectionError(
                f"ImageNet's weights of ResNet-50 are not here and cannot be fetched ({error}); "
                "imagenet=False begins with random ones"
            ) from error
        learnt = network.conv1.weight.detach().clone()
        self.features, self.classifier = _parts(network, channels, classes)
        if imagenet:
            colours = learnt if channels == 3 else learnt.sum(1, keepdim=True)
            with torch.no_grad():
                self.features.get_parameter("conv1.weight").copy_(colours)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.classifier(self.features(image).mean((2, 3)))


def _parts(network: nn.Module, channels: int, classes: int) -> tuple[nn.Sequential, nn.Linear]:
    """The layers of a residual network of torchvision before its pooling, with a first convolution
    for other images; and a linear layer for other classes.
    """
    first = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    layers = OrderedDict(network.named_children())
    last = layers.pop("fc")
    assert isinstance(last, nn.Linear)
    del layers["avgpool"]
    classifier = nn.Linear(last.in_features, classes)
    return nn.Sequential(OrderedDict(layers, conv1=first)), classifier


def stages(features: nn.Module, image: Float[Tensor, "B C H W"]) -> list[Tensor]:
    """What the four stages of a residual network's `features` put out, (B, c, h, w) each: conv2_x,
    conv3_x, conv4_x and conv5_x of He et al.
    """
    outputs = []
    for name, layer in features.named_children():
        image = layer(image)
        if name.startswith(("block", "layer")):
            outputs.append(image)
    return outputs


@torch.no_grad()
def mean_stages(
    features: nn.Module, images: Float[Tensor, "N C H W"]
) -> list[Float[Tensor, "1 _ _ _"]]:
    """The mean over images of what each stage puts out, in evaluation mode.

    Raises:
        ValueError: no images.
    """
    if not len(images):
        raise ValueError("expected images for mean features, got none")
    with evaluating(features):
        sums = [
            [layer.sum(0, keepdim=True) for layer in stages(features, part)]
            for part in in_parts(images)
        ]
    return [torch.stack(layer).sum(0) / len(images) for layer in zip(*sums, strict=True)]


class DenseNet(nn.Module):
    """DenseNet (Huang et al., CVPR 2017), torchvision's layers under torchvision's names, with 121
    layers or with 21 for small machines.

    The last feature map (1024 channels of 121 layers) is behind the last norm and ReLU;
    `classifier` is linear on its mean.
    """

    def __init__(
        self, channels: int = 1, classes: int = 2, *, layers: int = 121, stride: int = 32
    ) -> None:
        """
        Args:
            channels: channels of the image; the first convolution is made for them, with the
                initial weights of torchvision's.
            classes: number of logits.
            layers: 121, the paper's; or 21, with blocks of 2 and a growth of 8.
            stride: pixels of the image for one pixel of the last feature map: 32, the paper's;
                without the first pooling 16, with a first convolution of stride 1 besides 8. Small
                images need it: at 64 px a stride of 32 leaves 2 x 2 cells.

        Raises:
            ValueError: other layers, or another stride.
        """
        from torchvision.models import DenseNet as Layers

        super().__init__()
        if layers not in _DENSE:
            raise ValueError(f"layers: expected 21 or 121, got {layers}")
        if stride not in (8, 16, 32):
            raise ValueError(f"stride: expected 8, 16 or 32, got {stride}")
        growth, blocks, width = _DENSE[layers]
        network = Layers(growth, blocks, width, num_classes=classes)
        first = nn.Conv2d(channels, width, 7, 1 if stride == 8 else 2, 3, bias=False)
        nn.init.kaiming_normal_(first.weight)
        features = OrderedDict(network.features.named_children(), conv0=first)
        if stride < 32:
            del features["pool0"]
        self.features = nn.Sequential(features)
        self.features.add_module("relu5", nn.ReLU())
        self.classifier = network.classifier

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.classifier(self.features(image).mean((2, 3)))


class VGG19(nn.Module):
    """VGG-19 without batch norm (Simonyan and Zisserman, ICLR 2015), torchvision's layers.

    Layers of `features` carry the paper's names: `features.conv5_4` is the last convolution, at
    stride 16. The last feature map has 512 channels at stride 32. `classifier` is three linear
    layers, not one, on that map pooled to 7 x 7: Grad-CAM applies to this network, CAM does not.

    ReLUs are not in place, because a Grad-CAM keeps the convolution's own output.
    """

    def __init__(self, channels: int = 1, classes: int = 2) -> None:
        """
        Args:
            channels: channels of the image; the first convolution is made for them, with the
                initial weights of torchvision's.
            classes: number of logits.
        """
        from torchvision.models import vgg19

        super().__init__()
        network = vgg19(weights=None, num_classes=classes)
        first = nn.Conv2d(channels, 64, 3, padding=1)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        first.bias = nn.Parameter(torch.zeros(64))
        self.features = nn.Sequential(OrderedDict(_named(network.features), conv1_1=first))
        self.pool = network.avgpool
        self.classifier = network.classifier

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.classifier(self.pool(self.features(image)).flatten(1))


def _named(layers: nn.Sequential) -> OrderedDict[str, nn.Module]:
    """Convolutions and ReLUs as conv1_1, relu1_1, ...: stage, and number in it; pools as pool1."""
    named: OrderedDict[str, nn.Module] = OrderedDict()
    stage, number = 1, 0
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            number += 1
            named[f"conv{stage}_{number}"] = layer
        elif isinstance(layer, nn.ReLU):
            named[f"relu{stage}_{number}"] = nn.ReLU()
        else:
            named[f"pool{stage}"] = layer
            stage, number = stage + 1, 0
    return named
