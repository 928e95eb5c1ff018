"""Radiographs, differences, masks and boxes as figures that read on a light and on a dark page.

Every figure of the book is made by `panels`: 7.5 inches wide, at most four panels in a row, on a
transparent ground, with text that a telephone can still show.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

INK = "#767676"  # grey with a contrast of 4.5 on white and on black
BOX, OUTLINE = "#ffb000", "#00b4d8"  # amber and cyan: told apart by colour-blind readers too
BOX_ON_HEAT = "#ffffff"  # amber is a colour of heat
CASING = "#101010"  # under what is coloured, so that it shows on any grey
RED_BLUE = "RdBu_r"
WIDTH, DPI, MOST_COLUMNS = 7.5, 200, 4  # inches, dots an inch
TEXT = 12  # points: 8 pixels where the figure is 360 pixels wide
LINE = 1.2  # points
ROW_OF_LETTERS = TEXT * 1.3 / 72  # inches


def grey(image: Float[Tensor, "... H W"]) -> UInt8[np.ndarray, "... H W"]:
    """[-1, 1] to the grey levels 0..255 of a screen."""
    return ((image.detach().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def panels(
    rows: int, columns: int, height: float, width_ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of rows times columns axes, `height` inches high.

    Raises:
        ValueError: more columns than a reader with a telephone can tell apart.
    """
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    _check(columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, height),
        dpi=DPI,
        width_ratios=width_ratios,
        squeeze=False,
        layout=ConstrainedLayoutEngine(h_pad=0.06),
        facecolor="none",
    )
    return figure, list(axes.flat)


def _check(columns: int) -> None:
    if not 1 <= columns <= MOST_COLUMNS:
        raise ValueError(f"columns: expected 1 to {MOST_COLUMNS}, got {columns}")


def grid(
    n: int, columns: int, titles: Sequence[str] = (), *, below: float = 0.0, left: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure of n empty square panels in rows of `columns`.

    Args:
        n: panels.
        columns: in a row, at most four.
        titles: above each panel, wrapped to its width; none at all if empty.
        below: inches for what comes below the panels.
        left: inches for what stands left of them.

    Raises:
        ValueError: titles that are not as many as the panels, or too many columns.
    """
    _check(columns)
    if titles and len(titles) != n:
        raise ValueError(f"titles: expected {n}, one for each panel, got {len(titles)}")
    told = [wrapped(title, columns) for title in titles] or [""] * n
    lines = [
        max(title.count("\n") + 1 if title else 0 for title in told[i : i + columns])
        for i in range(0, n, columns)
    ]
    side = (WIDTH - left) / columns
    height = len(lines) * side + sum(lines) * ROW_OF_LETTERS + below
    figure, axes = panels(len(lines), columns, height)
    for axis in axes:
        axis.set_axis_off()
    for axis, title in zip(axes, told, strict=False):
        axis.set_title(title, color=INK, fontsize=TEXT, pad=3)
    return figure, axes[:n]


def wrapped(text: str, columns: int) -> str:
    """A title in lines that fit over one of `columns` panels; its own line breaks stay."""
    letters = 69 // columns
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


NAME = 16  # letters of a line of a row's name


def name_space(names: Sequence[str]) -> float:
    """Inches that the names of rows take at the left of a figure."""
    lines = max((len(textwrap.wrap(name, NAME)) for name in names), default=0)
    return lines * ROW_OF_LETTERS + 0.05


def name_row(axis: Axes, name: str) -> None:
    """The name of a row, upright at the left of its first panel."""
    axis.text(
        -0.05, 0.5, textwrap.fill(name, NAME), transform=axis.transAxes, rotation=90, color=INK,
        fontsize=TEXT, ha="right", va="center", multialignment="center",
    )  # fmt: skip


BAR = 0.8  # inches of a bar of colours with its numbers and its label


def colour_bar(
    figure: Figure,
    shown: Any,
    label: str,
    ticks: Sequence[float],
    names: Sequence[str] = (),
    ground: str = "none",
) -> None:
    """One bar of colours below all panels of a figure.

    Args:
        figure: made by `grid` with `below=BAR`.
        shown: what was drawn in the colours, the picture of any panel.
        label: the quantity and its unit.
        ticks: values that have a number.
        names: what stands at the ticks instead of their numbers.
        ground: what shines through colours that are transparent.
    """
    bar = figure.colorbar(
        shown, ax=figure.axes, location="bottom", ticks=list(ticks), fraction=0.05, pad=0.02,
        shrink=0.6, aspect=28,
    )  # fmt: skip
    bar.ax.set_facecolor(ground)
    bar.ax.set_xticks(list(ticks), names or [f"{tick:g}".replace("-", "−") for tick in ticks])
    bar.ax.tick_params(color=INK, labelcolor=INK, labelsize=TEXT)
    bar.set_label(label, color=INK, fontsize=TEXT)
    bar.outline.set_edgecolor(INK)


def cased(width: float = LINE) -> list[AbstractPathEffect]:
    """A dark line under a coloured one of this width, or around letters, twice as wide."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=2 * width, foreground=CASING), Normal()]


def draw(axis: Axes, image: Float[Tensor, "H W"], light: float = 1.0) -> None:
    """A radiograph, of which only a share of the light is left where colours come over it."""
    axis.imshow(grey(image), cmap="gray", vmin=0, vmax=255 / light, interpolation="none")


def draw_boxes(
    axis: Axes, boxes: Float[Tensor, "N 4"], labels: Sequence[str] = (), colour: str = BOX
) -> None:
    """Boxes (xyxy pixels; edges between pixels) over an image, labels inside their upper edge."""
    from matplotlib.patches import Rectangle

    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        corner = (x0 - 0.5, y0 - 0.5)
        frame = Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=LINE)
        frame.set(path_effects=cased(), joinstyle="miter")
        axis.add_patch(frame)
        if labels:
            width = max(axis.get_xlim())
            left = (x0 + x1) / 2 < width / 2
            axis.text(
                x0 if left else x1 - 1, y0, labels[i], color=colour, fontsize=TEXT, va="top",
                ha="left" if left else "right", path_effects=cased(1.2),
            )  # fmt: skip


def draw_outline(axis: Axes, mask: Bool[Tensor, "H W"]) -> None:
    """The outline of a mask over an image, closed where the mask reaches the border."""
    if bool(mask.any()):
        framed = np.pad(mask.float().cpu().numpy(), 1)
        y, x = (np.arange(n) - 1 for n in framed.shape)
        limits = axis.axis()
        line = axis.contour(x, y, framed, levels=[0.5], colors=OUTLINE, linewidths=LINE)
        line.set_path_effects(cased())
        axis.axis(limits)


def draw_difference(axis: Axes, difference: Float[Tensor, "H W"], limit: float) -> None:
    """A signed difference: red where the image is brighter, blue where it is darker, white at 0."""
    shown = difference.detach().cpu().numpy()
    axis.imshow(shown, cmap=RED_BLUE, vmin=-limit, vmax=limit, interpolation="none")
    frame(axis)


def frame(axis: Axes) -> None:
    """A thin frame around a panel that is white, or empty, at its border."""
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[], facecolor="none")
    for spine in axis.spines.values():
        spine.set(color=INK, linewidth=0.6)


def difference_bar(figure: Figure, axis: Axes, limit: float) -> None:
    """The bar of a figure of signed differences, one of which is in `axis`."""
    ticks = (-limit, -limit / 2, 0.0, limit / 2, limit)
    label = "difference, share of the grey range"
    colour_bar(figure, axis.images[-1], label, ticks)


def gallery(
    images: Float[Tensor, "N 1 H W"], titles: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Radiographs side by side."""
    figure, axes = grid(len(images), columns, titles)
    for axis, image in zip(axes, images, strict=True):
        draw(axis, image[0])
    return figure


def twins(
    image: Float[Tensor, "N 1 H W"],
    healthy: Float[Tensor, "N 1 H W"],
    region: Bool[Tensor, "N H W"],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    names: Sequence[str],
) -> Figure:
    """One row for each pair: healthy twin, image, signed difference, image with region and
    boxes.
    """
    limit = 0.15
    titles = [t for name in names for t in ("healthy twin", name, "difference", "region and box")]
    figure, axes = grid(4 * len(image), 4, titles, below=BAR)
    for i in range(len(image)):
        row = axes[4 * i : 4 * i + 4]
        draw(row[0], healthy[i, 0])
        draw(row[1], image[i, 0])
        draw_difference(row[2], (image - healthy)[i, 0] / 2, limit)
        draw(row[3], image[i, 0])
        draw_outline(row[3], region[i])
        draw_boxes(row[3], boxes[i])
    difference_bar(figure, axes[2], limit)
    return figure


def planes(
    values: Sequence[Float[Tensor, "H W"]], titles: Sequence[str], columns: int = 4
) -> Figure:
    """Maps of any quantity, each on its own grey scale from its smallest to its largest value,
    which stand below its title.
    """
    ends = [(float(value.min()), float(value.max())) for value in values]
    told = [
        f"{title}\n{low:.2g} to {high:.2g}".replace("\n-", "\n−")
        for title, (low, high) in zip(titles, ends, strict=True)
    ]
    figure, axes = grid(len(values), columns, told, below=BAR)
    for axis, value, (low, high) in zip(axes, values, ends, strict=True):
        share = (value - low) / ((high - low) or 1.0)
        axis.imshow(share.detach().cpu().numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none")
    names = ("smallest value", "largest value")
    colour_bar(figure, axes[0].images[0], "each map on its own scale", (0, 1), names)
    return figure


def named_points(
    image: Float[Tensor, "H W"], points: Float[Tensor, "N 2"], names: Sequence[str]
) -> Figure:
    """A radiograph with numbered points and the key beside it."""
    figure, (axis, key) = panels(1, 2, 4.7, width_ratios=(1.6, 1))
    draw(axis, image)
    for axis_ in (axis, key):
        axis_.set_axis_off()
    for i, ((x, y), name) in enumerate(zip(points.tolist(), names, strict=True)):
        axis.plot(x, y, "o", color=BOX, markersize=6, markeredgecolor=CASING)
        axis.annotate(
            str(i + 1), (x, y), xytext=(5, 4), textcoords="offset points", color=BOX,
            fontsize=TEXT + 3, weight="bold", path_effects=cased(1.5),
        )  # fmt: skip
        place = 1 - (i + 0.5) / max(len(names), 9)
        key.text(0, place, f"{i + 1}  {name}", color=INK, fontsize=TEXT + 2, va="center")
    return figure
