"""Disease masks over the anchor, alignment before and after, and what each method finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.viz.images import INK, draw, draw_boxes, draw_outline, grid
from cxrtut.viz.overlays import draw_evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = tuple[Float[Tensor, "N H W"], Sequence[Float[Tensor, "_ 4"]]]
"""Heat on N images, and the boxes of each."""


def masks_over(
    anchor: Float[Tensor, "1 H W"],
    masks: Float[Tensor, "K h w"],
    names: Sequence[str],
    columns: int = 4,
) -> Figure:
    """The anchor once for each class, its mask over it in red: the stronger, the redder.

    Args:
        anchor: in [-1, 1].
        masks: in [0, 1], of any resolution.
        names: of the classes.
    """
    figure, axes = grid(len(masks), columns, height=1.08)
    for axis, mask, name in zip(axes, masks, names, strict=True):
        draw(axis, anchor[0], name)
        draw_evidence(axis, mask, 1.0, anchor.shape[-1])
    return figure


def before_and_after(
    image: Float[Tensor, "N 1 H W"],
    aligned: Float[Tensor, "N 1 H W"],
    means: Sequence[Float[Tensor, "1 H W"]],
) -> Figure:
    """Images above, the same images aligned below; on the right the mean of many before and after,
    the sharper the more alike they lie. A dotted cross marks the centre of each.

    Args:
        image: N radiographs.
        aligned: the same.
        means: of many images before and after.
    """
    n, size = len(image), image.shape[-1]
    figure, axes = grid(2 * (n + 1), n + 1, height=1.1)
    rows = ("as it is", image, means[0]), ("aligned", aligned, means[1])
    for k, (name, shown, mean) in enumerate(rows):
        row = axes[k * (n + 1) : (k + 1) * (n + 1)]
        for axis, picture in zip(row, [*shown, mean], strict=True):
            draw(axis, picture[0])
            for line in (axis.axvline, axis.axhline):
                line((size - 1) / 2, color=INK, linewidth=0.7, linestyle=":")
        row[0].set_title(name, color=INK, fontsize=8)
        row[-1].set_title(f"mean, {name}", color=INK, fontsize=8)
    return figure


def localisations(
    image: Float[Tensor, "N 1 H W"],
    truth: Bool[Tensor, "N H W"],
    found: Mapping[str, Found],
    titles: Sequence[str],
) -> Figure:
    """Columns of images, a row for each method: its heat in red, its boxes in amber, the true boxes
    outlined in cyan (the paper's Fig. 6).

    Args:
        image: N radiographs.
        truth: inside a true box.
        found: name of the method -> its heat in [0, 1] and boxes.
        titles: above the columns.
    """
    n, size = len(image), image.shape[-1]
    figure, axes = grid(n * len(found), n, height=1.08)
    for row, (name, (heat, boxes)) in enumerate(found.items()):
        part = axes[row * n : (row + 1) * n]
        for i, axis in enumerate(part):
            draw(axis, image[i, 0], titles[i] if row == 0 else "")
            draw_evidence(axis, heat[i], 1.0, size)
            draw_outline(axis, truth[i])
            draw_boxes(axis, boxes[i])
        part[0].text(
            -0.06, 0.5, name, transform=part[0].transAxes, rotation=90, color=INK, fontsize=8,
            ha="right", va="center",
        )  # fmt: skip
    return figure
