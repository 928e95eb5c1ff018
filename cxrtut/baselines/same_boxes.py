"""The lower reference of a detector: the same boxes in every image."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Detections, Prediction


class SameBoxes:
    """No network: each class has one box, the mean of those it was given, in every image.

    Networks: `boxes`, the boxes as a buffer.
    """

    def __init__(
        self, boxes: Float[Tensor, "K 4"], classes: tuple[str, ...], *, size: int, channels: int
    ) -> None:
        """
        Args:
            boxes: xyxy in pixels, one for each class.
            classes: the K classes.
            size: of the images, pixels.
            channels: of the images.

        Raises:
            ValueError: not a box for each class.
        """
        if len(boxes) != len(classes):
            raise ValueError(
                f"boxes: expected one for each of {len(classes)} classes, got {len(boxes)}"
            )
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {"boxes": Corners(boxes)}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The boxes of all classes, all with a score of 1: it is sure of nothing more than of
        anything else.
        """
        boxes = self.networks["boxes"].get_buffer("xyxy")
        labels = torch.arange(len(boxes), device=boxes.device)
        found = Detections(boxes, torch.ones(len(boxes), device=boxes.device), labels)
        return Prediction(boxes=(found,) * len(images))


class Corners(nn.Module):
    """Boxes (K, 4) in the buffer `xyxy`, so that a file of weights holds them."""

    xyxy: Float[Tensor, "K 4"]

    def __init__(self, boxes: Float[Tensor, "K 4"]) -> None:
        super().__init__()
        self.register_buffer("xyxy", boxes)
