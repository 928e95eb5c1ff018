"""What generators make of images: the pseudo-healthy image and the difference, method by method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.viz.images import draw, draw_difference, draw_outline, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 0.3  # of [-1, 1], halved: the difference that is fully coloured


def rows_of_arms(
    image: Float[Tensor, "N 1 H W"],
    outputs: Mapping[str, Float[Tensor, "N 1 H W"]],
    region: Bool[Tensor, "N H W"] | None = None,
) -> Figure:
    """A row for each image: x with the region's outline, then for each method G(x) and x - G(x).

    Args:
        image: in [-1, 1].
        outputs: method -> what it makes of them; the healthy twins may be one of them.
        region: where the disease is, if it is known.
    """
    columns = 1 + 2 * len(outputs)
    figure, axes = grid(columns * len(image), columns, height=1.12)
    for i in range(len(image)):
        row = axes[columns * i : columns * (i + 1)]
        draw(row[0], image[i, 0], "x" if i == 0 else "")
        if region is not None:
            draw_outline(row[0], region[i])
        for k, (name, output) in enumerate(outputs.items()):
            draw(row[1 + 2 * k], output[i, 0], name if i == 0 else "")
            difference = (image - output)[i, 0] / 2
            title = "difference" if i == 0 else ""
            draw_difference(row[2 + 2 * k], difference, LIMIT, title)
    return figure
