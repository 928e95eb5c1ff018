"""Heat maps to boxes: cut, connected components, a box around each.

A box is xyxy in pixels of the heat map, float32; pixel (i, j) covers [j, j + 1) x [i, i + 1), so
the right and the lower edge lie one beyond the last pixel. To have boxes in the frame of the image,
resize the map first (`heatmap.resize_heatmap`). Components are found on the CPU, wherever the map
is.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Scored = tuple[Float[Tensor, "_ 4"], Float[Tensor, "_"]]
"""The boxes (N, 4) of one image and the score (N,) of each: the largest heat in its component."""


def threshold_relative(heatmap: Float[Tensor, "B H W"], fraction: float) -> Bool[Tensor, "B H W"]:
    """Where the heat is above `fraction` times the maximum of its image.

    The comparison is strict, so a map of zeros has nothing above the cut: for a map that may be
    constant or negative, take `heatmap.normalise` first (it makes a constant map zeros). An
    absolute cut is simply `heatmap > level`.

    Papers that follow ChestX-ray8 cut at 60 and 180 of 255; that is `fraction` 60 / 255 or
    180 / 255 of a normalised map.

    Raises:
        ValueError: a fraction outside [0, 1).
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"fraction: expected a number in [0, 1), got {fraction}")
    return heatmap > fraction * heatmap.amax(dim=(1, 2), keepdim=True)


def component_boxes(
    inside: Bool[Tensor, "B H W"], heatmap: Float[Tensor, "B H W"], *, min_area: int = 1
) -> list[Scored]:
    """A box around every 8-connected component of `inside`, the hottest first.

    Args:
        inside: where the heat counts, from a cut.
        heatmap: gives the scores.
        min_area: components of fewer pixels are left out.

    Returns:
        For each image its boxes (N, 4) and scores (N,), on the heat map's device; N may be 0.

    Raises:
        ValueError: `inside` and `heatmap` differ in shape, or the heat is NaN somewhere.
    """
    return [
        _scored(boxes[area >= min_area], peak[area >= min_area], heatmap.device)
        for boxes, peak, area in _components(inside, heatmap)
    ]


def largest_component_box(
    inside: Bool[Tensor, "B H W"], heatmap: Float[Tensor, "B H W"]
) -> list[Scored]:
    """The box around the largest 8-connected component of `inside`: one box, or none where nothing
    is inside. Of components of one size, the hottest.

    Largest is meant in pixels of the component, not of its box.

    Returns:
        For each image boxes (N, 4) and scores (N,) with N of 0 or 1, on the heat map's device.

    Raises:
        ValueError: `inside` and `heatmap` differ in shape, or the heat is NaN somewhere.
    """
    result = []
    for boxes, peak, area in _components(inside, heatmap):
        # The hottest come first, so the first of the largest is the hottest of them.
        largest = np.flatnonzero(area == area.max(initial=0))[:1]
        result.append(_scored(boxes[largest], peak[largest], heatmap.device))
    return result


def _scored(boxes: np.ndarray, peak: np.ndarray, device: torch.device) -> Scored:
    return torch.from_numpy(boxes).to(device), torch.from_numpy(peak).to(device)


def _components(
    inside: Tensor, heatmap: Tensor
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Boxes (N, 4), largest heats (N,) and numbers of pixels (N,) of each image's components, the
    hottest first; of equally hot ones the uppermost, then the leftmost.
    """
    if inside.shape != heatmap.shape:
        raise ValueError(
            f"inside: expected {tuple(heatmap.shape)}, the shape of the heat map, "
            f"got {tuple(inside.shape)}"
        )
    heats = heatmap.detach().cpu().float().numpy()
    if np.isnan(heats).any():
        raise ValueError(f"heatmap: expected numbers, got NaN in {np.isnan(heats).sum()} pixels")
    for pixels, heat in zip(inside.cpu().numpy().astype(np.uint8), heats, strict=True):
        n_labels, label, statistics, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
        peak = np.full(n_labels, -np.inf, dtype=np.float32)
        np.maximum.at(peak, label.ravel(), heat.ravel())
        left, top, width, height, area = statistics[1:].T  # the first is the outside
        peak = peak[1:]
        boxes = np.stack((left, top, left + width, top + height), axis=1).astype(np.float32)
        order = np.lexsort((left, top, -peak))
        yield boxes[order], peak[order], area[order]
