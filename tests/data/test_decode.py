import sys

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


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_file_is_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = saved(tmp_path, noise, f"broken.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"broken\.{suffix}: .*\w"):
        decode_image(path)


def test_an_empty_a_missing_and_a_foreign_file_are_named_with_the_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image at all")
    for name, reason in (
        ("empty.png", "the file is empty"),
        ("text.png", "cannot identify"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(ImageError, match=f"{name}: {reason}"):
            decode_image(tmp_path / name)


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


def dicom(tmp_path, pixels, **elements):
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra `dicom`")
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    path = tmp_path / "image.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_an_eight_bit_dicom_without_a_window_is_what_it_is(tmp_path):
    assert np.array_equal(decode_image(dicom(tmp_path, RAMP // 2)), RAMP // 2)
    assert decode_image(dicom(tmp_path, RAMP), channels=3).shape == (16, 16, 3)


def test_monochrome1_is_inverted(tmp_path):
    path = dicom(tmp_path, RAMP, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(decode_image(path), 255 - RAMP)


def test_a_window_is_applied_after_the_rescale_slope(tmp_path):
    stored = np.array([[0, 100], [150, 300]], np.uint16)
    path = dicom(
        tmp_path,
        stored,
        RescaleSlope=2,
        RescaleIntercept=-100,
        WindowCenter=[150.5, 7],
        WindowWidth=[101, 9],
    )
    # values -100, 100, 200, 500; the window is 100 ... 200 (PS3.3 C.11.2.1.2.1)
    assert decode_image(path).tolist() == [[0, 0], [255, 255]]
    exact = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 200, "WindowWidth": 400}
    assert decode_image(dicom(tmp_path, stored, **exact)).tolist() == [[0, 64], [96, 191]]
    sigmoid = {"VOILUTFunction": "SIGMOID", "WindowCenter": 100, "WindowWidth": 200}
    assert decode_image(dicom(tmp_path, stored, **sigmoid)).tolist() == [[30, 128], [186, 250]]


def test_a_window_left_empty_is_none_and_an_impossible_one_is_named(tmp_path):
    deep = np.array([[1000, 1051], [1102, 1255]], np.uint16)
    empty = dicom(tmp_path, deep, WindowCenter=None, WindowWidth=None, VOILUTFunction=None)
    assert decode_image(empty).tolist() == [[0, 51], [102, 255]]
    window = {"WindowCenter": 1100, "WindowWidth": 101}
    nameless = dicom(tmp_path, deep, VOILUTFunction=None, **window)
    assert decode_image(nameless).tolist() == [[0, 4], [134, 255]]
    with pytest.raises(ImageError, match=r"image\.dcm: .*Window Width must be greater than"):
        decode_image(dicom(tmp_path, deep, **window | {"WindowWidth": 0}))
    with pytest.raises(ImageError, match=r"image\.dcm: .*VOI LUT Function value 'CURVED'"):
        decode_image(dicom(tmp_path, deep, VOILUTFunction="CURVED", **window))


def test_a_deep_dicom_without_a_window_is_scaled_from_its_own_range(tmp_path):
    deep = np.array([[1000, 1051], [1102, 1255]], np.uint16)
    assert decode_image(dicom(tmp_path, deep)).tolist() == [[0, 51], [102, 255]]


def test_a_dicom_that_is_no_radiograph_or_broken_is_named(tmp_path):
    path = dicom(tmp_path, RAMP, PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(ImageError, match=r"image\.dcm: expected MONOCHROME1 or"):
        decode_image(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match=r"image\.dcm: "):
        decode_image(path)
    path.write_text("nothing")
    with pytest.raises(ImageError, match=r"image\.dcm: "):
        decode_image(path)


def test_without_pydicom_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"image\.dcm: .*pip install 'cxrtut\[dicom\]'"):
        decode_image(tmp_path / "image.dcm")


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


def test_the_inverted_real_dicom_is_the_inverse_of_the_other(real_data):
    pytest.importorskip("pydicom", reason="DICOM needs the extra `dicom`")
    folder = real_data / "fixtures_fullres"
    usual = decode_image(next(folder.glob("1.2.276*.dcm")))
    assert usual.shape == (1024, 1024) and usual.std() > 20
    assert np.array_equal(decode_image(folder / "Fake_MONOHR1.dcm"), 255 - usual)


def test_real_lesion_masks_have_the_published_numbers_of_pixels(real_data):
    folder = real_data / "fixtures_fullres"
    assert decode_mask(folder / "IDRiD_03_HE.tif").sum() == 162605
    assert decode_mask(folder / "IDRiD_03_EX.jpg").sum() == 301598


def test_a_float_image_with_nan_is_named(tmp_path):
    path = tmp_path / "holes.tif"
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(path)
    with pytest.raises(ImageError, match=r"holes\.tif: expected finite values"):
        decode_image(path)
