"""Functions and clouds of points in the plane: what a critic of points thinks of every place.

Real points are white, generated ones vermilion; score maps run from dark blue (low) to yellow
(high) and differ in lightness, so that they read without colour vision too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from cxrtut.viz.images import INK, RED_BLUE, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, FAKE = "#ffffff", "#d55e00"
LEVELS = 12  # of a map of scores


def score_maps(
    surfaces: Sequence[Float[Tensor, "n n"]],
    real: Float[Tensor, "m 2"],
    fakes: Sequence[Float[Tensor, "k 2"]],
    titles: Sequence[str],
    *,
    limit: float,
    columns: int = 4,
) -> Figure:
    """A critic's scores over [-limit, limit]² as filled contours, real and generated points over
    them; one panel for each of several moments or critics.

    Each panel has its own scale of colours; the title says by how much the scores differ.

    Args:
        surfaces: scores; the first row is the lowest y.
        real: points in every panel.
        fakes: points of each panel.
        titles: of each panel.
        limit: half the side of the square.
        columns: panels in a row.
    """
    figure, axes = grid(len(surfaces), columns, height=1.22)
    for axis, scores, fake, title in zip(axes, surfaces, fakes, titles, strict=True):
        height = scores.detach().cpu().numpy()
        ends = (-limit, limit)
        line = np.linspace(-limit, limit, len(height))
        axis.contourf(line, line, height, levels=LEVELS, cmap="cividis")
        dots(axis, real, REAL)
        dots(axis, fake, FAKE)
        axis.set(xlim=ends, ylim=ends, aspect="equal")
        apart = np.ptp(height)
        told = f"{title}\nscores {apart:.{0 if apart >= 10 else 1}f} apart"
        axis.set_title(told, color=INK, fontsize=8)
    return figure


def slope_maps(
    slopes: Sequence[Float[Tensor, "n n"]], titles: Sequence[str], *, limit: float
) -> Figure:
    """Norms of a gradient over [-limit, limit]²: white where it is 1, red where steeper, blue where
    flatter, on a logarithmic scale from 1/32 to 32 (steeper and flatter look the same as the ends).

    Args:
        slopes: >= 0; the first row is the lowest y.
        titles: of each panel.
        limit: half the side of the square.
    """
    figure, axes = grid(len(slopes), len(slopes), height=0.95)
    for axis, slope, title in zip(axes, slopes, titles, strict=True):
        doublings = np.log2(np.maximum(slope.detach().cpu().numpy(), 1e-9))
        rim = limit + limit / max(len(doublings) - 1, 1)  # the outermost lie on the border
        shown = axis.imshow(
            doublings, cmap=RED_BLUE, vmin=-5, vmax=5, origin="lower", extent=(-rim, rim) * 2
        )
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
        median = float(slope.median())
        told = f"{title}\nmedian {median:.{0 if median >= 10 else 1}f}"
        axis.set_title(told, color=INK, fontsize=8)
    ticks = [-5, -3, -1, 0, 1, 3, 5]
    bar = figure.colorbar(shown, ax=axes, ticks=ticks, shrink=0.8)
    bar.ax.set_yticklabels(["1/32", "1/8", "1/2", "1", "2", "8", "32"], color=INK, fontsize=8)
    bar.ax.tick_params(color=INK)
    bar.outline.set_edgecolor(INK)
    return figure


def clouds(
    real: Float[Tensor, "m 2"],
    fakes: Sequence[Float[Tensor, "k 2"]],
    titles: Sequence[str],
    *,
    limit: float,
    columns: int = 4,
) -> Figure:
    """Generated points over real ones (grey), without a critic; what lies outside is left out."""
    figure, axes = grid(len(fakes), columns, height=1.14)
    for axis, fake, title in zip(axes, fakes, titles, strict=True):
        dots(axis, real, INK)
        dots(axis, fake, FAKE)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axis.set_title(title, color=INK, fontsize=8)
    return figure


def dots(axis: Axes, points: Float[Tensor, "m 2"], colour: str) -> None:
    """Small discs with a thin dark rim, which is what tells them from a map as bright as they."""
    x, y = points.detach().cpu().numpy().T
    axis.scatter(x, y, s=5, color=colour, edgecolor="#202020", linewidth=0.25)


def picture(
    scores: Float[Tensor, "n n"],
    real: Float[Tensor, "m 2"],
    fake: Float[Tensor, "k 2"],
    *,
    limit: float,
    size: int = 240,
) -> UInt8[np.ndarray, "size size"]:
    """Scores in grey steps with real (white) and generated (black) points, for a slider.

    Args:
        scores: the first row is the lowest y; the picture's first row is the highest.
        real: points, discs in white.
        fake: points, discs in black.
        limit: half the side of the square that the scores cover.
        size: pixels of a side.
    """
    import cv2

    height = scores.detach().cpu().numpy()[::-1].astype(np.float32)
    # The outermost scores lie on the border: pixel centres are places between them
    place = ((np.arange(size) + 0.5) / size * (len(height) - 1)).astype(np.float32)
    x, y = np.meshgrid(place, place)
    height = np.asarray(cv2.remap(height, x, y, cv2.INTER_LINEAR), np.float32)
    share = (height - height.min()) / max(float(np.ptp(height)), 1e-9)
    steps = np.floor(share * LEVELS).clip(0, LEVELS - 1) / (LEVELS - 1)
    shown = (70 + 100 * steps).astype(np.uint8)
    for points, grey in ((real, 255), (fake, 0)):
        for x, y in points.tolist():
            column, row = (x / limit + 1) * size / 2, (1 - y / limit) * size / 2
            cv2.circle(shown, _sixteenths(column, row), 16 * 2, grey, -1, cv2.LINE_AA, shift=4)
    return shown


def _sixteenths(column: float, row: float) -> tuple[int, int]:
    """A place between pixels, as OpenCV takes it with shift=4."""
    return round(16 * column), round(16 * row)
