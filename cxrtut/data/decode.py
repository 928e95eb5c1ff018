"""One image file to uint8 pixels, and those to the square frame of a store.

Formats: PNG, JPEG, TIFF, BMP (Pillow) and DICOM (pydicom, the extra `dicom`). A file that is
broken, truncated or empty raises `ImageError` with its name and the reason; nothing is half
decoded.

What damage can be noticed depends on the format. PNG and deflated TIFF have checksums over the
pixels. A JPEG has none, but its code breaks off where data are lost: libjpeg notices that, and so
does `decode_image` (also in a DICOM of baseline JPEG). It cannot be noticed when bytes were changed
and the file is still as long and still a file: in BMP, in any other TIFF (a JPEG inside one
included), in any other DICOM, and in a JPEG when the changed bits happen to be valid code, which a
single changed bit usually is, and sometimes a block of zeros in a progressive one. Only a checksum
that was published with the data tells.

An image with an EXIF orientation comes upright, as viewers show it, and so does its mask. Nothing
of the process is changed, so that any number of threads may decode at once: what pydicom remarks on
deviations from the standard is shown as its warnings.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, UnidentifiedImageError

from cxrtut.data.damage import check_jpeg, check_png, check_tiff

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", *DICOM_SUFFIXES)
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_JPEG = ("JPEG", "MPO")
_MASK_THRESHOLD = 127  # in a JPEG: compression blurs the two levels; other formats keep them
_LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601
_ORIENTATION = 0x0112


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

    - An EXIF orientation is applied.
    - Colour becomes grey by the luma of Rec. 601; where R = G = B that is the same number.
    - Transparency is ignored: some NIH files carry an alpha channel of 255.
    - A palette is looked up.
    - Levels of 16 or 32 bits and floats, grey or colour, are scaled from the image's own smallest
      and largest value to 0 ... 255, because their files do not say which part of the range is
      used.
    - Of several pages, the first.
    - DICOM: see `decode_dicom`.

    Raises:
        ImageError: the file cannot be read, with its name and the reason.
    """
    path = Path(path)
    if path.suffix.lower() in DICOM_SUFFIXES:
        levels = decode_dicom(path)
    else:
        opened = _open(path)
        try:
            levels = _upright(_levels(opened, channels), opened.orientation)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim < channels else levels


def decode_mask(path: str | os.PathLike[str]) -> Bool[np.ndarray, "H W"]:
    """Read a mask: True where the stored value (of a palette image: the index) is not zero, in a
    JPEG above 127. An EXIF orientation is applied, as to the image.

    Raises:
        ImageError: the file cannot be read.
    """
    opened = _open(Path(path))
    image, values = opened.image, opened.deep
    if values is None:
        # Colours that are not zero where it is black.
        image = image.convert("RGB") if image.mode in ("CMYK", "YCbCr") else image
        values = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
    if values.ndim == 3:
        values = values[..., :3].max(axis=2)
    threshold = _MASK_THRESHOLD if opened.image.format in _JPEG else 0
    return _upright(values > threshold, opened.orientation)


def _levels(opened: "_Opened", channels: int) -> UInt8[np.ndarray, "H W *C"]:
    image, values = opened.image, opened.deep
    if values is not None:
        values = values.astype(np.float64)
        return scale_to_uint8(values @ _LUMA if values.ndim == 3 and channels == 1 else values)
    if image.mode == "P":  # by way of RGBA, so that a transparent colour is looked up too
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        image = image.convert("RGB") if image.mode == "RGBA" else image.getchannel(0)
    if image.mode == "LAB":  # Pillow has no direct way to grey
        image = image.convert("RGB")
    return np.array(image.convert("L" if channels == 1 else "RGB"))


def decode_dicom(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "H W"]:
    """Read a radiograph from a DICOM file, as (H, W) with black as 0.

    The window of the file (VOI: centre and width, or a table) is applied if there is one, after
    rescale slope and intercept. Without a window 8-bit values stay what they are and deeper ones
    are scaled from their own range. MONOCHROME1 (low is white) is inverted. Padding (the pixels
    that the file declares to be no picture) does not count for the range and becomes black.

    An element without a value is one that is not there.

    Raises:
        ImageError: pydicom is missing, the file is broken or no single monochrome image, or an
            element has a value that makes no sense.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ImageError(
            f"{path}: reading DICOM needs pydicom >= 3 (pip install 'cxrtut[dicom]')"
        ) from error
    try:
        dataset = pydicom.dcmread(path)
        photometric = str(_element(dataset, "PhotometricInterpretation") or "none")
        if photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise ValueError(
                f"PhotometricInterpretation: expected MONOCHROME1 or MONOCHROME2, got {photometric}"
            )
        _check_jpeg_frame(dataset)
        stored = dataset.pixel_array
        if stored.ndim != 2:
            raise ValueError(f"expected one image, got shape {stored.shape}")
        padding = _padding(stored, dataset)
        levels = _shown(stored, dataset, ~padding)
    except Exception as error:  # pydicom and its decoders raise nearly every kind there is
        raise ImageError(f"{path}: {error or type(error).__name__}") from error
    levels = 255 - levels if photometric == "MONOCHROME1" else levels
    return np.where(padding, np.uint8(0), levels)


def _shown(
    stored: Shaped[np.ndarray, "H W"], dataset: Any, picture: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W"]:
    """The stored values as the file wants them to be shown, with MONOCHROME1 not yet inverted."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    slope, intercept = (
        _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    )  # fmt: skip
    if slope == 0:
        raise ValueError("RescaleSlope: expected a number other than 0, got 0")
    has_table = bool(_element(dataset, "ModalityLUTSequence"))
    if has_table:
        values = apply_modality_lut(stored, dataset)
    elif (slope, intercept) == (1, 0):
        values = stored
    else:
        values = stored.astype(np.float64) * slope + intercept
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if centre is not None and width is not None:
        return _apply_window(values, centre, width, _element(dataset, "VOILUTFunction"))
    if _element(dataset, "VOILUTSequence"):
        return scale_to_uint8(apply_voi(values, dataset).astype(np.float64), picture)
    if stored.dtype == np.uint8 and not has_table:
        return stored if slope > 0 else 255 - stored
    return scale_to_uint8(values.astype(np.float64), picture)


def _apply_window(
    values: np.ndarray, centre: float, width: float, function: object
) -> UInt8[np.ndarray, "H W"]:
    """DICOM PS3.3 C.11.2.1.2 and .3, by pydicom: the first of several windows.

    Raises:
        ValueError: a width that the function does not allow.
    """
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    name = str(function or "LINEAR").upper()
    if width < 1 if name == "LINEAR" else width <= 0:
        expected = "1 or more" if name == "LINEAR" else "more than 0"
        raise ValueError(f"WindowWidth: expected {expected} for {name}, got {width:g}")
    # The window of the file on an image of 8 bits: pydicom maps a window to the range that the
    # stored values may have (and rescales it), here to 0 ... 255.
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.WindowCenter, window.WindowWidth = centre, width
    window.VOILUTFunction = name
    return np.rint(apply_windowing(values, window)).astype(np.uint8)


def _padding(stored: Shaped[np.ndarray, "H W"], dataset: Any) -> Bool[np.ndarray, "H W"]:
    """DICOM PS3.3 C.7.5.1.1.2: where the stored value is the padding, or in the range of it."""
    first = _number(dataset, "PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, dtype=bool)
    ends = first, _number(dataset, "PixelPaddingRangeLimit", first)
    # Writers confuse signed and unsigned here; the bits are the same.
    low, high = sorted(np.array([int(end) for end in ends]).astype(stored.dtype))
    return (stored >= low) & (stored <= high)


def _element(dataset: Any, name: str) -> Any:
    """The value of an element, the first of several; None where there is none."""
    try:
        value = dataset.get(name)
    except Exception as error:  # what pydicom makes of bytes that are no such value
        raise ValueError(f"{name}: {error}") from error
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = value[0] if len(value) else None
    return None if value is None or value in ("", b"") else value


def _number(dataset: Any, name: str, default: Any = None) -> Any:
    """The number in an element, `default` where there is none.

    Raises:
        ValueError: no number, or NaN or infinity.
    """
    value = _element(dataset, name)
    if value is None:
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return number


def _check_jpeg_frame(dataset: Any) -> None:
    """`check_jpeg` of a DICOM whose pixels are one JPEG of 8 bits."""
    from pydicom.encaps import get_frame
    from pydicom.uid import JPEGBaseline8Bit

    if dataset.file_meta.get("TransferSyntaxUID") == JPEGBaseline8Bit:
        check_jpeg(get_frame(dataset.PixelData, 0, number_of_frames=1))


def scale_to_uint8(
    values: Float[np.ndarray, "H W *C"], picture: Bool[np.ndarray, "H W"] | None = None
) -> UInt8[np.ndarray, "H W *C"]:
    """The smallest value becomes 0, the largest 255; an image of one value becomes black.

    Args:
        values: finite.
        picture: the pixels whose smallest and largest value count; without it, all do. The others
            are clipped.

    Raises:
        ImageError: a value that counts is NaN or infinite.
    """
    counted = values if picture is None else values[picture]
    if counted.size == 0:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = float(counted.min()), float(counted.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("expected finite values, got NaN or infinity")
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values.clip(low, high) - low) * (255.0 / (high - low))).astype(np.uint8)


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


@dataclass(frozen=True)
class _Opened:
    """A file as Pillow has it.

    Attributes:
        image: loaded, as it is stored.
        deep: the stored values, (H, W) or (H, W, 3), where they have more than 8 bits.
        orientation: that of EXIF, still to be applied; 1 is upright.
    """

    image: Image.Image
    deep: Shaped[np.ndarray, "H W *C"] | None
    orientation: int


def _open(path: Path) -> _Opened:
    try:
        data = path.read_bytes()
        # From memory: of a file that it maps, Pillow reads a TIFF on its side in the wrong order.
        with Image.open(io.BytesIO(data)) as image:
            stored = _stored_mode(image)
            image.load()
            if image.format in _JPEG:
                check_jpeg(data)
            elif image.format == "PNG":
                check_png(data)
            elif image.format == "TIFF":
                check_tiff(data, dict(getattr(image, "tag_v2", {})))
            return _Opened(image, _deep(data, image, stored), _orientation(image))
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        reason = "cannot identify the format of the image" if data else "the file is empty"
        raise ImageError(f"{path}: {reason}") from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{path}: {error or type(error).__name__}") from error


def _stored_mode(image: Image.Image) -> str:
    """The mode in the file, which Pillow knows until it has loaded it: RGB;16B, L, I;32S, ..."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _deep(data: bytes, image: Image.Image, stored: str) -> Shaped[np.ndarray, "H W *C"] | None:
    """The values of an image of more than 8 bits; None for any other."""
    if ";16" in stored and len(image.getbands()) > 1:  # Pillow keeps 8 of the 16 bits of a colour
        values = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16:
            raise ValueError("expected 16-bit colours that OpenCV can read, got others")
        return values if values.ndim == 2 else values[..., 2::-1]
    if image.mode not in _DEEP_MODES:
        return None
    values = np.asarray(image)
    if stored.startswith("I;32") and "S" not in stored:  # Pillow takes unsigned for signed
        values = values.view(np.uint32)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0:  # low is white
        values = (65535 if values.dtype.itemsize == 2 else values.max()) - values
    return values


def _orientation(image: Image.Image) -> int:
    """Of EXIF; 1 where there is none, or none that can be read (Pillow has turned TIFF already)."""
    try:
        return 1 if image.format == "TIFF" else int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF data fail in many ways; the pixels are whole
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: rows and columns exchanged, then mirrored."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
