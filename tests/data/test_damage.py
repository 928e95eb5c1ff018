"""Damage of which Pillow says nothing."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxrtut.data.damage import check_jpeg, check_png, check_tiff
from cxrtut.data.decode import ImageError, decode_image

Y, X = np.mgrid[:256, :256]
NOISE = np.random.default_rng(0).normal(0, 6, Y.shape)
PICTURE = (128 + 60 * np.sin(X / 30) + 50 * np.cos(Y / 21) + NOISE).astype(np.uint8)


def written(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, kind, **options)
    return buffer.getvalue()


def places(data, n=25):
    """Somewhere behind the header, the same in every run."""
    return np.random.default_rng(1).integers(700, len(data) - 100, n).tolist()


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {"compression": "tiff_adobe_deflate"})]
)
@pytest.mark.parametrize("zeros", [1, 64, 4096])
def test_no_block_of_zeros_goes_unnoticed_where_there_are_checksums(tmp_path, kind, options, zeros):
    data = written(kind, **options)
    path = tmp_path / "film"
    path.write_bytes(data)
    assert np.array_equal(decode_image(path), PICTURE)
    for at in places(data):
        damaged = data[:at] + bytes(min(zeros, len(data) - at)) + data[at + zeros :]
        path.write_bytes(damaged)
        if damaged == data:
            continue
        try:
            found = decode_image(path)
        except (ImageError, UserWarning):
            continue
        assert np.array_equal(found, PICTURE)  # the damage was in what nobody needs


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 64}, {"quality": 30}])
@pytest.mark.parametrize("zeros", [64, 512])
def test_no_block_of_zeros_in_a_baseline_jpeg_goes_unnoticed(options, zeros):
    data = written("JPEG", **options)
    check_jpeg(data)
    for at in places(data):
        with pytest.raises(ValueError, match=r"damaged \("):
            check_jpeg(data[:at] + bytes(zeros) + data[at + zeros :])


def test_a_remark_on_a_jpeg_that_is_no_loss_is_passed_over():
    check_jpeg(b"no JPEG at all, which Pillow has told by now")


def test_a_png_without_its_last_chunk_was_cut_off():
    data = written("PNG")
    check_png(data + b"what others append")
    for end in (1, 4, 12, 13, 500, len(data) - 8):
        with pytest.raises(ValueError, match="cut off: its last chunk is missing"):
            check_png(data[:-end])


def test_the_checksum_of_a_remark_does_not_matter_and_that_of_pixels_does():
    data = written("PNG")
    end = data.index(b"IDAT") - 4
    text = struct.pack(">I", 4) + b"tEXt" + b"a\0bc" + b"none"
    check_png(data[:end] + text + data[end:])
    damaged = bytearray(data)
    damaged[end + 20] ^= 1
    with pytest.raises(ValueError, match="checksum of a chunk IDAT does not match"):
        check_png(bytes(damaged))


def test_strips_of_a_tiff_end_within_the_file_and_match_their_checksums():
    strip = zlib.compress(b"pixels" * 20)
    tags = {259: 8, 273: (4, 4 + len(strip)), 279: (len(strip), len(strip))}
    data = b"head" + strip + strip
    check_tiff(data, tags)
    check_tiff(data, tags | {259: 1, 273: 4, 279: len(strip)})
    with pytest.raises(ValueError, match="cut off: a part of the picture lies beyond"):
        check_tiff(data[:-1], tags)
    with pytest.raises(ValueError, match="the file is damaged"):
        check_tiff(data[:-1] + b"x", tags)
