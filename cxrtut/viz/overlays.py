"""Heat maps over radiographs: evidence with its sign, what lies above a cut, boxes.

Colours are those that colour-blind readers tell apart: red against blue for a sign, amber for a box
and cyan for an outline. Where a map is near zero nothing is laid over the image, so that the
radiograph can be read under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cxrtut.viz.images import INK, RED_BLUE, draw, draw_boxes, draw_outline, grey, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OPACITY = 0.75  # of the strongest evidence
DIMMED = 0.45  # what is left of the light outside a cut


def draw_evidence(axis: Axes, evidence: Float[Tensor, "h w"], limit: float, size: int) -> None:
    """Evidence over an image of `size` pixels that is drawn already: red for, blue against.

    Each cell is laid over its pixels as it is, coarse as it may be; the nearer to 0, the more the
    radiograph shines through, and beyond `limit` nothing gets stronger.

    Raises:
        ValueError: a limit that is not positive.
    """
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number, got {limit}")
    values = evidence.detach().cpu().float().numpy()
    axis.imshow(
        values,
        cmap=RED_BLUE,
        vmin=-limit,
        vmax=limit,
        alpha=OPACITY * np.abs(values / limit).clip(0, 1),
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        interpolation="none",
    )


def evidence_rows(
    image: Float[Tensor, "N 1 H W"],
    evidence: Sequence[Float[Tensor, "N h w"]],
    names: Sequence[str],
    region: Bool[Tensor, "N H W"],
    titles: Sequence[str] = (),
) -> Figure:
    """A row of radiographs, the true region outlined, and below it a row for each set of maps.

    Each map is drawn on its own scale, up to its strongest value: maps of different classifiers,
    or of different layers, have no common unit.

    Args:
        image: N radiographs, one column each.
        evidence: sets of maps, of any resolution.
        names: of the sets, written left of their rows.
        region: what is outlined; nothing where it is empty.
        titles: above the radiographs.
    """
    n, size = len(image), image.shape[-1]
    figure, axes = grid(n * (1 + len(evidence)), n, height=1.06)
    for i in range(n):
        draw(axes[i], image[i, 0], titles[i] if titles else "")
        draw_outline(axes[i], region[i])
    for row, (maps, name) in enumerate(zip(evidence, names, strict=True), start=1):
        below = axes[row * n : (row + 1) * n]
        for i, axis in enumerate(below):
            draw(axis, image[i, 0])
            strongest = float(maps[i].abs().max())
            draw_evidence(axis, maps[i], strongest or 1.0, size)
            draw_outline(axis, region[i])
        below[0].text(
            -0.06, 0.5, name, transform=below[0].transAxes, rotation=90,
            color=INK, fontsize=8, ha="right", va="center",
        )  # fmt: skip
    return figure


def found_boxes(
    image: Float[Tensor, "N 1 H W"],
    heatmap: Float[Tensor, "N H W"],
    inside: Bool[Tensor, "N H W"],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    region: Bool[Tensor, "N H W"],
) -> Figure:
    """From heat to boxes in three rows: heat map, what is above the cut, and the boxes around that
    on the radiograph, with the true region outlined.
    """
    n, size = len(image), image.shape[-1]
    figure, axes = grid(3 * n, n, height=1.06)
    for i in range(n):
        draw(axes[i], image[i, 0], "heat" if i == 0 else "")
        draw_evidence(axes[i], heatmap[i], float(heatmap[i].max()) or 1.0, size)
        draw(axes[n + i], image[i, 0], "above the cut" if i == 0 else "")
        draw_evidence(axes[n + i], inside[i].float(), 1.0, size)
        draw(axes[2 * n + i], image[i, 0], "box and true region" if i == 0 else "")
        draw_boxes(axes[2 * n + i], boxes[i])
        draw_outline(axes[2 * n + i], region[i])
    return figure


def spotlights(
    image: Float[Tensor, "N 1 H W"],
    inside: Bool[Tensor, "N H W"],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    region: Bool[Tensor, "N H W"],
    enlarged: int = 3,
) -> UInt8[np.ndarray, "N h w"]:
    """Radiographs as grey pictures for `widgets.image_slider`: light where the heat is above the
    cut, dark elsewhere; boxes are white frames, and the true region has a dotted outline.

    Args:
        enlarged: pixels of the picture for one of the image, so that lines are thin beside it.

    Raises:
        ValueError: less than one pixel for a pixel.
    """
    if enlarged < 1:
        raise ValueError(f"enlarged: expected at least 1, got {enlarged}")
    light = inside[:, None].float() * (1 - DIMMED) + DIMMED
    dimmed = (image.clamp(-1, 1) + 1) * light - 1
    shown = grey(F.interpolate(dimmed, scale_factor=enlarged, mode="nearest")[:, 0])
    for picture, found, truth in zip(shown, boxes, region, strict=True):
        _dot_outline(picture, truth, enlarged)
        for x0, y0, x1, y1 in (found * enlarged).round().int().tolist():
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), 255, 1)
    return shown


def _dot_outline(picture: UInt8[np.ndarray, "h w"], mask: Tensor, enlarged: int) -> None:
    """White and black dots in turn along the outline of a mask, drawn into the picture."""
    pixels = mask.byte().repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1).cpu().numpy()
    for outline in cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
        x, y = outline[:, 0].T
        picture[y, x] = np.where(np.arange(len(x)) % 6 < 3, 255, 0)
