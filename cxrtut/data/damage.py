"""Damage inside an image file that Pillow decodes without a word.

Pillow raises where a file is no longer a file of its format, and fills in where data are lost. Here
the file's own redundancy is asked: the checksums of PNG and of deflated TIFF, and the code of a
JPEG, which breaks off where data are lost. Other formats have none.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import simplejpeg

_LOST_DATA = ("Corrupt JPEG data", "Premature end of JPEG file")  # what libjpeg calls it
_PNG_SIGNATURE = 8  # bytes
_COMPRESSION, _DEFLATE = 259, (8, 32946)
_PIECES = ((273, 279), (324, 325))  # offsets and lengths of strips, and of tiles


def check_jpeg(data: bytes) -> None:
    """Decodes a JPEG once more, at an eighth of its size, for what libjpeg remarks on it.

    Raises:
        ValueError: data are lost in it.
    """
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        simplejpeg.decode_jpeg(
            data, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY", min_factor=8
        )
    except ValueError as error:
        if str(error).startswith(_LOST_DATA):
            raise ValueError(f"the file is damaged ({error})") from error


def check_png(data: bytes) -> None:
    """Compares the checksums of the chunks that a picture needs, up to its last chunk.

    Raises:
        ValueError: one does not match, or the last chunk is not there.
    """
    start, kind = _PNG_SIGNATURE, b""
    while kind != b"IEND":
        head = data[start : start + 8]
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        end = start + 8 + length
        if not kind or end + 4 > len(data):
            raise ValueError("the file is cut off: its last chunk is missing")
        if kind[:1].isupper() and zlib.crc32(data[start + 4 : end]) != int.from_bytes(
            data[end : end + 4], "big"
        ):
            name = kind.decode("ascii", "replace")
            raise ValueError(f"the file is damaged (the checksum of a chunk {name} does not match)")
        start = end + 4


def check_tiff(data: bytes, tags: Mapping[int, object]) -> None:
    """Compares the checksums of the strips or tiles of a deflated TIFF; of another, their ends.

    Args:
        data: of the file.
        tags: of its first page.

    Raises:
        ValueError: one does not match, or lies beyond the end of the file.
    """
    for offsets, lengths in _PIECES:
        for start, length in zip(_numbers(tags, offsets), _numbers(tags, lengths), strict=False):
            if start + length > len(data):
                raise ValueError("the file is cut off: a part of the picture lies beyond its end")
            if tags.get(_COMPRESSION) in _DEFLATE:
                try:
                    zlib.decompress(data[start : start + length])
                except zlib.error as error:
                    raise ValueError(f"the file is damaged ({error})") from error


def _numbers(tags: Mapping[int, object], tag: int) -> list[int]:
    value = tags.get(tag, ())
    numbers = value if isinstance(value, Sequence) else [value]
    return [number for number in numbers if isinstance(number, int)]
