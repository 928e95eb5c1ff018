"""Images on their way to another domain: a border to wipe over them, the change at any strength,
and curves of what a judge says and of how many pixels were changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cxrtut.viz.curves import COLOURS, STYLES, legend_below, legend_height, plain
from cxrtut.viz.images import INK, TEXT, grey, panels
from cxrtut.viz.widgets import montage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Frames = list[UInt8[np.ndarray, "h w"]]
ENLARGED = 3  # pixels of a frame for one of the image


def strength_frames(
    image: Float[Tensor, "N 1 H W"],
    change: Float[Tensor, "N 1 H W"],
    shares: Sequence[float],
    columns: int = 2,
) -> Frames:
    """The frames of a slider: the images with each share of their change added, x + sL, clipped to
    the range of images.

    Args:
        image: N radiographs.
        change: what is added to each, such as the lesion map.
        shares: s of each frame.
        columns: radiographs in a row of a frame.
    """
    return [montage(_enlarged(image + share * change), columns) for share in shares]


def wipe_frames(
    image: Float[Tensor, "N 1 H W"],
    translated: Float[Tensor, "N 1 H W"],
    shares: Sequence[float],
    columns: int = 2,
) -> Frames:
    """The frames of a slider: left of a border the translated images, right of it the images as
    they were.

    Args:
        image: N radiographs.
        translated: the same in the other domain.
        shares: of the width that lies left of the border, in [0, 1], of each frame.
        columns: radiographs in a row of a frame.

    Raises:
        ValueError: a share outside [0, 1].
    """
    before, after = _enlarged(image), _enlarged(translated)
    frames = []
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(f"shares: expected numbers in [0, 1], got {share}")
        border = round(share * before.shape[-1])
        wiped = before.copy()
        wiped[..., :border] = after[..., :border]
        if 0 < share < 1:  # white between black, so that it shows on any grey
            for column, value in ((border - 1, 0), (border, 255), (border + 1, 0)):
                wiped[..., column : column + 1] = value  # nothing outside the image
        frames.append(montage(wiped, columns))
    return frames


def _enlarged(image: Tensor) -> UInt8[np.ndarray, "N h w"]:
    return grey(F.interpolate(image, scale_factor=ENLARGED, mode="nearest")[:, 0])


def flip_rates(shares: Sequence[float], rates: Mapping[str, Sequence[float]]) -> Figure:
    """Of abnormal images, how many a judge calls healthy once a share of the change is added.

    Args:
        shares: s of x + sL.
        rates: method -> the share of images at each s, in [0, 1].
    """
    figure, (axis,) = panels(1, 1, 4.0 + legend_height(len(rates)))
    axis.axvline(1.0, color=INK, linewidth=1.0)
    _lines(axis, shares, rates)
    axis.set_xlabel("s, share of the change that is added", color=INK, fontsize=TEXT)
    axis.set_ylabel("called healthy, share", color=INK, fontsize=TEXT)
    legend_below(figure, axis)
    return figure


def change_rates(
    tolerances: Sequence[int], rates: Mapping[str, Mapping[str, Sequence[float]]]
) -> Figure:
    """How many pixels were changed by more than a tolerance; one plot for each kind of images.

    Args:
        tolerances: in grey levels of 255.
        rates: kind of images -> method -> the share of pixels at each tolerance, in [0, 1].
    """
    most = max(len(of) for of in rates.values())
    figure, axes = panels(1, len(rates), 3.6 + legend_height(most))
    for axis, (kind, of) in zip(axes, rates.items(), strict=True):
        _lines(axis, tolerances, of)
        axis.set_xticks(list(tolerances))
        axis.set_title(kind, color=INK, fontsize=TEXT)
        axis.set_xlabel("by more than ... grey levels", color=INK, fontsize=TEXT)
    axes[0].set_ylabel("pixels changed, share", color=INK, fontsize=TEXT)
    legend_below(figure, axes[0])
    return figure


def _lines(axis: Axes, x: Sequence[float], rates: Mapping[str, Sequence[float]]) -> None:
    for i, (name, values) in enumerate(rates.items()):
        axis.plot(
            x, values, STYLES[i % 4], label=name, color=COLOURS[i % len(COLOURS)], linewidth=1.8,
            marker="o", markersize=4,
        )  # fmt: skip
    axis.set_ylim(-0.03, 1.03)
    plain(axis)
