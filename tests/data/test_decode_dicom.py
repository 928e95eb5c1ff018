"""Radiographs in DICOM files."""

import io
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from cxrtut.data.decode import ImageError, decode_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
NOISE = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)


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


def test_a_window_left_empty_is_none_and_an_unknown_function_is_named(tmp_path):
    deep = np.array([[1000, 1051], [1102, 1255]], np.uint16)
    empty = dicom(tmp_path, deep, WindowCenter=None, WindowWidth=None, VOILUTFunction=None)
    assert decode_image(empty).tolist() == [[0, 51], [102, 255]]
    window = {"WindowCenter": 1100, "WindowWidth": 101}
    nameless = dicom(tmp_path, deep, VOILUTFunction=None, **window)
    assert decode_image(nameless).tolist() == [[0, 4], [134, 255]]
    with pytest.raises(ImageError, match=r"image\.dcm: .*VOI LUT Function value 'CURVED'"):
        decode_image(dicom(tmp_path, deep, VOILUTFunction="CURVED", **window))


DEEP_DICOM = np.array([[1000, 1051], [1102, 1255]], np.uint16)


@pytest.mark.parametrize("empty", [None, "", []])
def test_an_element_without_a_value_is_one_that_is_not_there(tmp_path, empty):
    numbers = ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")
    names = (*numbers, "VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit")
    for name in (*names, "VOILUTSequence", "ModalityLUTSequence"):
        value = [] if name.endswith("Sequence") else empty
        path = dicom(tmp_path, DEEP_DICOM, **{name: value})
        assert decode_image(path).tolist() == [[0, 51], [102, 255]], name
    with pytest.raises(ImageError, match=r"Interpretation: expected MONOCHROME1 .*, got none"):
        decode_image(dicom(tmp_path, DEEP_DICOM, PhotometricInterpretation=empty))


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"WindowWidth": 0}, "WindowWidth: expected 1 or more for LINEAR, got 0"),
        ({"WindowWidth": 0.5}, "WindowWidth: expected 1 or more for LINEAR, got 0.5"),
        ({"WindowWidth": -4096}, "WindowWidth: expected 1 or more for LINEAR, got -4096"),
        (
            {"WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
            "WindowWidth: expected more than 0 for LINEAR_EXACT, got 0",
        ),
        (
            {"WindowWidth": -1, "VOILUTFunction": "SIGMOID"},
            "WindowWidth: expected more than 0 for SIGMOID, got -1",
        ),
        ({"RescaleSlope": 0}, "RescaleSlope: expected a number other than 0, got 0"),
    ],
)
def test_an_absurd_window_or_slope_is_named_with_its_value(tmp_path, elements, words):
    window = {"WindowCenter": 1100, "WindowWidth": 101}
    with pytest.raises(ImageError, match=rf"image\.dcm: {words}"):
        decode_image(dicom(tmp_path, DEEP_DICOM, **window | elements))


@pytest.mark.parametrize("name", ["WindowCenter", "WindowWidth", "RescaleSlope"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_a_number_that_is_none_is_named(tmp_path, name):
    path = dicom(tmp_path, DEEP_DICOM, **{"WindowCenter": 1, "WindowWidth": 2, name: 7654})
    whole = path.read_bytes()
    for text in (b"nan ", b"inf ", b"wide"):
        path.write_bytes(whole.replace(b"7654", text))
        with pytest.raises(ImageError, match=rf"image\.dcm: {name}: .*{text.decode().strip()}"):
            decode_image(path)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "elements"),
    [
        (np.uint16, {"PixelPaddingValue": 65535}),
        (np.int16, {"PixelPaddingValue": -32768}),
        (np.uint16, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 65000}),
        (np.uint16, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 999}),
        (np.uint16, {"PixelPaddingValue": 65535, "RescaleSlope": 2, "RescaleIntercept": -100}),
        (np.uint16, {"PixelPaddingValue": 0, "WindowCenter": 1128, "WindowWidth": 256}),
    ],
)
def test_padding_is_black_and_does_not_count_for_the_range(tmp_path, dtype, elements, photometric):
    ramp = np.arange(1000, 1256).reshape(16, 16).astype(dtype)
    pixels = np.hstack([ramp, ramp])
    pixels[:, 16:] = elements["PixelPaddingValue"]
    pixels[0, 17] = elements.get("PixelPaddingRangeLimit", elements["PixelPaddingValue"])
    found = decode_image(
        dicom(
            tmp_path, pixels, PhotometricInterpretation=photometric,
            PixelRepresentation=int(dtype is np.int16), **elements,
        )
    )  # fmt: skip
    picture = RAMP if photometric == "MONOCHROME2" else 255 - RAMP
    assert np.array_equal(found[:, :16], picture) and not found[:, 16:].any()


def test_an_image_of_padding_alone_is_black(tmp_path):
    pixels = np.full((4, 4), 9, np.uint16)
    path = dicom(tmp_path, pixels, PixelPaddingValue=9, PhotometricInterpretation="MONOCHROME1")
    assert not decode_image(path).any()


def test_a_table_is_applied_over_the_picture_and_not_over_padding(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra `dicom`")
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = (
        [4, 10, 16],
        np.array([0, 100, 200, 255], np.uint16).tobytes(),
    )
    pixels = np.array([[10, 11, 12, 13, 500]], np.uint16)
    path = dicom(tmp_path, pixels, VOILUTSequence=[table], PixelPaddingValue=500)
    assert decode_image(path).tolist() == [[0, 100, 200, 255, 0]]


def test_a_falling_rescale_slope_turns_eight_bits_too(tmp_path):
    path = dicom(tmp_path, RAMP, RescaleSlope=-1, RescaleIntercept=255)
    assert np.array_equal(decode_image(path), 255 - RAMP)


def test_damage_inside_a_jpeg_inside_a_dicom_is_noticed(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra `dicom`")
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", quality=90)
    whole = buffer.getvalue()
    for data in (whole, whole[: len(whole) // 2] + b"\xff\xd9"):
        path = dicom(tmp_path, NOISE)
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        dataset.PixelData = pydicom.encaps.encapsulate([data])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
        if data == whole:
            assert np.array_equal(decode_image(path), np.asarray(Image.open(buffer)))
            continue
        with pytest.raises(ImageError, match=r"image\.dcm: the file is damaged"):
            decode_image(path)


def test_decoding_in_threads_changes_no_setting_of_the_process(tmp_path):
    path = dicom(tmp_path, np.tile(DEEP_DICOM, (128, 128)))
    before = list(warnings.filters)
    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(decode_image, [path] * 20))
    assert warnings.filters == before


def test_a_deep_dicom_without_a_window_is_scaled_from_its_own_range(tmp_path):
    deep = np.array([[1000, 1051], [1102, 1255]], np.uint16)
    assert decode_image(dicom(tmp_path, deep)).tolist() == [[0, 51], [102, 255]]


def test_a_dicom_that_is_no_radiograph_or_broken_is_named(tmp_path):
    path = dicom(tmp_path, RAMP, PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(
        ImageError, match=r"Interpretation: expected MONOCHROME1 or MONOCHROME2, got PAL"
    ):
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


def test_the_inverted_real_dicom_is_the_inverse_of_the_other(real_data):
    pytest.importorskip("pydicom", reason="DICOM needs the extra `dicom`")
    folder = real_data / "fixtures_fullres"
    usual = decode_image(next(folder.glob("1.2.276*.dcm")))
    assert usual.shape == (1024, 1024) and usual.std() > 20
    assert np.array_equal(decode_image(folder / "Fake_MONOHR1.dcm"), 255 - usual)
