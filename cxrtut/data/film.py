"""A film as somebody has it (a file, an array, a tensor, of any size) to the frame of a network,
and answers back to the film's own pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cxrtut.data.decode import Frame, ImageError, channels_first, decode_image, fit_square
from cxrtut.data.sample import Detections, Prediction, from_uint8

Film = str | os.PathLike[str] | np.ndarray | Tensor
"""A path; or grey levels (H, W), (H, W, 3), (1, H, W), (3, H, W): uint8, or float in [-1, 1] or
[0, 1]. Floats count as [0, 1] unless some are clearly below 0."""
OVERSHOOT = 0.05  # beyond a range, as resampling leaves it; it is clipped


@dataclass(frozen=True)
class FramedFilm:
    """A film in the square frame of a network.

    Attributes:
        image: (1, C, S, S) in [-1, 1]; black around a film that is not square.
        frame: where the film lies in it.
    """

    image: Float[Tensor, "1 C S S"]
    frame: Frame


def read_film(film: Film, size: int, channels: int) -> FramedFilm:
    """Reads a film, checks it, and resizes it by averaging areas; its aspect ratio is kept.

    Args:
        film: see `Film`.
        size: S, pixels.
        channels: 1 or 3; colour becomes grey by Rec. 601, grey becomes three equal channels.

    Raises:
        ImageError: a file that cannot be read.
        TypeError: none of these, or an array of another type.
        ValueError: another shape, values outside the range, NaN, or no pixel at all.
    """
    if isinstance(film, (str, os.PathLike)):
        path = Path(film)
        if not path.is_file():
            raise ImageError(f"{path}: expected an image file, found none")
        kind: Literal[1, 3] = 3 if channels == 3 else 1
        levels = decode_image(path, kind)
    else:
        levels = _levels(film, channels)
    square, frame = fit_square(levels, size)
    return FramedFilm(from_uint8(torch.from_numpy(channels_first(square)))[None], frame)


def _levels(film: np.ndarray | Tensor, channels: int) -> UInt8[np.ndarray, "H W *C"]:
    if isinstance(film, Tensor):
        film = film.detach().cpu()
        film = (
            film.float() if film.dtype == torch.bfloat16 else film
        ).numpy()  # no such numpy type
    if not isinstance(film, np.ndarray):
        raise TypeError(f"film: expected a path, an array or a tensor, got {type(film).__name__}")
    pixels = _channels_last(film)
    if pixels.dtype == np.uint8:
        levels = pixels
    elif np.issubdtype(pixels.dtype, np.floating):
        levels = _from_floats(pixels)
    else:
        raise TypeError(
            f"film: expected uint8, or floats in [-1, 1] or [0, 1], got {pixels.dtype}; "
            "scale other grey levels first (data.decode.scale_to_uint8)"
        )
    if levels.ndim == 3 and channels == 1:
        return np.asarray(cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if levels.ndim == 2 and channels == 3:
        return np.repeat(levels[..., None], 3, axis=2)
    return levels


def _channels_last(film: np.ndarray) -> np.ndarray:
    shape = film.shape
    if 0 in shape:
        raise ValueError(f"film: expected pixels, got shape {shape}")
    if film.ndim == 4 and shape[0] == 1:
        return _channels_last(film[0])
    if film.ndim == 2 or (film.ndim == 3 and shape[2] == 3):
        return np.ascontiguousarray(film)
    if film.ndim == 3 and shape[0] in (1, 3):
        return np.ascontiguousarray(film[0] if shape[0] == 1 else film.transpose(1, 2, 0))
    raise ValueError(f"film: expected (H, W), (H, W, 3), (1, H, W) or (3, H, W), got shape {shape}")


def _from_floats(pixels: np.ndarray) -> UInt8[np.ndarray, "H W *C"]:
    if not np.isfinite(pixels).all():
        raise ValueError("film: expected finite values, got NaN or infinity")
    low, high = float(pixels.min()), float(pixels.max())
    if low < -1 - OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(
            f"film: expected floats in [-1, 1] or [0, 1], got [{low:.4g}, {high:.4g}]; "
            "grey levels of 0 to 255 are understood as uint8"
        )
    unit = (pixels + 1) / 2 if low < -OVERSHOOT else pixels
    return (unit.clip(0, 1) * 255).round().astype(np.uint8)


def in_film(answer: Prediction, frames: Sequence[Frame]) -> list[Prediction]:
    """The answer for several films, each in its own film's pixels: heat maps and images are
    enlarged linearly, boxes scaled; the black around a film is cut away.

    Args:
        answer: of the framed films, in their order.
        frames: of the films.
    """
    films = []
    for i, frame in enumerate(frames):
        boxes = None if answer.boxes is None else (_boxes_in(answer.boxes[i], frame),)
        heat, image = (
            None if x is None else _enlarged(x[i : i + 1], frame)
            for x in (answer.heatmap, answer.image)
        )
        scores = None if answer.scores is None else answer.scores[i : i + 1]
        films.append(Prediction(scores=scores, heatmap=heat, image=image, boxes=boxes))
    return films


def _enlarged(x: Float[Tensor, "1 C S S"], frame: Frame) -> Float[Tensor, "1 C H W"]:
    (height, width), (top, left) = frame.inner, frame.corner
    inside = x[:, :, top : top + height, left : left + width]
    size = (frame.height, frame.width)
    single = inside.to(torch.promote_types(x.dtype, torch.float32))
    enlarged = F.interpolate(single, size=size, mode="bilinear", align_corners=False)
    return enlarged.to(x.dtype)


def _boxes_in(found: Detections, frame: Frame) -> Detections:
    (height, width), (top, left) = frame.inner, frame.corner
    corner = found.boxes.new_tensor([left, top, left, top])
    factor = found.boxes.new_tensor([frame.width / width, frame.height / height] * 2)
    limit = found.boxes.new_tensor([frame.width, frame.height] * 2)
    moved = ((found.boxes - corner) * factor).clamp(min=0)
    moved = torch.minimum(moved, limit)
    inside = (moved[:, 2:] > moved[:, :2]).all(1)  # not in the black around the film alone
    return Detections(moved[inside], found.scores[inside], found.labels[inside])
