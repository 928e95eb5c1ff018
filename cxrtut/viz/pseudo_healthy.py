"""What generators make of images: the pseudo-healthy image and the difference, method by method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.viz.images import BAR, difference_bar, draw, draw_difference, draw_outline, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 0.3  # of [-1, 1], halved: the difference that is fully coloured
ARMS = 3  # beside x in a row


def rows_of_arms(
    image: Float[Tensor, "N 1 H W"],
    outputs: Mapping[str, Float[Tensor, "N 1 H W"]],
    region: Bool[Tensor, "N H W"] | None = None,
) -> Figure:
    """Two rows for each image: x and, for each method, what it makes of it, G(x); below, x with the
    region's outline, and each method's difference x - G(x). More than three methods go on in the
    next two rows.

    Args:
        image: in [-1, 1].
        outputs: method -> what it makes of them; the healthy twins may be one of them.
        region: where the disease is, if it is known.

    Raises:
        ValueError: no images or no methods.
    """
    if not len(image) or not outputs:
        raise ValueError(f"expected images and methods, got {len(image)} and {len(outputs)}")
    names = list(outputs)
    parts = [names[k : k + ARMS] for k in range(0, len(names), ARMS)]
    columns = 1 + len(parts[0])
    blank = [[""] * (columns - 1 - len(part)) for part in parts]
    outlined = "x" if region is None else "x and region"
    titles = []
    for part, rest in zip(parts, blank, strict=True):
        titles += ["x", *part, *rest, outlined, *["difference" for _ in part], *rest]
    figure, axes = grid(len(titles) * len(image), columns, titles * len(image), below=BAR)
    rows = iter(axes[k : k + columns] for k in range(0, len(axes), columns))
    for i in range(len(image)):
        for part in parts:
            above, below = next(rows), next(rows)
            draw(above[0], image[i, 0])
            draw(below[0], image[i, 0])
            if region is not None:
                draw_outline(below[0], region[i])
            for k, name in enumerate(part, start=1):
                draw(above[k], outputs[name][i, 0])
                draw_difference(below[k], (image - outputs[name])[i, 0] / 2, LIMIT)
    difference_bar(figure, axes[columns + 1], LIMIT)
    return figure
