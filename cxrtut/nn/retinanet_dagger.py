"""RetinaNet with the five changes of Gabruseva, Poplavskiy and Kalinin, Deep Learning for Automatic
Pneumonia Detection, CVPR Workshops 2020: the "RetinaNet-dagger" of GRANet (Section 3.1).

    an encoder that has been trained on more: SE-ResNeXt-101      `SEResNeXtPyramid`
    small anchors, from a finer level of the pyramid, P2           `LEVELS`, `grid_anchors`
    a loss of images without a box                                 `RetinaNetDagger.losses`
    a second answer, of the whole image                            `WholeImageHead`
    dropout before the answers                                     `Tower`, `WholeImageHead`

Torchvision and timm are imported when a detector is made.

Reading (network, shades): ImageNet's encoder is given images in [0, 1], not shifted or scaled to
    what it has learnt from.
    Here: It is so, too. A grey image is copied to its three channels inside the encoder.
    Why: The published configuration does so, and its numbers are those that are compared with.

Reading (evaluation, unsure boxes): The public code drops boxes with less than half of the surest
    score of their image before it chooses a threshold.
    Here: `half_of_best` does so, and is on.
    Why: It is part of the published numbers.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = (4, 8, 16, 32, 64, 128)  # strides of P2 to P7
RATIOS = (0.5, 1.0, 2.0)  # height over width
OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
ENCODER = "legacy_seresnext101_32x4d"  # timm's name
WHOLE = "C5"  # the name of the map that the answer of the whole image is made of
OFFSETS = (10.0, 10.0, 5.0, 5.0)  # deviations of .1 and .2
POSITIVE, NEGATIVE = 0.5, 0.4  # IoU
KEPT, OVERLAP = 0.025, 0.05  # score, IoU
DIMMEST, BETA = 1e-4, 1 / 9
LAMBDA_WHOLE = 0.1
RARE = 0.01  # probability of each class at first
Target = dict[str, Tensor]


class SEResNeXtPyramid(nn.Module):
    """SE-ResNeXt-101 (32 x 4d) and a pyramid of 256 channels at strides 4 to 128, P2 to P7, all of
    it trained but its batch norms, which keep the numbers that they came with.

    Attributes:
        out_channels: of each map of the pyramid.
        strides: of the maps.
    """

    out_channels, strides, whole_channels = 256, LEVELS, 2048

    def __init__(self, *, imagenet: bool = False) -> None:
        """
        Args:
            imagenet: fetch the weights that timm offers.

        Raises:
            ModuleNotFoundError: timm is not installed.
        """
        super().__init__()
        try:
            from timm import create_model
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "SE-ResNeXt-101 needs timm >= 1 (pip install 'cxrtut[inception]')"
            ) from error
        self.encoder = create_model(
            ENCODER, pretrained=imagenet, features_only=True, out_indices=(1, 2, 3, 4)
        )
        widths, n = (256, 512, 1024, 2048), self.out_channels
        self.lateral = nn.ModuleList(nn.Conv2d(width, n, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for _ in widths)
        self.p6 = nn.Conv2d(2048, n, 3, 2, 1)
        self.p7 = nn.Conv2d(n, n, 3, 2, 1)
        for part in (self.lateral, self.smooth, self.p6, self.p7):
            begin(part)
        self.train()  # so that batch norms are in evaluation mode from the start

    def train(self, mode: bool = True) -> SEResNeXtPyramid:
        """Batch norms stay in evaluation mode: batches are small."""
        super().train(mode)
        for part in self.encoder.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self

    def forward(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """Images in [-1, 1] to the maps by their stride, finest first, and to the last map of the
        encoder under `WHOLE`.
        """
        grey = (image.mean(1, keepdim=True) + 1) / 2
        encoded = self.encoder(grey.expand(-1, 3, -1, -1))
        maps: list[Tensor] = []
        above: Tensor | None = None
        for lateral, smooth, features in zip(
            reversed(self.lateral), reversed(self.smooth), reversed(encoded), strict=True
        ):
            here = lateral(features)
            if above is not None:
                here = here + F.interpolate(above, size=here.shape[-2:], mode="nearest")
            above = here
            maps.insert(0, smooth(here))
        p6 = self.p6(encoded[-1])
        maps += [p6, self.p7(F.relu(p6))]
        names = [str(stride) for stride in self.strides] + [WHOLE]
        return OrderedDict(zip(names, [*maps, encoded[-1]], strict=True))


class Tower(nn.Module):
    """Four 3x3 convolutions with ReLU, dropout, and a convolution that begins at zero: the same
    for all levels.
    """

    def __init__(self, channels: int, out: int, *, dropout: float, norms: bool) -> None:
        """
        Args:
            channels: of the maps.
            out: numbers of a cell.
            dropout: probability that a number of the last map but one becomes zero.
            norms: with group norms, for maps of networks that have learnt nothing yet.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, channels, 3, padding=1)]
            layers += [nn.GroupNorm(8, channels)] if norms else []
            layers += [nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout))
        begin(self.layers)
        self.answer = nn.Conv2d(channels, out, 3, padding=1)
        nn.init.zeros_(self.answer.weight)
        assert self.answer.bias is not None
        nn.init.zeros_(self.answer.bias)

    def forward(self, maps: Sequence[Tensor], numbers: int) -> Float[Tensor, "B A k"]:
        """The answers of all anchors: `numbers` of each, those of a cell in turn."""
        told = [self.answer(self.layers(features)) for features in maps]
        return torch.cat([t.permute(0, 2, 3, 1).reshape(len(t), -1, numbers) for t in told], 1)


class WholeImageHead(nn.Module):
    """What the image is as a whole: the largest of 2 x 2 cells, a 3x3 convolution with ReLU, its
    mean and its largest number over places, dropout, and a linear layer.
    """

    def __init__(self, channels: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 256, 3)
        self.dropout, self.answer = nn.Dropout(dropout), nn.Linear(512, classes)

    def forward(self, features: Float[Tensor, "B c h w"]) -> Float[Tensor, "B G"]:
        """Logits. A map of fewer than 6 x 6 cells is not halved, and one of fewer than 3 x 3 is
        padded: small images have no others.
        """
        side = min(features.shape[-2:])
        seen = F.max_pool2d(features, 2) if side >= 6 else features
        short = max(0, 3 - min(seen.shape[-2:]))
        seen = F.relu(self.layer(F.pad(seen, [0, short, 0, short])))
        pooled = torch.cat((seen.mean((2, 3)), seen.amax((2, 3))), dim=1)
        return self.answer(self.dropout(pooled))


class RetinaNetDagger(nn.Module):
    """The detector. In training mode it takes a list of images and one of targets and gives its
    losses; in evaluation mode boxes with labels, from 0, and scores, the surest first.

    A target has `boxes` (n, 4), xyxy in pixels, `labels` (n,) from 0, and, where it is known,
    `whole` (), the class of the whole image; otherwise that is 1 with a box and 0 without.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        size: int,
        *,
        sizes: Sequence[float],
        whole: int = 3,
        dropout: float = 0.5,
        norms: bool = False,
        half_of_best: bool = True,
    ) -> None:
        """
        Args:
            backbone: images to an ordered dictionary of maps, with `out_channels` and `strides`:
                `SEResNeXtPyramid`, `nn.pyramids.SmallPyramid`, or one of them attended. Without a
                map of the name `WHOLE` the coarsest serves as that.
            classes: K of the boxes; there is no background.
            size: height and width of the images, pixels.
            sizes: of the anchors of each map, before the octaves, pixels; published: four strides.
            whole: classes of the whole image; 0 for no such answer.
            dropout: before the answers of classes and of the whole image.
            norms: group norms in the towers, see `Tower`.
            half_of_best: see the module.

        Raises:
            ValueError: sizes of another number of maps, no class, or a dropout outside [0, 1).
        """
        super().__init__()
        strides: tuple[int, ...] = tuple(backbone.strides)  # type: ignore[arg-type]
        channels: int = backbone.out_channels  # type: ignore[assignment]
        if len(sizes) != len(strides):
            raise ValueError(f"sizes: expected one for each of {len(strides)} maps, got {sizes}")
        if classes < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"expected one class or more and a dropout in [0, 1), got {classes} and {dropout}"
            )
        self.backbone, self.classes, self.size = backbone, classes, size
        self.strides, self.sizes, self.half_of_best = strides, tuple(sizes), half_of_best
        anchors = len(RATIOS) * len(OCTAVES)
        self.boxes = Tower(channels, 4 * anchors, dropout=0.0, norms=norms)
        self.logits = Tower(channels, classes * anchors, dropout=dropout, norms=norms)
        assert self.logits.answer.bias is not None
        nn.init.constant_(self.logits.answer.bias, -math.log((1 - RARE) / RARE))
        inner = getattr(backbone, "backbone", backbone)  # of an attended one
        width = getattr(inner, "whole_channels", channels)
        self.whole = WholeImageHead(width, whole, dropout=dropout) if whole else None

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, boxes in evaluation mode.

        Raises:
            ValueError: no targets in training mode, or images of another size.
        """
        x = torch.stack(list(images))
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"expected images of {self.size} px, got {tuple(x.shape[-2:])}")
        maps = self.backbone(x)
        whole_map = maps.pop(WHOLE, None)
        levels = list(maps.values())
        anchors = grid_anchors(
            [tuple(m.shape[-2:]) for m in levels], self.strides, self.sizes, x.device
        )
        logits, offsets = self.logits(levels, self.classes), self.boxes(levels, 4)
        if not self.training:
            return [self._found(*of, anchors) for of in zip(logits, offsets, strict=True)]
        if targets is None:
            raise ValueError("targets: expected one for each image in training mode, got none")
        found = self.losses(logits, offsets, anchors, targets)
        if self.whole is not None:
            told = self.whole(levels[-1] if whole_map is None else whole_map)
            wanted = [t.get("whole", told.new_tensor(len(t["boxes"]) > 0)) for t in targets]
            told_loss = F.cross_entropy(told, torch.stack(wanted).long())
            found["whole"] = LAMBDA_WHOLE * told_loss
        return found

    def losses(
        self,
        logits: Float[Tensor, "B A K"],
        offsets: Float[Tensor, "B A 4"],
        anchors: Float[Tensor, "A 4"],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """`classification`, the focal loss: of each image the sum over anchors and classes, over
        the number of positive anchors, or over 1 where there are none, so that an image without a
        box counts; and `bbox_regression`, smooth L1 (beta 1/9): of each image the mean over
        positive anchors and four offsets. Both are means over images.
        """
        from torchvision.models.detection._utils import BoxCoder
        from torchvision.ops import box_iou

        # Half precision cannot tell 1 - 1e-4 from 1
        logits, offsets = logits.float(), offsets.float()
        coder, of_classes, of_boxes = BoxCoder(OFFSETS), [], []
        for image_logits, image_offsets, target in zip(logits, offsets, targets, strict=True):
            boxes, labels = target["boxes"], target["labels"]
            wanted = torch.zeros_like(image_logits)
            counted = torch.ones_like(image_logits[:, 0], dtype=torch.bool)
            box_loss = image_offsets.sum() * 0
            n = 0
            if len(boxes):
                overlap, nearest = box_iou(anchors, boxes).max(1)
                positive = overlap >= POSITIVE
                counted = positive | (overlap < NEGATIVE)
                rows = positive.nonzero()[:, 0]
                wanted[rows, labels[nearest[rows]]] = 1.0
                n = len(rows)
                if n:
                    right = coder.encode_single(boxes[nearest[rows]], anchors[rows])
                    box_loss = F.smooth_l1_loss(image_offsets[rows], right, beta=BETA)
            of_classes.append(_focal(image_logits[counted], wanted[counted]) / max(1, n))
            of_boxes.append(box_loss)
        return {
            "classification": torch.stack(of_classes).mean(),
            "bbox_regression": torch.stack(of_boxes).mean(),
        }

    def _found(
        self, logits: Float[Tensor, "A K"], offsets: Float[Tensor, "A 4"], anchors: Tensor
    ) -> dict[str, Tensor]:
        from torchvision.models.detection._utils import BoxCoder
        from torchvision.ops import batched_nms

        probability = logits.sigmoid()
        cells, labels = (probability > KEPT).nonzero(as_tuple=True)
        scores = probability[cells, labels]
        boxes = BoxCoder(OFFSETS).decode_single(offsets[cells], anchors[cells])
        boxes = boxes.clamp(0, self.size)
        kept = batched_nms(boxes, scores, labels, OVERLAP)
        if self.half_of_best and len(kept):
            kept = kept[scores[kept] >= scores[kept[0]] / 2]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def grid_anchors(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    sizes: Sequence[float],
    device: torch.device,
) -> Float[Tensor, "A 4"]:
    """Nine anchors around the middle of each cell, xyxy in pixels, not rounded: three octaves of
    three ratios.

    Args:
        shapes: height and width of each map, cells.
        strides: pixels of a cell.
        sizes: the roots of the areas of the first octave, pixels.
        device: where they shall be.
    """
    pieces = []
    for (height, width), stride, size in zip(shapes, strides, sizes, strict=True):
        side = size * torch.tensor(OCTAVES, device=device)
        root = torch.tensor(RATIOS, device=device).sqrt()
        w, h = ((side[None] * f[:, None]).flatten() for f in (1 / root, root))
        corners = torch.stack((-w, -h, w, h), dim=1) / 2
        y, x = ((torch.arange(n, device=device) + 0.5) * stride for n in (height, width))
        middles = torch.stack(
            (x.repeat(height), y.repeat_interleave(width)), dim=1
        ).repeat(1, 2)  # fmt: skip
        pieces.append((middles[:, None] + corners[None]).flatten(0, 1))
    return torch.cat(pieces)


def _focal(logits: Float[Tensor, "a K"], wanted: Float[Tensor, "a K"]) -> Float[Tensor, ""]:
    """The focal loss, alpha .25 and gamma 2, its probabilities kept from 0 and 1; the sum."""
    p = logits.sigmoid().clamp(DIMMEST, 1 - DIMMEST)
    right = torch.where(wanted > 0, p, 1 - p)
    alpha = torch.where(wanted > 0, 0.25, 0.75)
    return -(alpha * (1 - right) ** 2 * right.log()).sum()


def begin(network: nn.Module) -> None:
    """Weights of convolutions are drawn with a variance of 2 over their outputs (height times width
    times channels), and biases are zero.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
