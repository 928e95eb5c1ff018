"""Rows of radiographs with boxes: what was made around them, and what a detector says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from cxrtut.viz.images import draw, draw_boxes, grid, name_row, name_space

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def boxed_rows(
    rows: Mapping[str, Float[Tensor, "N 1 H W"]],
    boxes: Mapping[str, Sequence[Float[Tensor, "_ 4"]]],
    titles: Sequence[str] = (),
) -> Figure:
    """A row of radiographs for each name, with its boxes.

    Args:
        rows: by name, N images each, at most four.
        boxes: of the images of some rows, xyxy in pixels.
        titles: above the columns.
    """
    names = list(rows)
    n = len(rows[names[0]])
    told = [*titles, *[""] * (n * (len(names) - 1))] if titles else []
    figure, axes = grid(n * len(names), n, told, left=name_space(names))
    for k, name in enumerate(names):
        row = axes[k * n : (k + 1) * n]
        name_row(row[0], name)
        for i, axis in enumerate(row):
            draw(axis, rows[name][i, 0])
            if name in boxes:
                draw_boxes(axis, boxes[name][i])
    return figure
