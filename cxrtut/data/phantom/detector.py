"""From optical depth to the picture on the screen: exposure, noise, window, sharpening, markers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.phantom.acquisition import SMALLEST_FOV, detector_noise
from cxrtut.data.phantom.anatomy import Anatomy
from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.shapes import Plane, blur, cos_sin, exp, grid, smooth_coarse

WIDEST_BLUR = 0.07  # cm, of any detector
REFERENCE_PIXEL = 0.15  # cm; the dose is given in photons per pixel of this size
NOISE_CORRELATION = 0.6  # pixels, of detectors at 128 px and more
SCATTER_CEILING = 0.35  # of the primary intensity, so that free air does not flood the chest
_LOW, _HIGH = (1 / (1 + math.exp(-4.3 * (v - 0.5))) for v in (0.0, 1.0))

_LETTERS = {
    " ": ("0000", "0000", "0000", "0000", "0000"),
    "A": ("0110", "1001", "1111", "1001", "1001"),
    "L": ("1000", "1000", "1000", "1000", "1111"),
    "O": ("0110", "1001", "1001", "1001", "0110"),
    "P": ("1110", "1001", "1110", "1000", "1000"),
    "R": ("1110", "1001", "1110", "1010", "1001"),
    "T": ("1110", "0100", "0100", "0100", "0100"),
}


@dataclass(frozen=True)
class Exposure:
    """What an image and its healthy twin share: noise, scatter, window and display, all taken
    from the healthy chest.
    """

    noise: Plane
    scatter: Plane
    window: tuple[Tensor, Tensor]
    compressed: Plane
    overlay: Plane
    keep: Plane
    surround: Tensor
    acquisition: Draws
    pixel: Float[Tensor, "B 1 1"]

    @classmethod
    def of(
        cls, anatomy: Anatomy, tau: Plane, tag: Float[Tensor, " B"] | None
    ) -> tuple[Exposure, Plane]:
        """Sets the exposure on the healthy chest `tau`; returns it with the healthy picture in
        [0, 1].
        """
        a, frame = anatomy.acquisition, anatomy.frame
        noise = detector_noise(a, frame.size)
        if frame.size >= 128:
            soft = blur(noise, torch.full_like(frame.pixel, NOISE_CORRELATION), NOISE_CORRELATION)
            noise = (0.55 / 0.47) * soft + 0.45 * noise
        scatter = (
            smooth_coarse(exp(-tau), 32, 3.0).clamp(max=SCATTER_CEILING) * a.scatter[:, None, None]
        )
        measured = signal(tau, noise, scatter, a, frame.pixel)
        window = _window(measured, anatomy.body, a)
        z = _windowed(measured, window)
        compressed = smooth_coarse(z, 32, 3.2)
        keep = _collimation(a, frame.size)
        surround = (0.25 * a.border_grey)[:, None, None]
        overlay = _overlay(a, tag, frame.size)
        exposure = cls(noise, scatter, window, compressed, overlay, keep, surround, a, frame.pixel)
        return exposure, exposure._display(z)

    def picture(self, tau: Plane) -> Plane:
        """The picture in [0, 1] of optical depth `tau` under this exposure."""
        measured = signal(tau, self.noise, self.scatter, self.acquisition, self.pixel)
        return self._display(_windowed(measured, self.window))

    def take(self, rows: Tensor) -> Exposure:
        if len(rows) == len(self.pixel):
            return self
        low, high = self.window
        return Exposure(
            self.noise[rows], self.scatter[rows], (low[rows], high[rows]), self.compressed[rows],
            self.overlay[rows], self.keep[rows], self.surround[rows], self.acquisition.take(rows),
            self.pixel[rows],
        )  # fmt: skip

    def _display(self, z: Plane) -> Plane:
        """Dynamic-range compression, unsharp mask, sigmoid look-up table, gamma, markers."""
        a, size = self.acquisition, z.shape[-1]
        darker = (self.compressed - 0.45).mul_(a.compression[:, None, None])
        z = torch.sub(z, darker, out=darker)
        if size >= 64:
            width = torch.full_like(self.pixel, size * 2.5 / 256)
            detail = z - blur(z, width, size * 2.0 / 256)
            z = detail.mul_(a.sharpening[:, None, None]).add_(z)
        shown = z.sub_(0.5).mul_(4.3).sigmoid_().sub_(_LOW).div_(_HIGH - _LOW).clamp_(0, 1)
        shown = shown.pow_(a.gamma[:, None, None])
        shown = shown.sub_(self.surround).mul_(self.keep).add_(self.surround)
        return torch.maximum(shown, 0.97 * self.overlay)


def signal(
    tau: Plane,
    noise: Plane,
    scatter: Plane,
    a: Draws,
    pixel: Float[Tensor, "B 1 1"],
) -> Plane:
    """-log of the detected intensity I + sqrt(I / N) * noise.

    I = exp(-tau) + scatter arrives; `noise` is standard normal, `pixel`
    the width of a pixel in cm. The detector's blur acts on tau, where it
    commutes with adding a lesion, and only from 128 px on: larger pixels
    are wider than the blur.
    """
    size, tau = tau.shape[-1], tau.clamp_min(0.01)
    if size >= 128:
        widest = WIDEST_BLUR / SMALLEST_FOV * size
        tau = blur(tau, a.blur[:, None, None] / pixel, widest)
    intensity = exp(-tau) + scatter
    area = (pixel / REFERENCE_PIXEL) ** 2
    photons = a.dose[:, None, None] * area
    intensity = intensity + torch.sqrt(intensity / photons) * noise
    return -torch.log(intensity.clamp_min(1e-3))


def _window(signal: Plane, body: Plane, a: Draws) -> tuple[Tensor, Tensor]:
    """Display limits: the 2nd and 93rd percentile inside the body, widened as the radiographer
    likes.
    """
    step = max(1, signal.shape[-1] // 32)
    values = signal[:, ::step, ::step].flatten(1)
    inside = body[:, ::step, ::step].flatten(1) > 0.5
    ordered, n = torch.sort(values + (~inside) * 1e4, dim=1).values, inside.sum(1, keepdim=True)
    low, high = (
        ordered.gather(1, ((n - 1).clamp_min(0) * share).long())[..., None]
        for share in (0.02, 0.93)
    )
    extent = high - low
    return low - a.window_low[:, None, None] * extent, high + a.window_high[:, None, None] * extent


def _windowed(signal: Plane, window: tuple[Tensor, Tensor]) -> Plane:
    low, high = window
    return ((signal - low) / (high - low)).clamp(-0.5, 1.6)


def _collimation(a: Draws, size: int) -> Plane:
    """1 inside the collimated field, 0 on the bars beside it."""
    t = (torch.arange(size, device=a.fov.device) + 0.5) / size
    bars = (a.collimated * a.collimation)[..., None, None]
    column, row = t.view(1, 1, size), t.view(1, size, 1)
    inside = (
        (column > bars[:, 0])
        & (column < 1 - bars[:, 1])
        & (row > bars[:, 2])
        & (row < 1 - bars[:, 3])
    )
    return inside.float()


def _glyphs(words: Sequence[str], device: torch.device) -> Float[Tensor, "W 5 n"]:
    """Each word as an image of 5 rows and 5 columns a letter."""

    def pixels(word: str, row: int) -> list[float]:
        return [float(c) for letter in word for c in _LETTERS[letter][row] + "0"]

    return torch.tensor([[pixels(word, row) for row in range(5)] for word in words], device=device)


def _stamp(
    glyph: Float[Tensor, "B h w"],
    x: Tensor,
    y: Tensor,
    tilt: Tensor,
    a: Draws,
    rows: Float[Tensor, " H"],
    columns: Float[Tensor, " W"],
) -> Plane:
    """Draws one glyph image per picture with its centre at (x, y), fractions of the image, on the
    pixels of the given rows and columns.
    """
    dx, dy = columns[None, None] - x[:, None, None], rows[:, None] - y[:, None, None]
    cos, sin = (part[:, None, None] for part in cos_sin(tilt))
    half = 0.5 * a.marker_size[:, None, None]
    across = (cos * dx + sin * dy) / (half * glyph.shape[2] / glyph.shape[1])
    places = grid(across, (cos * dy - sin * dx) / half)
    return F.grid_sample(glyph[:, None], places, align_corners=False)[:, 0]


def _overlay(a: Draws, tag: Float[Tensor, " B"] | None, size: int) -> Plane:
    """Side markers and, where `tag` is 1, the word that may betray the disease (the planted
    confounder).
    """
    t = (torch.arange(size, device=a.fov.device) + 0.5) / size
    rows = size // 4  # what is written stays in the upper or the lower quarter
    says_ap = a.ap * a.marker_ap
    on_right = (1 - says_ap) * a.marker_right
    letters = _glyphs(("L ", "R ", "AP"), a.fov.device)
    choice = torch.stack([(1 - says_ap) * (1 - a.marker_right), on_right, says_ap], 1)
    glyph = (choice * a.marker[:, None]) @ letters.flatten(1)
    x = a.marker_x + on_right * (1 - 2 * a.marker_x)
    glyph = glyph.view(-1, *letters.shape[1:])
    marker = _stamp(glyph, x, a.marker_y, a.marker_tilt, a, t[:rows], t)
    overlay = F.pad(marker, (0, 0, 0, size - rows))
    if tag is not None:
        word = _glyphs(("PORT",), a.fov.device) * tag[:, None, None]
        x, y = torch.full_like(tag, 0.16), torch.full_like(tag, 0.93)
        word = _stamp(word, x, y, torch.zeros_like(tag), a, t[-rows:], t)
        overlay = overlay + F.pad(word, (0, 0, size - rows, 0))
    return overlay.clamp(0, 1)
