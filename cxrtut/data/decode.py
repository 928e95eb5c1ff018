"""One image file to uint8 pixels, and those to the square frame of a store.

Formats: PNG, JPEG, TIFF, BMP (Pillow) and DICOM (pydicom, the extra `dicom`). A file that is
broken, truncated or empty raises `ImageError` with its name and the reason; nothing is half
decoded.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", *DICOM_SUFFIXES)
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_MASK_THRESHOLD = {"JPEG": 127}  # compression blurs the two levels; every other format keeps them


class ImageError(Exception):
    """An image file that cannot be read; says which and why."""


@dataclass(frozen=True)
class Frame:
    """Where an image of `height` x `width` lies in a square of `size`: scaled, centred, black
    around it.
    """

    height: int
    width: int
    size: int

    @property
    def scale(self) -> float:
        """Store pixels per original pixel."""
        return self.size / max(self.height, self.width)

    @property
    def inner(self) -> tuple[int, int]:
        """(height, width) of the picture inside the square."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the picture inside the square."""
        return (self.size - self.inner[0]) // 2, (self.size - self.inner[1]) // 2

    def boxes(self, xyxy: Sequence[Sequence[float]]) -> Float[np.ndarray, "n 4"]:
        """Boxes of the original, in pixels of the square, clipped to the picture."""
        (height, width), (top, left) = self.inner, self.corner
        factor = np.array([width / self.width, height / self.height] * 2)
        low = np.array([left, top] * 2, dtype=float)
        high = np.array([left + width, top + height] * 2, dtype=float)
        return np.clip(np.asarray(xyxy, dtype=float).reshape(-1, 4) * factor + low, low, high)


def decode_image(
    path: str | os.PathLike[str], channels: Literal[1, 3] = 1
) -> UInt8[np.ndarray, "H W *C"]:
    """Read an image as (H, W) grey levels, or as (H, W, 3) RGB.

    - Colour becomes grey by the luma of Rec. 601; where R = G = B that is the same number.
    - Transparency is ignored: some NIH files carry an alpha channel of 255.
    - A palette is looked up.
    - 16-bit and float grey levels are scaled from the image's own smallest and largest value to 0
      ... 255, because their files do not say which part of the range is used.
    - DICOM: see `decode_dicom`.

    Raises:
        ImageError: the file cannot be read, with its name and the reason.
    """
    path = Path(path)
    if path.suffix.lower() in DICOM_SUFFIXES:
        grey = decode_dicom(path)
        return grey if channels == 1 else np.repeat(grey[..., None], 3, axis=2)
    image = _open(path)
    if image.mode in _DEEP_MODES:
        try:
            grey = scale_to_uint8(np.asarray(image, dtype=np.float64))
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
        return grey if channels == 1 else np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P":  # by way of RGBA, so that a transparent colour is looked up too
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        image = image.convert("RGB") if image.mode == "RGBA" else image.getchannel(0)
    return np.array(image.convert("L" if channels == 1 else "RGB"))


def decode_mask(path: str | os.PathLike[str]) -> Bool[np.ndarray, "H W"]:
    """Read a mask: True where the stored value (of a palette image: the index) is not zero, in a
    JPEG above 127.

    Raises:
        ImageError: the file cannot be read.
    """
    image = _open(Path(path))
    values = np.asarray(image)
    if values.ndim == 3:
        values = values[..., :3].max(axis=2) if image.mode != "LA" else values[..., 0]
    return values > _MASK_THRESHOLD.get(image.format or "", 0)


def decode_dicom(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "H W"]:
    """Read a radiograph from a DICOM file, as (H, W) with black as 0.

    The window of the file (VOI: centre and width, or a table) is applied if there is one, after
    rescale slope and intercept. Without a window 8-bit values stay what they are and deeper ones
    are scaled from their own range. MONOCHROME1 (low is white) is inverted.

    Raises:
        ImageError: pydicom is missing, or the file is broken or no single monochrome image.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError as error:
        raise ImageError(
            f"{path}: reading DICOM needs pydicom >= 3 (pip install 'cxrtut[dicom]')"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # pydicom remarks on harmless deviations from the standard
            dataset = pydicom.dcmread(path)
            photometric = str(dataset.get("PhotometricInterpretation", "missing"))
            if photometric not in ("MONOCHROME1", "MONOCHROME2"):
                raise ValueError(f"expected MONOCHROME1 or MONOCHROME2, got {photometric}")
            stored = dataset.pixel_array
            if stored.ndim != 2:
                raise ValueError(f"expected one image, got shape {stored.shape}")
            values = apply_modality_lut(stored, dataset)
            if dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
                levels = _apply_window(values, dataset)
            elif "VOILUTSequence" in dataset:
                levels = scale_to_uint8(apply_voi_lut(values, dataset).astype(np.float64))
            elif stored.dtype == np.uint8:
                levels = stored
            else:
                levels = scale_to_uint8(values.astype(np.float64))
    except Exception as error:  # pydicom and its decoders raise nearly every kind there is
        raise ImageError(f"{path}: {error or type(error).__name__}") from error
    return 255 - levels if photometric == "MONOCHROME1" else levels


def _apply_window(values: np.ndarray, dataset: Any) -> UInt8[np.ndarray, "H W"]:
    """DICOM PS3.3 C.11.2.1.2 and .3, by pydicom: the first of several windows."""
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    # The window of the file on an image of 8 bits: pydicom maps a window to the range that the
    # stored values may have (and rescales it), here to 0 ... 255.
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.WindowCenter, window.WindowWidth = dataset.WindowCenter, dataset.WindowWidth
    window.VOILUTFunction = dataset.get("VOILUTFunction") or "LINEAR"
    return np.rint(apply_windowing(values, window)).astype(np.uint8)


def scale_to_uint8(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """The smallest value becomes 0, the largest 255; an image of one value becomes black."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("expected finite values, got NaN or infinity")
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)


def fit_square(
    image: UInt8[np.ndarray, "H W *C"], size: int
) -> tuple[UInt8[np.ndarray, "S S *C"], Frame]:
    """Resize to `size` x `size` by averaging areas; the aspect ratio is kept and black fills the
    rest.

    Stretching would change what radiologists measure (the heart's share of the thorax), so an image
    that is not square gets black bars instead. Enlarging interpolates linearly.
    """
    frame = Frame(image.shape[0], image.shape[1], size)
    (height, width), (top, left) = frame.inner, frame.corner
    if image.shape[:2] != (height, width):
        method = cv2.INTER_AREA if frame.scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=method)
    if (height, width) == (size, size):
        return np.ascontiguousarray(image), frame
    square = np.zeros((size, size, *image.shape[2:]), dtype=np.uint8)
    square[top : top + height, left : left + width] = image
    return square, frame


def fit_mask(mask: Bool[np.ndarray, "H W"], size: int) -> Bool[np.ndarray, "S S"]:
    """A mask in the frame of `fit_square`: a store pixel is inside when any part of it is.

    Lesions of a few original pixels (microaneurysms) would vanish under a majority rule.
    """
    frame = Frame(mask.shape[0], mask.shape[1], size)
    (height, width), (top, left) = frame.inner, frame.corner
    method = cv2.INTER_AREA if frame.scale < 1 else cv2.INTER_NEAREST
    covered = cv2.resize(mask.astype(np.float32), (width, height), interpolation=method)
    square = np.zeros((size, size), dtype=bool)
    square[top : top + height, left : left + width] = covered > 1e-6
    return square


def channels_first(image: UInt8[np.ndarray, "H W *C"]) -> UInt8[np.ndarray, "K H W"]:
    """(H, W) to (1, H, W), and (H, W, 3) to (3, H, W)."""
    return image[None] if image.ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        if path.is_file() and path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty") from error
        raise ImageError(f"{path}: {error or type(error).__name__}") from error
