"""Where diseases are to be expected, from outside knowledge: masks that no image has taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def centre_prior(n_classes: int, cells: int, sigma: float = 0.5) -> Float[Tensor, "K h w"]:
    """A Gaussian at the centre, for every class: what any prior for the middle would do.

    Args:
        sigma: in half images.
    """
    x = (2 * torch.arange(cells) + 1 - cells) / cells
    bell = torch.exp(-(x[:, None] ** 2 + x**2) / (2 * sigma**2))
    return bell.expand(n_classes, cells, cells).clone()


# Drawn on the mean of simulated normal images: ellipses (x, y, half width, half height), in shares
# of the image; of the lungs, from and to which share of their height.
_Ellipse = tuple[float, float, float, float]
_LUNGS: tuple[_Ellipse, ...] = ((0.31, 0.43, 0.14, 0.29), (0.69, 0.43, 0.14, 0.29))
_HEART: tuple[_Ellipse, ...] = ((0.555, 0.54, 0.2, 0.17),)  # enlarged: 0.6 of the chest's width
_CORNERS = ("Atelectasis", "Effusion")  # what lies at the bottom fills the corners of the chest
_ZONES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "Infiltration": (0, 1), "Mass": (0, 1), "Nodule": (0, 1), "Pneumonia": (0, 1),
        "Atelectasis": (2 / 3, 1), "Effusion": (2 / 3, 1), "Pneumothorax": (0, 1 / 2),
        "Cardiomegaly": (0, 1),
    }
)  # fmt: skip


def pseudo_masks(classes: Sequence[str], cells: int) -> Float[Tensor, "K h w"]:
    """Masks drawn by hand on an upright, centred chest: the pseudo masks of Kim et al.
    (arXiv:2101.09915, Section 4.4 and Fig. 7).

    Reading (network, shapes of the drawn masks): Infiltrate, mass, nodule and pneumonia get the
        whole lungs. The other masks of Fig. 7 cannot be read.
        Here: Cardiomegaly gets an enlarged heart, atelectasis and effusion the lower third of the
            chest with its corners, pneumothorax the upper half of the lungs, and other classes
            nothing. Lungs and heart are ellipses, drawn on the mean of simulated normal images.
        Why: We expect these diseases there.

    Reading (network, cells on the border): Masks are 1 in the disease's area and 0 elsewhere.
        Here: A cell on the border has the share of it that is covered.
        Why: On 8 × 8 cells a heart of zeros and ones would be a square.
    """
    fine = 8 * cells
    at = (torch.arange(fine) + 0.5) / fine
    masks = torch.zeros(len(classes), fine, fine)
    for k, name in enumerate(classes):
        if name not in _ZONES:
            continue
        shapes = _HEART if name == "Cardiomegaly" else _LUNGS
        top, bottom = _ZONES[name]
        for x, y, half_width, half_height in shapes:
            across, along = (at - x) / half_width, (at[:, None] - y) / half_height
            if name in _CORNERS:
                inside = (across.abs() <= 1) & (along.abs() <= 1)
            else:
                inside = across**2 + along**2 <= 1
            height = (at - (y - half_height)) / (2 * half_height)
            zone = (height >= top) & (height <= bottom)
            masks[k] += inside & zone[:, None]
    return F.avg_pool2d(masks[:, None], 8)[:, 0]
