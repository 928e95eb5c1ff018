"""Disease masks over the anchor, alignment before and after, and what each method finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.viz.images import (
    BAR,
    BOX_ON_HEAT,
    OUTLINE,
    cased,
    draw,
    draw_boxes,
    draw_outline,
    grid,
    name_row,
    name_space,
)
from cxrtut.viz.overlays import DIMMED, draw_heat, heat_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = tuple[Float[Tensor, "N H W"], Sequence[Float[Tensor, "_ 4"]]]
"""Heat on N images, and the boxes of each."""


def masks_over(
    anchor: Float[Tensor, "1 H W"],
    masks: Mapping[str, Float[Tensor, "K h w"]],
    names: Sequence[str],
    label: str = "mask, from 0 to 1",
) -> Figure:
    """Columns of classes, a row for each set of masks: the anchor, and over it the mask of the
    class, the stronger, the brighter. More than four classes go on below, in the same order.

    Args:
        anchor: in [-1, 1].
        masks: name of the set -> its masks in [0, 1], of any resolution.
        names: of the classes.
        label: of the bar of colours.

    Raises:
        ValueError: a set that has not one mask for each class.
    """
    for of, found in masks.items():
        if len(found) != len(names):
            raise ValueError(f"{of}: expected {len(names)} masks, got {len(found)}")
    figure, rows = _rows_below(list(masks), names)
    for of, row, block in rows:
        for axis, k in zip(row, block, strict=True):
            draw(axis, anchor[0], DIMMED)
            draw_heat(axis, masks[of][k], 1.0, anchor.shape[-1])
    heat_bar(figure, figure.axes[0], label)
    return figure


def before_and_after(
    image: Float[Tensor, "N 1 H W"],
    aligned: Float[Tensor, "N 1 H W"],
    means: Sequence[Float[Tensor, "1 H W"]],
) -> Figure:
    """Each image beside the same image aligned, two such pairs in a row; the last pair is the mean
    of many before and after, the sharper the more alike they lie. A dashed cross marks the
    centre of each.

    Args:
        image: N radiographs.
        aligned: the same.
        means: of many images before and after.
    """
    pairs = [*zip(image, aligned, strict=True), tuple(means)]
    of = [str(i + 1) for i in range(len(image))] + ["mean"]
    titles = [f"{name}: {state}" for name in of for state in ("as it is", "aligned")]
    figure, axes = grid(2 * len(pairs), 4 if len(pairs) > 1 else 2, titles)
    middle = (image.shape[-1] - 1) / 2
    for axis, shown in zip(axes, [one for pair in pairs for one in pair], strict=True):
        draw(axis, shown[0])
        for line in (axis.axvline, axis.axhline):
            line(middle, color=OUTLINE, linewidth=1, dashes=(3, 4), path_effects=cased(1))
    return figure


def localisations(
    image: Float[Tensor, "N 1 H W"],
    truth: Bool[Tensor, "N H W"],
    found: Mapping[str, Found],
    titles: Sequence[str],
) -> Figure:
    """Columns of images, a row for each method: its heat, its boxes in white, the true boxes
    outlined in cyan (the paper's Fig. 6). More than four images go on below, in the same order.

    Args:
        image: N radiographs.
        truth: inside a true box.
        found: name of the method -> its heat in [0, 1] and boxes.
        titles: above the columns.
    """
    size = image.shape[-1]
    figure, rows = _rows_below(list(found), titles)
    for name, row, block in rows:
        heat, boxes = found[name]
        for axis, i in zip(row, block, strict=True):
            draw(axis, image[i, 0], DIMMED)
            draw_heat(axis, heat[i], 1.0, size)
            draw_outline(axis, truth[i])
            draw_boxes(axis, boxes[i], colour=BOX_ON_HEAT)
    heat_bar(figure, figure.axes[0], "heat, share of the strongest in the image")
    return figure


def _rows_below(
    names: Sequence[str], titles: Sequence[str]
) -> tuple[Figure, list[tuple[str, list[Axes], range]]]:
    """A figure with a column for each title and a row for each name, at most four columns: the
    other columns go on below, with a row for each name again.

    Returns:
        The figure; and of each row its name, its panels, and which columns they are.
    """
    n, columns = len(titles), min(len(titles), 4)
    blocks = [range(first, min(first + columns, n)) for first in range(0, n, columns)]
    told = []
    for block in blocks:
        told += [titles[i] for i in block]
        told += [""] * (columns * len(names) - len(block))
    figure, axes = grid(len(told), columns, told, below=BAR, left=name_space(names))
    panels = iter(axes[k : k + columns] for k in range(0, len(axes), columns))
    rows = [(name, next(panels)[: len(block)], block) for block in blocks for name in names]
    for name, row, _ in rows:
        name_row(row[0], name)
    return figure, rows
