"""Heat maps over radiographs: evidence with its sign, what lies above a cut, boxes.

Heat is laid over a dimmed radiograph in colours that are brighter than all its greys, and the
brighter the hotter: brown, gold, pale yellow; evidence against a class runs the same way from dark
to pale blue. So readers who are colour-blind can order them too. Where a map is near
zero nothing is laid over the image, so that the radiograph can be read under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cxrtut.viz.images import (
    BAR,
    ROW_OF_LETTERS,
    colour_bar,
    draw,
    draw_boxes,
    draw_outline,
    grey,
    grid,
    name_row,
    name_space,
)
from cxrtut.viz.widgets import montage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

OPACITY = 0.9  # of the strongest heat
DIMMED = 0.45  # what is left of a radiograph's light under heat, and outside a cut
COLD = ("#2a6fdb", "#5aa9ff", "#aaddff")  # evidence against, weak to strong


def heat_colours() -> ListedColormap:
    """256 colours for 0 to 1: the hotter, the brighter and the less transparent."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    heat = np.linspace(0, 1, 256)
    colours = colormaps["inferno"](0.65 + 0.35 * heat)  # all brighter than a dimmed radiograph
    colours[:, 3] = OPACITY * heat
    return ListedColormap(colours, "heat")


def evidence_colours() -> ListedColormap:
    """511 colours for -1 to 1: blue against, transparent at 0, and the colours of heat for."""
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    for_ = np.asarray(heat_colours().colors)
    against = LinearSegmentedColormap.from_list("cold", COLD)(np.linspace(0, 1, 256))
    against[:, 3] = for_[:, 3]
    return ListedColormap(np.concatenate([against[:0:-1], for_]), "evidence")


def draw_evidence(axis: Axes, evidence: Float[Tensor, "h w"], limit: float, size: int) -> None:
    """Evidence over an image of `size` pixels that is drawn already: yellow for, blue against.

    Each cell is laid over its pixels as it is, coarse as it may be; the nearer to 0, the more the
    radiograph shines through, and beyond `limit` nothing gets stronger.

    Raises:
        ValueError: a limit that is not positive.
    """
    _lay_over(axis, evidence, limit, size, -1.0, evidence_colours())


def draw_heat(axis: Axes, heat: Float[Tensor, "h w"], limit: float, size: int) -> None:
    """Heat, which has no sign, as `draw_evidence` draws evidence; below 0 it is as none.

    Raises:
        ValueError: a limit that is not positive.
    """
    _lay_over(axis, heat, limit, size, 0.0, heat_colours())


def _lay_over(
    axis: Axes, values: Tensor, limit: float, size: int, lowest: float, colours: ListedColormap
) -> None:
    """Shares of the limit, from `lowest` to 1, over an image."""
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number, got {limit}")
    axis.imshow(
        values.detach().cpu().float().numpy() / limit,
        cmap=colours,
        vmin=lowest,
        vmax=1.0,
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        interpolation="none",
    )


def heat_bar(figure: Figure, axis: Axes, label: str) -> None:
    """The bar of a figure of heat, some of which is in `axis`, over black as far as it shines
    through.
    """
    colour_bar(figure, axis.images[1], label, (0, 0.25, 0.5, 0.75, 1), ground="black")


def evidence_rows(
    image: Float[Tensor, "N 1 H W"],
    evidence: Sequence[Float[Tensor, "N _ _"]],
    names: Sequence[str],
    region: Bool[Tensor, "N H W"],
    titles: Sequence[str] = (),
) -> Figure:
    """A row of radiographs, the true region outlined, and below it a row for each set of maps.

    Each map is drawn on its own scale, up to its strongest value: maps of different classifiers,
    or of different layers, have no common unit.

    Args:
        image: N radiographs, one column each, at most four.
        evidence: sets of maps, of any resolution.
        names: of the sets, written left of their rows.
        region: what is outlined; nothing where it is empty.
        titles: above the radiographs.
    """
    n, size = len(image), image.shape[-1]
    rest = [""] * (n * len(evidence))
    told = [*titles, *rest] if titles else []
    below = BAR + ROW_OF_LETTERS
    figure, axes = grid(n * (1 + len(evidence)), n, told, below=below, left=name_space(names))
    for i in range(n):
        draw(axes[i], image[i, 0])
        draw_outline(axes[i], region[i])
    for row, (maps, name) in enumerate(zip(evidence, names, strict=True), start=1):
        drawn = axes[row * n : (row + 1) * n]
        name_row(drawn[0], name)
        for i, axis in enumerate(drawn):
            draw(axis, image[i, 0], DIMMED)
            draw_evidence(axis, maps[i], float(maps[i].abs().max()) or 1.0, size)
            draw_outline(axis, region[i])
    if evidence:
        ticks, ends = (-1, -0.5, 0, 0.5, 1), ("−1\nagainst", "−0.5", "0", "0.5", "1\nfor")
        label = "share of each map's strongest value"
        colour_bar(figure, axes[n].images[1], label, ticks, ends, ground="black")
    return figure


def found_boxes(
    image: Float[Tensor, "N 1 H W"],
    heatmap: Float[Tensor, "N H W"],
    inside: Bool[Tensor, "N H W"],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    region: Bool[Tensor, "N H W"],
) -> Figure:
    """From heat to boxes in three rows: heat map, what of it is above the cut, and the boxes around
    that on the radiograph, with the true region outlined. At most four images, one column each.
    """
    n, size = len(image), image.shape[-1]
    names = ("heat", "above the cut", "box and true region")
    figure, axes = grid(3 * n, n, below=BAR, left=name_space(names))
    for row, name in enumerate(names):
        name_row(axes[row * n], name)
    for i in range(n):
        strongest = float(heatmap[i].max()) or 1.0
        for axis, heat in ((axes[i], heatmap[i]), (axes[n + i], heatmap[i] * inside[i])):
            draw(axis, image[i, 0], DIMMED)
            draw_heat(axis, heat, strongest, size)
        draw(axes[2 * n + i], image[i, 0])
        draw_outline(axes[2 * n + i], region[i])
        draw_boxes(axes[2 * n + i], boxes[i])
    heat_bar(figure, axes[0], "heat, share of the strongest in the image")
    return figure


def spotlights(
    image: Float[Tensor, "N 1 H W"],
    inside: Bool[Tensor, "N H W"],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    region: Bool[Tensor, "N H W"],
    enlarged: int = 3,
) -> UInt8[np.ndarray, "N h w"]:
    """Radiographs as grey pictures for `widgets.image_slider`: light where the heat is above the
    cut, dark elsewhere; boxes are white frames with dark casings, and the true region has a dotted
    outline.

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
        corners = (found * enlarged).round().int().tolist()
        for x0, y0, x1, y1 in corners:
            for apart in (-1, 1):  # the casing, on either side of the frame
                first, last = (x0 + apart, y0 + apart), (x1 - 1 - apart, y1 - 1 - apart)
                cv2.rectangle(picture, first, last, 0, 1)
        _dot_outline(picture, truth, enlarged)
        for x0, y0, x1, y1 in corners:
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), 255, 1)
    return shown


def spotlight_frames(
    image: Float[Tensor, "N 1 H W"],
    inside: Sequence[Bool[Tensor, "N H W"]],
    boxes: Sequence[Sequence[Float[Tensor, "_ 4"]]],
    region: Bool[Tensor, "N H W"],
    columns: int = 4,
) -> list[UInt8[np.ndarray, "h w"]]:
    """The frames of a slider: the same radiographs as `spotlights`, in rows, once for each cut.

    Args:
        image: N radiographs.
        inside: of each frame, where the heat is above the cut.
        boxes: of each frame, the boxes of each radiograph.
        region: what is outlined.
        columns: radiographs in a row.

    Raises:
        ValueError: not as many sets of boxes as frames.
    """
    if len(inside) != len(boxes):
        raise ValueError(f"expected boxes for each of {len(inside)} frames, got {len(boxes)}")
    return [
        montage(spotlights(image, above, found, region), columns)
        for above, found in zip(inside, boxes, strict=True)
    ]


def _dot_outline(picture: UInt8[np.ndarray, "h w"], mask: Tensor, enlarged: int) -> None:
    """White and black dots in turn along the outline of a mask, drawn into the picture."""
    pixels = mask.byte().repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1).cpu().numpy()
    for outline in cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
        x, y = outline[:, 0].T
        picture[y, x] = np.where(np.arange(len(x)) % 6 < 3, 255, 0)
