import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cxrtut.data.decode import (
    Frame,
    ImageError,
    channels_first,
    decode_image,
    decode_mask,
    fit_mask,
    fit_square,
)

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(tmp_path, array, name="image.png", **options):
    path = tmp_path / name
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def test_grey_comes_back_level_by_level(tmp_path):
    assert np.array_equal(decode_image(saved(tmp_path, RAMP)), RAMP)
    assert np.array_equal(decode_image(saved(tmp_path, RAMP), channels=3), np.dstack([RAMP] * 3))


def test_a_jpeg_is_close_to_what_was_saved(tmp_path):
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None], 64, axis=0)
    path = saved(tmp_path, smooth, "image.jpg", quality=95)
    assert np.abs(decode_image(path).astype(int) - smooth).max() <= 4


def test_equal_colours_with_an_alpha_channel_are_the_red_channel(tmp_path):
    alpha = np.full_like(RAMP, 255)
    alpha[0] = 3
    path = saved(tmp_path, np.dstack([RAMP, RAMP, RAMP, alpha]))
    assert np.array_equal(decode_image(path), RAMP)
    assert np.array_equal(decode_image(path, channels=3)[..., 2], RAMP)


def test_colour_becomes_grey_by_its_luma(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert (decode_image(saved(tmp_path, red)) == 60).all()  # 0.299 * 200
    assert np.array_equal(decode_image(saved(tmp_path, red), channels=3), red)


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None).convert("P")
    image.putpalette([10, 10, 10, 90, 90, 90, 250, 250, 250])
    assert decode_image(saved(tmp_path, image)).tolist() == [[10, 90], [250, 90]]
    assert decode_mask(saved(tmp_path, image)).tolist() == [[False, True], [True, True]]


def test_sixteen_bits_are_scaled_from_their_own_range(tmp_path):
    deep = np.array([[1000, 1000 + 51], [1000 + 102, 1255]], np.uint16)
    assert decode_image(saved(tmp_path, deep)).tolist() == [[0, 51], [102, 255]]
    assert decode_image(saved(tmp_path, deep), channels=3).shape == (2, 2, 3)


def test_a_deep_image_of_one_value_is_black(tmp_path):
    assert not decode_image(saved(tmp_path, np.full((3, 3), 700, np.uint16))).any()


NOISE = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
FORMATS = {
    "png": {}, "jpg": {"quality": 90}, "bmp": {}, "tif": {"compression": "tiff_adobe_deflate"},
    "progressive.jpg": {"quality": 90, "progressive": True},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.98])
def test_a_truncated_image_file_is_named(tmp_path, name, kept):
    path = saved(tmp_path, NOISE, f"broken.{name}", **FORMATS[name])
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ImageError, match=r"broken\..*: .*\w"):
        decode_image(path)


DAMAGE = {
    "the end alone": lambda data, half: data[:half] + data[-2:],
    "zeros to the end": lambda data, half: data[:half] + bytes(len(data) - half),
    "zeros inside": lambda data, half: data[:half] + bytes(half // 2) + data[half + half // 2 :],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["png", "jpg", "tif", "progressive.jpg"])
def test_damage_inside_a_file_with_a_whole_end_is_noticed(tmp_path, name, damage):
    path = saved(tmp_path, NOISE, f"damaged.{name}", **FORMATS[name])
    data = path.read_bytes()
    path.write_bytes(DAMAGE[damage](data, len(data) // 2))
    with pytest.raises(ImageError, match=r"damaged\..*: .*\w"):
        decode_image(path)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_the_check_of_jpeg_data_knows_colours_and_says_that_the_file_is_damaged(tmp_path, mode):
    path = saved(tmp_path, Image.fromarray(np.dstack([NOISE] * 3)).convert(mode), "colour.jpg")
    assert decode_image(path).shape == (128, 128)
    data = path.read_bytes()
    path.write_bytes(data + b"what a camera leaves behind the picture")
    assert decode_image(path).shape == (128, 128)
    path.write_bytes(data[: len(data) // 2] + data[-2:])
    with pytest.raises(ImageError, match=r"colour.jpg: the file is damaged \(Corrupt JPEG data"):
        decode_image(path)


def test_an_empty_a_missing_and_a_foreign_file_are_named_with_the_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image at all")
    for name, reason in (
        ("empty.png", "the file is empty"),
        ("text.png", "cannot identify the format"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(ImageError, match=f"{name}: {reason}"):
            decode_image(tmp_path / name)


def tiff(pixels, photometric, orientation=1, sample_format=1):
    """The bytes of an uncompressed TIFF, with the tags that nobody else writes."""
    (height, width), channels = pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1
    data, bits = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(), 8 * pixels.itemsize
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 274: orientation,
            277: channels, 278: height, 279: len(data), 339: sample_format}  # fmt: skip
    many = 8 + len(data) + 2 + 12 * len(tags) + 4  # where the bits of several channels are
    entries = b"".join(
        struct.pack("<HHII", tag, 3, 3, many)
        if tag == 258 and channels == 3
        else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    )
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    table = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return head + data + table + struct.pack("<HHH", bits, bits, bits)


DEEP = np.array([[0, 1000, 2000], [3000, 4000, 4080]], np.uint16)  # 12 of 16 bits
SHOWN = np.array([[0, 62, 125], [188, 250, 255]])  # DEEP / 4080 * 255


@pytest.mark.parametrize("name", ["colour.png", "alpha.png", "colour.tif"])
def test_colours_of_sixteen_bits_are_not_cut_to_their_upper_eight(tmp_path, name):
    path = tmp_path / name
    opaque = np.full_like(DEEP, 65535)
    cv2.imwrite(str(path), np.dstack([DEEP, DEEP, DEEP, *([opaque] * name.startswith("alpha"))]))
    assert np.abs(decode_image(path) - SHOWN).max() <= 1
    assert np.abs(decode_image(path, channels=3) - SHOWN[..., None]).max() <= 1
    assert decode_mask(path).tolist() == [[False, True, True], [True, True, True]]
    red = np.zeros((2, 3, 3), np.uint16)
    red[..., 2] = DEEP  # OpenCV has blue first
    cv2.imwrite(str(path), red)
    assert np.abs(decode_image(path, channels=3)[..., 0] - SHOWN).max() <= 1
    assert not decode_image(path, channels=3)[..., 1:].any()
    assert np.abs(decode_image(path) - SHOWN).max() <= 1  # a grey level of 0.299 red, scaled


def test_grey_of_sixteen_bits_with_transparency_keeps_its_bits(tmp_path):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = [b"\0" + np.stack([row, 0 * row + 65535], 1).astype(">u2").tobytes() for row in DEEP]
    header = struct.pack(">IIBBBBB", 3, 2, 16, 4, 0, 0, 0)
    path = tmp_path / "la.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    )  # fmt: skip
    assert np.abs(decode_image(path) - SHOWN).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "sample_format", "factor"),
    [(np.uint16, 1, 10), (np.uint32, 1, 1_000_000), (np.int32, 2, 100_000), (np.float32, 3, 0.001)],
)
def test_a_tiff_of_many_bits_is_scaled_whatever_their_type_and_turned_where_low_is_white(
    tmp_path, dtype, sample_format, factor
):
    values = (DEEP * float(factor)).astype(dtype)
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff(values, 1, sample_format=sample_format))
    assert np.abs(decode_image(path) - SHOWN).max() <= 1
    if dtype in (np.uint16, np.float32):  # Pillow knows no other
        path.write_bytes(tiff(values, 0, sample_format=sample_format))
        assert np.abs(decode_image(path) - (255 - SHOWN)).max() <= 1


def test_one_bit_and_inks_become_grey_and_masks(tmp_path):
    black_and_white = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    for mode, name in (
        ("1", "a.png"), ("1", "a.tif"), ("CMYK", "a.tif"), ("YCbCr", "a.tif"), ("LA", "a.png"),
        ("RGBA", "a.png"),
    ):  # fmt: skip
        path = saved(tmp_path, Image.fromarray(black_and_white).convert("RGB").convert(mode), name)
        assert np.array_equal(decode_image(path), black_and_white), mode
        assert np.array_equal(decode_mask(path), black_and_white > 0), mode


def test_lab_colours_become_grey(tmp_path):
    path = saved(tmp_path, Image.new("LAB", (3, 3), (0, 128, 128)), "lab.tif")
    assert not decode_image(path).any()
    assert decode_image(path, channels=3).shape == (3, 3, 3)


# As EXIF defines them: where the first row and the first column of the stored pixels are shown.
ORIENTATIONS = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.T,
    6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).T, 8: lambda x: np.rot90(x),
}  # fmt: skip
BLOCKS = np.kron(np.array([[0, 90, 250], [160, 90, 90]], np.uint8), np.ones((16, 16), np.uint8))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_image_and_its_mask_are_upright_as_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = ORIENTATIONS[orientation](BLOCKS)
    for name, options in (("a.png", {}), ("a.jpg", {"quality": 100}), ("a.tif", {})):
        path = saved(tmp_path, BLOCKS, name, exif=exif, **options)
        assert decode_image(path).shape == decode_mask(path).shape == shown.shape
        assert np.abs(decode_image(path).astype(int) - shown).max() <= 2
        assert np.array_equal(decode_mask(path), shown > (127 if name == "a.jpg" else 0))
        assert decode_image(path, channels=3).shape == (*shown.shape, 3)
    path = tmp_path / "deep.tif"
    grey = BLOCKS.astype(np.uint16)
    for pixels, photometric in ((grey, 1), (np.dstack([grey] * 3), 2)):
        path.write_bytes(tiff(pixels, photometric, orientation))
        found = decode_image(path)
        assert found.shape == shown.shape and np.array_equal(found == 255, shown == 250)


def test_an_orientation_that_cannot_be_read_is_none(tmp_path):
    path = saved(tmp_path, RAMP, "a.png", exif=b"Exif\0\0nothing of the kind")
    assert np.array_equal(decode_image(path), RAMP)


def test_a_jpeg_mask_is_cut_at_half_and_any_other_at_zero(tmp_path):
    blocks = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((16, 16), np.uint8))
    assert np.array_equal(decode_mask(saved(tmp_path, blocks, "mask.jpg")), blocks > 0)
    faint = np.array([[0, 1]], np.uint8)
    assert decode_mask(saved(tmp_path, faint, "mask.tif")).tolist() == [[False, True]]
    colour = np.zeros((1, 2, 3), np.uint8)
    colour[0, 1, 2] = 9
    assert decode_mask(saved(tmp_path, colour)).tolist() == [[False, True]]


def test_shrinking_averages_areas():
    image = np.array([[0, 100, 10, 10], [100, 200, 10, 10]] * 2, np.uint8)
    small, frame = fit_square(image, 2)
    assert small.tolist() == [[100, 10], [100, 10]]
    assert frame.scale == 0.5


def test_an_image_that_fits_is_not_touched():
    assert np.array_equal(fit_square(RAMP, 16)[0], RAMP)


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (30, 30), (7, 40), (41, 23)])
def test_an_oblong_image_is_padded_and_its_boxes_follow(height, width):
    image = np.zeros((height, width), np.uint8)
    image[2:5, 4:10] = 255
    square, frame = fit_square(np.repeat(np.repeat(image, 8, 0), 8, 1), 160)
    box = frame.boxes([(4 * 8, 2 * 8, 10 * 8, 5 * 8)])[0]
    ys, xs = np.nonzero(square > 127)
    seen = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert np.abs(box - seen).max() <= 1
    whole = frame.boxes([(0, 0, width * 8, height * 8)])[0]
    assert abs((whole[0] + whole[2]) - 160) <= 1 and abs((whole[1] + whole[3]) - 160) <= 1


def test_boxes_are_clipped_to_the_picture_and_none_stay_none():
    frame = Frame(20, 40, 40)
    assert frame.boxes([(-5, -5, 50, 50)]).tolist() == [[0, 10, 40, 30]]
    assert frame.boxes([]).shape == (0, 4)


def test_a_colour_image_is_padded_in_every_channel():
    square, _ = fit_square(np.full((10, 20, 3), 9, np.uint8), 20)
    assert square.shape == (20, 20, 3) and square.sum() == 9 * 3 * 200
    assert channels_first(square).shape == (3, 20, 20) and channels_first(RAMP).shape == (1, 16, 16)


def test_a_lesion_of_one_pixel_survives_in_the_small_mask():
    mask = np.zeros((512, 1024), bool)
    mask[3, 1000] = True
    small = fit_mask(mask, 64)
    assert small.sum() == 1 and small[(256 + 3) // 16, 1000 // 16]
    assert not fit_mask(np.zeros((5, 5), bool), 64).any()


def test_full_size_originals_of_every_format_decode(real_data):
    folder = real_data / "fixtures_fullres"
    names = sorted(folder.glob("*.png"))
    assert len(names) == 9
    for path in names:
        image = decode_image(path)
        assert image.shape == (1024, 1024) and image.max() > 200
    with Image.open(folder / "00000004_000.png") as original:
        assert original.mode == "RGBA"
        red = np.asarray(original)[..., 0]
    assert np.array_equal(decode_image(folder / "00000004_000.png"), red)


def test_real_lesion_masks_have_the_published_numbers_of_pixels(real_data):
    folder = real_data / "fixtures_fullres"
    assert decode_mask(folder / "IDRiD_03_HE.tif").sum() == 162605
    assert decode_mask(folder / "IDRiD_03_EX.jpg").sum() == 301598


def test_a_float_image_with_nan_is_named(tmp_path):
    path = tmp_path / "holes.tif"
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(path)
    with pytest.raises(ImageError, match=r"holes\.tif: expected finite values"):
        decode_image(path)
