from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cxrtut.data import rsna
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import ArrayStore

HEADER = "patientId,x,y,width,height,Target"


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def release(tmp_path):
    """Three images, of which one is absent and one has two boxes."""
    folder = tmp_path / "rsna"
    (folder / "stage_2_train_images").mkdir(parents=True)
    write(
        folder / "stage_2_train_labels.csv",
        [HEADER, "aa,,,,,0", "bb,128,256,64,32,1", "bb,512,512,512,600,1", "cc,1,2,3,4,1"],
    )
    write(
        folder / "stage_2_detailed_class_info.csv",
        ["patientId,class", "aa,Normal", "bb,Lung Opacity", "bb,Lung Opacity", "cc,Lung Opacity"],
    )
    for name, level in (("aa", 10), ("bb", 20)):
        image = Image.fromarray(np.full((64, 64), level, np.uint8))
        image.save(folder / "stage_2_train_images" / f"{name}.png")
    return folder


def test_the_release_becomes_a_store(release, tmp_path):
    report = rsna.prepare(rsna.RsnaFiles.find([release]), tmp_path / "store", size=64)
    assert (report.images, report.missing) == (2, ("cc",))
    store = ArrayStore.open(tmp_path / "store", verify="full")
    assert store.labels.tolist() == [[0], [1]] and store.classes == ("Pneumonia",)
    assert store.table["reading"].tolist() == ["Normal", "Lung Opacity"]
    assert store.boxes.of(1)[0].tolist() == [[8, 16, 12, 18], [32, 32, 64, 64]]
    assert set(store.boxes.origin) == {"rsna_2018"} and len(store.boxes.of(0)[0]) == 0
    assert any("may be on both sides" in warning for warning in report.warnings)


def test_images_of_chestxray14_are_taken_under_their_own_names(release, tmp_path):
    match = release / "rsna_nih_match.csv"
    write(match, ["patientId,nih_image_index", "aa,00000012_003.png", "cc,00000013_000.png"])
    nih = tmp_path / "nih"
    nih.mkdir()
    for name, level in (("00000012_003", 70), ("00000013_000", 80), ("00000014_000", 90)):
        Image.fromarray(np.full((64, 64), level, np.uint8)).save(nih / f"{name}.png")
    report = rsna.prepare(rsna.RsnaFiles.find([release, nih]), tmp_path / "store", size=32)
    store = ArrayStore.open(tmp_path / "store")
    assert report.missing == () and store.table["name"].tolist() == ["aa", "bb", "cc"]
    assert store.images[:, 0, 0, 0].tolist() == [10, 20, 80]  # its own file before NIH's
    assert store.table["patient"].tolist() == ["12", "bb", "13"]
    assert store.boxes.of(2)[0].tolist() == [[1 / 32, 2 / 32, 4 / 32, 6 / 32]]


def test_without_a_match_table_they_are_not(release, tmp_path):
    Image.new("L", (64, 64)).save(release / "00000013_000.png")
    report = rsna.prepare(rsna.RsnaFiles.find([release]), tmp_path / "store", size=32)
    assert report.missing == ("cc",)


def test_with_a_match_table_the_patient_is_the_person(release, tmp_path):
    write(
        release / "rsna_nih_match.csv",
        ["patientId,nih_image_index", "aa,00000012_003.png", "bb,00000012_007.png"],
    )
    report = rsna.prepare(rsna.RsnaFiles.find([release]), tmp_path / "store", size=32)
    store = ArrayStore.open(tmp_path / "store")
    assert store.table["patient"].tolist() == ["12", "12"]
    assert len(set(store.table["split"])) == 1
    assert not any("both sides" in warning for warning in report.warnings)


def test_an_image_with_boxes_must_be_square(release, tmp_path):
    for name, size in (("aa", (40, 50)), ("bb", (64, 64))):
        image = Image.fromarray(np.full(size, 10, np.uint8))
        image.save(release / "stage_2_train_images" / f"{name}.png")
    assert rsna.prepare(rsna.RsnaFiles.find([release]), tmp_path / "store", size=64).images == 2
    image = Image.fromarray(np.full((40, 50), 10, np.uint8))
    image.save(release / "stage_2_train_images" / "bb.png")
    with pytest.raises(SourceError, match=r"bb\.png: .*expected a square file, got 40 x 50"):
        rsna.prepare(rsna.RsnaFiles.find([release]), tmp_path / "other", size=64)


def test_two_different_files_of_one_patient_are_refused_whatever_their_endings(release, tmp_path):
    Image.fromarray(np.full((8, 8), 1, np.uint8)).save(release / "aa.bmp")
    with pytest.raises(SourceError, match=r"aa: expected one file .*aa\.bmp and .*aa\.png"):
        rsna.prepare(rsna.RsnaFiles.find([release]), tmp_path / "store", size=64)


def test_the_official_class_table_is_read_before_a_reconstructed_one(release, tmp_path):
    rows = ["patientId,class", "aa,No Lung Opacity / Not Normal", "bb,Lung Opacity"]
    write(release / "stage_2_detailed_class_info_reconstructed.csv", rows)
    report = rsna.prepare(rsna.RsnaFiles.find([release]), tmp_path / "store", size=64)
    assert ArrayStore.open(tmp_path / "store").table["reading"][0] == "Normal"
    assert [path.name for path in report.tables] == [
        "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a,1,2,3,4,0"], "line 2: Target 0 does not go with box"),
        (["a,,,,,1"], "line 2: Target 1 does not go with box"),
        (["a,1,2,,4,1"], "line 2: Target 1 does not go with box"),
        (["a,,,,,0", "a,1,2,3,4,1"], "line 3: expected one Target, 0 or 1, for a"),
        (["a,,,,,2"], "line 2: expected one Target"),
        (["a,1,2,x,4,1"], "labels.csv, line 2: expected a number as width, got 'x'"),
        (["a,1,2,inf,4,1"], "line 2: expected a number as width, got 'inf'"),
        (["a,1,2,-3,4,1"], "line 2: expected a box with width and height > 0, got -3 x 4 for a"),
        (["a,1,1500,3,4,1"], "line 2: expected a box inside 1024 x 1024 pixels, got .* for a"),
    ],
)
def test_a_target_and_its_box_must_agree(tmp_path, lines, words):
    with pytest.raises(SourceError, match=words):
        rsna.read_labels(write(tmp_path / "labels.csv", [HEADER, *lines]))


def test_wrong_classes_and_missing_tables_are_named(tmp_path):
    classes = write(tmp_path / "classes.csv", ["patientId,class", "a,Sick"])
    with pytest.raises(SourceError, match=r"line 2: expected .*, got Sick"):
        rsna.read_detailed_classes(classes)
    write(classes, ["patientId,class", "a,Normal", "a,Lung Opacity"])
    with pytest.raises(SourceError, match="line 3: a has two classes"):
        rsna.read_detailed_classes(classes)
    with pytest.raises(SourceError, match=r"expected stage_2_train_labels\.csv, found none"):
        rsna.RsnaFiles.find([tmp_path])


def test_garbage_in_the_match_table_is_named(tmp_path):
    match = write(tmp_path / "match.csv", ["patientId,nih_image_index", "a,", "b,somebody_1.png"])
    with pytest.raises(SourceError, match=r"match\.csv, line 3: expected .*got 'somebody_1\.png'"):
        rsna.read_nih_names(match)


def test_the_official_tables_are_whole(real_data):
    folder = real_data / "nih_rsna_metadata"
    boxes = rsna.read_labels(folder / "stage_2_train_labels.csv.gz")
    assert len(boxes) == 26_684
    assert sum(max(1, len(found)) for found in boxes.values()) == 30_227
    readings = rsna.read_detailed_classes(
        folder / "stage_2_detailed_class_info_reconstructed.csv.gz"
    )
    assert Counter(readings.values()) == {
        "Normal": 8851,
        "No Lung Opacity / Not Normal": 11_821,
        "Lung Opacity": 6012,
    }
    assert {patient for patient, found in boxes.items() if found} == {
        patient for patient, reading in readings.items() if reading == "Lung Opacity"
    }
