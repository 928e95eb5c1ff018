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

from cxrtut.viz.images import (
    BAR,
    CASING,
    INK,
    RED_BLUE,
    ROW_OF_LETTERS,
    colour_bar,
    frame,
    grid,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL, FAKE = "#ffffff", "#d55e00"
LEVELS = 12  # of a map of scores
DARKEST = 90  # grey level of the lowest score of a picture, on which black shows
STEEPEST = 9  # doublings: slopes from 1/512 to 512 have colours of their own


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
        columns: panels in a row, at most four.
    """
    heights = [scores.detach().cpu().numpy() for scores in surfaces]
    apart = [float(np.ptp(height)) for height in heights]
    told = [
        f"{title}\nscores {span:.{0 if span >= 10 else 1}f} apart"
        for title, span in zip(titles, apart, strict=True)
    ]
    figure, axes = grid(len(surfaces), columns, told, below=BAR + ROW_OF_LETTERS)
    for axis, height, span, fake in zip(axes, heights, apart, fakes, strict=True):
        line = np.linspace(-limit, limit, len(height))
        share = (height - height.min()) / (span or 1.0)
        shown = axis.contourf(line, line, share, np.linspace(0, 1, LEVELS + 1), cmap="cividis")
        dots(axis, real, REAL)
        dots(axis, fake, FAKE)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    label = "score, each map on its own scale"
    colour_bar(figure, shown, label, (0, 1), ("lowest:\ngenerated", "highest:\nreal"))
    return figure


def slope_maps(
    slopes: Sequence[Float[Tensor, "n n"]], titles: Sequence[str], *, limit: float
) -> Figure:
    """Norms of a gradient over [-limit, limit]²: white where it is 1, red where steeper, blue where
    flatter, on a logarithmic scale from 1/512 to 512 (what lies beyond looks the same as the ends).

    Args:
        slopes: >= 0; the first row is the lowest y.
        titles: of each panel.
        limit: half the side of the square.
    """
    medians = [float(slope.median()) for slope in slopes]
    told = [
        f"{title}\nmedian {median:.{0 if median >= 10 else 1}f}"
        for title, median in zip(titles, medians, strict=True)
    ]
    figure, axes = grid(len(slopes), len(slopes), told, below=BAR)
    for axis, slope in zip(axes, slopes, strict=True):
        doublings = np.log2(np.maximum(slope.detach().cpu().numpy(), 1e-9))
        rim = limit + limit / max(len(doublings) - 1, 1)  # the outermost lie on the border
        shown = axis.imshow(
            doublings, cmap=RED_BLUE, vmin=-STEEPEST, vmax=STEEPEST, origin="lower",
            extent=(-rim, rim) * 2,
        )  # fmt: skip
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
    ticks = range(-STEEPEST, STEEPEST + 1, 3)
    names = [str(2**t) if t >= 0 else f"1/{2**-t}" for t in ticks]
    colour_bar(figure, shown, "slope: norm of the gradient of the score", ticks, names)
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
    figure, axes = grid(len(fakes), columns, titles)
    for axis, fake in zip(axes, fakes, strict=True):
        dots(axis, real, INK)
        dots(axis, fake, FAKE)
        frame(axis)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return figure


def dots(axis: Axes, points: Float[Tensor, "m 2"], colour: str) -> None:
    """Small discs over larger dark ones, whose rim tells them from a map as bright as they."""
    x, y = points.detach().cpu().numpy().T
    for size, shade in ((16, CASING), (6, colour)):
        axis.scatter(x, y, s=size, color=shade, linewidth=0)


def picture(
    scores: Float[Tensor, "n n"],
    real: Float[Tensor, "m 2"],
    fake: Float[Tensor, "k 2"],
    *,
    limit: float,
    size: int = 240,
) -> UInt8[np.ndarray, "size size"]:
    """Scores in grey steps with real (white, a dark rim around) and generated (black) points, for a
    slider.

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
    shown = (DARKEST + (170 - DARKEST) * steps).astype(np.uint8)
    for points, grey, radius in ((real, 0, 3), (real, 255, 2), (fake, 0, 2)):
        for x, y in points.tolist():
            column, row = (x / limit + 1) * size / 2, (1 - y / limit) * size / 2
            cv2.circle(shown, _sixteenths(column, row), 16 * radius, grey, -1, cv2.LINE_AA, shift=4)
    return shown


def _sixteenths(column: float, row: float) -> tuple[int, int]:
    """A place between pixels, as OpenCV takes it with shift=4."""
    return round(16 * column), round(16 * row)
