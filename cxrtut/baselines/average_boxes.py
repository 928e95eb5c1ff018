"""The upper reference for a method that cannot look: the average box of each disease, in every
image. It needs boxes to learn from, and no network.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Prediction
from cxrtut.nn.any_size import load_any_size


class AverageBoxes:
    """No classifier: each class has its average box of the training images, in every image.

    Networks: `boxes`, the maps as a buffer.
    """

    def __init__(
        self,
        maps: Float[Tensor, "K h w"],
        *,
        classes: tuple[str, ...],
        size: int,
        channels: int = 1,
    ) -> None:
        """
        Args:
            maps: 1 inside the average box of each class; of no cells before any are known.
            classes: one for each map.
            size: of the images, pixels.
            channels: of the images.

        Raises:
            ValueError: not a map for each class.
        """
        if len(maps) != len(classes):
            raise ValueError(
                f"maps: expected one for each of {len(classes)} classes, got {len(maps)}"
            )
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {"boxes": Maps(maps)}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The same heat maps for every image, 1 inside; no scores.

        Raises:
            ValueError: no boxes were learnt or loaded.
        """
        maps = self.networks["boxes"].get_buffer("mean")
        if not maps.numel():
            raise ValueError(f"expected maps of boxes, learnt or loaded, got {tuple(maps.shape)}")
        heat = nn.functional.interpolate(maps, tuple(images.shape[-2:]), mode="bilinear")
        return Prediction(heatmap=heat.expand(len(images), -1, -1, -1))


class Maps(nn.Module):
    """The maps (1, K, h, w) in the buffer `mean`, so that a file of weights holds them."""

    mean: Float[Tensor, "1 K h w"]

    def __init__(self, maps: Float[Tensor, "K h w"]) -> None:
        super().__init__()
        self.register_buffer("mean", maps[None])
        load_any_size(self)
