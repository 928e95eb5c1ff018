r"""YOLOv3, a detector of Table 2 of GRANet.

J. Redmon and A. Farhadi, YOLOv3: An Incremental Improvement, arXiv 1804.02767, 2018.

Equations (Section 2.1, and the public code darknet)
    boxes     $x = (\sigma(u) + i) s$, $y = (\sigma(v) + j) s$, $w = a_w e^p$, $h = a_h e^q$
              `decoded`
    assignment  one anchor for each true box, the one of its shape    `assigned`
    loss      `YOLOv3.losses`
Network     `nn.darknet.Darknet53`, `nn.darknet.YoloHeads`

Here $i, j$ are the column and the row of a cell, $s$ its pixels, $a_w, a_h$ an anchor, $u, v, p, q$
the raw answers for a box, $o$ for an object and $k_c$ for a class.

Reading (loss, the middle of a box): The paper has a squared error; darknet has the gradient of a
    cross-entropy with a target between 0 and 1.
    Here: It is the cross-entropy.
    Why: The published weights were trained by the code.

Reading (loss, the size of a box): The paper does not say that small boxes count more; darknet
    multiplies the loss of a box by $2 - wh / (WH)$.
    Here: So do we.
    Why: The published weights were trained by the code.

Reading (loss, who is ignored): The paper ignores anchors that overlap a true box by more than .5,
    darknet predictions that do so by more than .7.
    Here: It is darknet's rule.
    Why: The published weights were trained by the code.

Reading (training, first answers): Thousands of cells without an object drive the logit of an object
    down during darknet's first thousand steps.
    Here: It begins at a probability of .01.
    Why: A short training has no thousand steps to spare.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cxrtut.nn.darknet import PER_CELL, STRIDES, Darknet53, YoloHeads

IGNORED, KEPT, OVERLAP = 0.7, 0.005, 0.45  # IoU, score, IoU
LARGEST = 4.0  # of the logarithm of a side over its anchor's
MOST = 200  # boxes of an image
Target = dict[str, Tensor]


class YOLOv3(nn.Module):
    """The detector. In training mode it takes a list of images and one of targets (`boxes` (n, 4),
    xyxy in pixels, and `labels` (n,) from 0; an image may have none) and gives its losses; in
    evaluation mode boxes with labels and scores, the surest first.
    """

    def __init__(
        self,
        classes: int,
        size: int,
        anchors: Float[Tensor, "9 2"],
        channels: int = 1,
        *,
        width: int = 32,
    ) -> None:
        """
        Args:
            classes: K.
            size: height and width of the images in pixels, a multiple of 32.
            anchors: width and height in pixels, three for each map, the finest map's first.
            channels: of the images, which are in [-1, 1].
            width: channels of the first convolution; 32 as published.

        Raises:
            ValueError: another size, no class, or other anchors than nine of positive sides.
        """
        super().__init__()
        if size < 32 or size % STRIDES[-1]:
            raise ValueError(f"size: expected a multiple of {STRIDES[-1]}, got {size}")
        if classes < 1:
            raise ValueError(f"classes: expected 1 or more, got {classes}")
        if tuple(anchors.shape) != (len(STRIDES) * PER_CELL, 2) or not (anchors > 0).all():
            raise ValueError(
                "anchors: expected 9 pairs of positive sides, got shape "
                f"{tuple(anchors.shape)} and a smallest of {float(anchors.min())}"
            )
        self.classes, self.size = classes, size
        self.backbone: nn.Module = Darknet53(channels, width)
        self.heads = YoloHeads((8 * width, 16 * width, 32 * width), classes)
        self.register_buffer("anchors", anchors.float())
        self.register_buffer("grid", _grid(size), persistent=False)

    anchors: Float[Tensor, "9 2"]
    grid: Float[Tensor, "P 3"]

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, boxes in evaluation mode.

        Raises:
            ValueError: images of another size, or no targets in training mode.
        """
        x = torch.stack(list(images))
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"expected images of {self.size} px, got {tuple(x.shape[-2:])}")
        raw = self.heads(self.backbone(x)).float()
        boxes = decoded(raw, self.grid, self.anchors)
        if not self.training:
            return [self._found(*of) for of in zip(raw, boxes, strict=True)]
        if targets is None:
            raise ValueError("targets: expected one for each image in training mode, got none")
        return self.losses(raw, boxes, targets)

    def losses(
        self, raw: Float[Tensor, "B P N"], boxes: Float[Tensor, "B P 4"], targets: list[Target]
    ) -> dict[str, Tensor]:
        r"""Sums over the anchors of all cells, means over images; no weights.

        `box`: of an anchor that has a true box, $g$ times the cross-entropies of $u$ and $v$ with
        the place in the cell, and half the squared errors of $p$ and $q$, $g = 2 - wh / (WH)$.
        `object`: the cross-entropy of $o$ with 1 there, and with 0 everywhere else but where a
        prediction overlaps a true box by more than .7. `class`: there, the cross-entropies of all
        $k_c$.
        """
        which, wanted = assigned(targets, self.grid, self.anchors, self.size)
        image, anchor = which.unbind(1)
        has_object = torch.zeros(raw.shape[:2], device=raw.device)
        has_object[image, anchor] = 1.0
        counted = torch.stack([
            _is_free(b, t["boxes"]) for b, t in zip(boxes.detach(), targets, strict=True)
        ])  # fmt: skip
        counted |= has_object > 0
        at = raw[image, anchor]
        place = F.binary_cross_entropy_with_logits(at[:, :2], wanted[:, :2], reduction="none")
        shape = (at[:, 2:4] - wanted[:, 2:4]) ** 2 / 2
        larger = wanted[:, 4:5]
        labels = F.one_hot(wanted[:, 5].long(), self.classes).to(at.dtype)
        objects = F.binary_cross_entropy_with_logits(raw[..., 4], has_object, reduction="none")
        n = len(raw)
        return {
            "box": (larger * (place + shape)).sum() / n,
            "object": objects[counted].sum() / n,
            "class": F.binary_cross_entropy_with_logits(at[:, 5:], labels, reduction="sum") / n,
        }

    def _found(self, raw: Float[Tensor, "P N"], boxes: Float[Tensor, "P 4"]) -> dict[str, Tensor]:
        from torchvision.ops import batched_nms

        score = raw[:, 4:5].sigmoid() * raw[:, 5:].sigmoid()
        places, labels = (score > KEPT).nonzero(as_tuple=True)
        scores, found = score[places, labels], boxes[places].clamp(0, self.size)
        kept = batched_nms(found, scores, labels, OVERLAP)[:MOST]
        return {"boxes": found[kept], "scores": scores[kept], "labels": labels[kept]}


def decoded(
    raw: Float[Tensor, "B P N"], grid: Float[Tensor, "P 3"], anchors: Float[Tensor, "9 2"]
) -> Float[Tensor, "B P 4"]:
    """The boxes of raw answers, xyxy in pixels.

    Args:
        raw: of `nn.darknet.YoloHeads`.
        grid: column, row and pixels of the cell of each.
        anchors: nine; which of them an answer has follows from its place.
    """
    of = anchors[_anchor_of(grid)]
    middle = (raw[..., :2].sigmoid() + grid[:, :2]) * grid[:, 2:]
    half = of * raw[..., 2:4].clamp(max=LARGEST).exp() / 2
    return torch.cat((middle - half, middle + half), dim=-1)


def assigned(
    targets: list[Target],
    grid: Float[Tensor, "P 3"],
    anchors: Float[Tensor, "9 2"],
    size: int,
) -> tuple[Int[Tensor, "n 2"], Float[Tensor, "n 6"]]:
    """Which answer is to find which box: of each true box the anchor of all nine whose shape
    overlaps its own most, in the cell that holds its middle. Of two boxes for one answer the later
    one stays.

    Returns:
        Image and place of each such answer; and what it shall be: place in the cell (2), logarithms
        of width and height over the anchor's (2), the weight $2 - wh / (WH)$, and the label.
    """
    which, wanted = [grid.new_zeros(0, 2, dtype=torch.int64)], [grid.new_zeros(0, 6)]
    first = _first_of_maps(size)
    for image, target in enumerate(targets):
        boxes, labels = target["boxes"].to(grid.dtype), target["labels"]
        if not len(boxes):
            continue
        side = boxes[:, 2:] - boxes[:, :2]
        shared = torch.minimum(side[:, None], anchors[None]).prod(-1)
        union = side.prod(-1)[:, None] + anchors.prod(-1)[None] - shared
        best = (shared / union).argmax(1)
        level, turn = best // PER_CELL, best % PER_CELL
        stride = torch.tensor(STRIDES, device=grid.device)[level]
        cells = size // stride
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride[:, None]
        cell = torch.minimum(middle.long(), cells[:, None] - 1).clamp_min(0)
        base = torch.tensor(first, device=grid.device)[level]
        place = base + (cell[:, 1] * cells + cell[:, 0]) * PER_CELL + turn
        told = torch.cat(
            (
                middle - cell,
                (side / anchors[best]).log(),
                (2 - side.prod(-1, keepdim=True) / size**2),
                labels[:, None].to(grid.dtype),
            ),
            dim=1,
        )
        keep = ~(place[:, None] == place[None]).triu(1).any(1)
        which.append(torch.stack((torch.full_like(place, image), place), 1)[keep])
        wanted.append(told[keep])
    return torch.cat(which), torch.cat(wanted)


def _is_free(boxes: Float[Tensor, "P 4"], truth: Float[Tensor, "n 4"]) -> Tensor:
    """Whether a prediction overlaps no true box by more than what is ignored."""
    from torchvision.ops import box_iou

    if not len(truth):
        return torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    return box_iou(boxes, truth.to(boxes.dtype)).amax(1) <= IGNORED


def _grid(size: int) -> Float[Tensor, "P 3"]:
    """Column, row and pixels of the cell of each answer, the finest map's first."""
    pieces = []
    for stride in STRIDES:
        n = size // stride
        row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        of_map = torch.stack((column, row, torch.full_like(row, stride)), -1).reshape(-1, 3)
        pieces.append(of_map.repeat_interleave(PER_CELL, 0))
    return torch.cat(pieces).float()


def _anchor_of(grid: Float[Tensor, "P 3"]) -> Int[Tensor, " P"]:
    """Which of the nine anchors each answer has."""
    level = (grid[:, 2] / STRIDES[0]).log2().round().long()
    return level * PER_CELL + torch.arange(len(grid), device=grid.device) % PER_CELL


def _first_of_maps(size: int) -> list[int]:
    """The place of the first answer of each map."""
    counts = [(size // stride) ** 2 * PER_CELL for stride in STRIDES]
    return [sum(counts[:k]) for k in range(len(counts))]
