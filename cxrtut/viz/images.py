"""Radiographs, differences, masks and boxes as figures that read on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#808080"  # grey that can be read on white and on black
BOX, OUTLINE = "#ffb000", "#00b4d8"  # amber and cyan: told apart by colour-blind readers too
RED_BLUE = "RdBu_r"


def grey(image: Float[Tensor, "... H W"]) -> UInt8[np.ndarray, "... H W"]:
    """[-1, 1] to the grey levels 0..255 of a screen."""
    return ((image.detach().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def grid(n: int, columns: int, *, height: float = 1.0) -> tuple[Figure, list[Axes]]:
    """A figure of n empty square axes in rows of `columns`, about 7.5 inches wide."""
    import matplotlib.pyplot as plt

    rows = -(-n // columns)
    side = 7.5 / columns
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(7.5, rows * side * height),
        squeeze=False,
        layout="constrained",
        facecolor="none",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat[:n])


def draw(axis: Axes, image: Float[Tensor, "H W"], title: str = "") -> None:
    """A radiograph with its title."""
    axis.imshow(grey(image), cmap="gray", vmin=0, vmax=255, interpolation="none")
    if title:
        axis.set_title(title, color=INK, fontsize=8)


def draw_boxes(axis: Axes, boxes: Float[Tensor, "N 4"], labels: Sequence[str] = ()) -> None:
    """Boxes (xyxy pixels; edges between pixels) over an image."""
    from matplotlib.patches import Rectangle

    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        corner = (x0 - 0.5, y0 - 0.5)
        axis.add_patch(
            Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor=BOX, linewidth=1.2)
        )
        if labels:
            axis.text(x0, y0 - 2, labels[i], color=BOX, fontsize=6, va="bottom")


def draw_outline(axis: Axes, mask: Bool[Tensor, "H W"]) -> None:
    """The outline of a mask over an image, closed where the mask reaches the border."""
    if bool(mask.any()):
        framed = np.pad(mask.float().cpu().numpy(), 1)
        y, x = (np.arange(n) - 1 for n in framed.shape)
        axis.contour(x, y, framed, levels=[0.5], colors=OUTLINE, linewidths=0.9)


def draw_difference(
    axis: Axes, difference: Float[Tensor, "H W"], limit: float, title: str = ""
) -> None:
    """A signed difference: red where the image is brighter, blue where it is darker, white at 0."""
    shown = difference.detach().cpu().numpy()
    axis.imshow(shown, cmap=RED_BLUE, vmin=-limit, vmax=limit, interpolation="none")
    if title:
        axis.set_title(title, color=INK, fontsize=8)


def gallery(
    images: Float[Tensor, "N 1 H W"], titles: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Radiographs side by side."""
    figure, axes = grid(len(images), columns, height=1.08 if titles else 1.0)
    for i, axis in enumerate(axes):
        draw(axis, images[i, 0], titles[i] if titles else "")
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
    figure, axes = grid(4 * len(image), 4, height=1.06)
    for i, name in enumerate(names):
        row = axes[4 * i : 4 * i + 4]
        draw(row[0], healthy[i, 0], "healthy twin")
        draw(row[1], image[i, 0], name)
        draw_difference(row[2], (image - healthy)[i, 0] / 2, 0.15, "difference")
        draw(row[3], image[i, 0], "region and box")
        draw_outline(row[3], region[i])
        draw_boxes(row[3], boxes[i])
    return figure


def planes(
    values: Sequence[Float[Tensor, "H W"]], titles: Sequence[str], columns: int = 4
) -> Figure:
    """Maps of any quantity, each on its own grey scale from its smallest to its largest value."""
    figure, axes = grid(len(values), columns, height=1.08)
    for axis, value, title in zip(axes, values, titles, strict=True):
        axis.imshow(value.detach().cpu().numpy(), cmap="gray", interpolation="none")
        axis.set_title(title, color=INK, fontsize=8)
    return figure


def named_points(
    image: Float[Tensor, "H W"], points: Float[Tensor, "N 2"], names: Sequence[str]
) -> Figure:
    """A radiograph with numbered points and the key beside it."""
    import matplotlib.pyplot as plt
    from matplotlib.patheffects import withStroke

    figure, (axis, key) = plt.subplots(
        1, 2, figsize=(7.5, 4.4), width_ratios=(1.5, 1), layout="constrained", facecolor="none"
    )
    draw(axis, image)
    for axis_ in (axis, key):
        axis_.set_axis_off()
    for i, ((x, y), name) in enumerate(zip(points.tolist(), names, strict=True)):
        axis.plot(x, y, "o", color=BOX, markersize=6, markeredgecolor="black")
        axis.annotate(
            str(i + 1),
            (x, y),
            xytext=(4, 4),
            textcoords="offset points",
            color=BOX,
            fontsize=11,
            weight="bold",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )
        key.text(0, 0.95 - 0.1 * i, f"{i + 1}  {name}", color=INK, fontsize=10, va="top")
    return figure
