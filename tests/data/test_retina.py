import csv

import numpy as np
import pytest
from PIL import Image

from cxrtut.data import retina
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import ArrayStore

TRAIN, TEST = "a. Training Set", "b. Testing Set"


def eye(height=100, width=200):
    """A bright disc of radius 45 in the middle of a dark frame."""
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < 45**2
    return np.where(disc[..., None], np.array([180, 90, 40]), 3).astype(np.uint8)


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def idrid(tmp_path):
    """Two eyes in the official layout; the first has microaneurysms, the second no lesion."""
    folder = tmp_path / "A. Segmentation"
    originals, truths = folder / "1. Original Images", folder / "2. All Segmentation Groundtruths"
    save(eye(), originals / TRAIN / "IDRiD_01.png")
    save(eye(), originals / TEST / "IDRiD_55.png")
    mask = np.zeros((100, 200), np.uint8)
    mask[30, 80] = mask[60:70, 110:130] = 1
    save(mask, truths / TRAIN / "1. Microaneurysms" / "IDRiD_01_MA.tif")
    save(mask * 0, truths / TRAIN / "4. Soft Exudates" / "IDRiD_01_SE.tif")
    for part, name in ((TRAIN, "IDRiD_01_OD.tif"), (TEST, "IDRiD_55_OD.tif")):
        save(mask, truths / part / "5. Optic Disc" / name)
    return folder


def test_the_field_of_view_is_the_eye_without_the_dark_border():
    rows, columns = retina.field_of_view(eye())
    assert (rows.start, rows.stop, columns.start, columns.stop) == (5, 95, 55, 145)
    dark = np.zeros((5, 7, 3), np.uint8)
    assert dark[retina.field_of_view(dark)].shape == (5, 7, 3)


def test_idrid_becomes_a_store_of_images_and_masks(idrid, tmp_path):
    report = retina.prepare_idrid([idrid], tmp_path / "store", size=90)
    assert report.images == 2 and not report.broken
    store = ArrayStore.open(tmp_path / "store", verify="full")
    assert store.classes == ("Microaneurysms", "Haemorrhages", "Hard Exudates", "Soft Exudates")
    assert store.labels.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert store.table["split"].tolist() == ["train", "test"]
    assert store.images[0, :, 45, 45].tolist() == [180, 90, 40]  # red, green, blue
    mask = store.batch(np.array([0, 1])).mask
    assert mask[0, 0, 25, 25] and mask[0, 0].sum() == 201  # the crop starts at (5, 55)
    assert not mask[0, 1:].any() and not mask[1].any()


def test_of_several_sizes_the_largest_is_taken_with_its_masks(idrid, tmp_path):
    save(eye()[::2, ::2], idrid / "small" / "IDRiD_01.png")
    save(np.ones((50, 100), np.uint8), idrid / "small" / "MA" / "IDRiD_01.png")
    files = retina.IdridFiles.find([idrid])
    image, masks = files.eyes["IDRiD_01"]
    assert "Original" in str(image) and set(masks) == {"MA", "SE"}
    assert "Microaneurysms" in str(masks["MA"])
    assert files.warnings == ("1 images are there in several sizes; the largest is taken",)


def test_masks_of_another_size_and_empty_folders_are_named(idrid, tmp_path):
    save(np.ones((50, 100), np.uint8), idrid / "HE" / "IDRiD_01.png")
    with pytest.raises(SourceError, match=r"expected a mask of \(200, 100\) pixels"):
        retina.IdridFiles.find([idrid])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="expected IDRiD_"):
        retina.IdridFiles.find([tmp_path / "empty"])


def test_broken_images_and_masks_are_listed_and_the_others_prepared(idrid, tmp_path):
    truths = idrid / "2. All Segmentation Groundtruths" / TRAIN
    (truths / "1. Microaneurysms" / "IDRiD_01_MA.tif").write_bytes(b"torn")
    (idrid / "1. Original Images" / TRAIN / "IDRiD_02.jpg").touch()
    save(np.ones((100, 200), np.uint8), truths / "2. Haemorrhages" / "IDRiD_02_HE.tif")
    save(eye(), idrid / "1. Original Images" / TRAIN / "IDRiD_03.png")
    save(np.ones((100, 200), np.uint8), truths / "2. Haemorrhages" / "IDRiD_03_HE.png")
    whole = (truths / "2. Haemorrhages" / "IDRiD_03_HE.png").read_bytes()
    (truths / "2. Haemorrhages" / "IDRiD_03_HE.png").write_bytes(whole[:-30])
    report = retina.prepare_idrid([idrid], tmp_path / "store", size=32)
    assert report.images == 1 and len(report.broken) == 3
    for name, said in zip(
        ("IDRiD_01_MA.tif", "IDRiD_02.jpg: the file is empty", "IDRiD_03_HE.png"),
        report.broken,
        strict=True,
    ):
        assert name in said
    assert ArrayStore.open(tmp_path / "store").table["name"].tolist() == ["IDRiD_55"]


def test_what_is_prepared_already_is_not_decoded_again_and_each_mask_once(
    idrid, tmp_path, monkeypatch
):
    decoded = []

    def counted(path):
        decoded.append(path.name)
        return decode_mask(path)

    decode_mask = retina.decode_mask
    monkeypatch.setattr(retina, "decode_mask", counted)
    retina.prepare_idrid([idrid], tmp_path / "store", size=32)
    assert sorted(decoded) == ["IDRiD_01_MA.tif", "IDRiD_01_SE.tif"]
    assert retina.prepare_idrid([idrid], tmp_path / "store", size=32).already_prepared
    assert len(decoded) == 2
    with pytest.raises(SourceError, match="expected a folder, got nothing"):
        retina.IdridFiles.find([tmp_path / "nowhere"])


def test_an_image_without_any_mask_is_left_out_and_not_taken_for_a_healthy_eye(idrid, tmp_path):
    grading = tmp_path / "B. Disease Grading" / "1. Original Images"
    for i, (part, name) in enumerate(((TRAIN, "001"), (TEST, "001"), (TRAIN, "002"))):
        save(eye() + np.uint8(i), grading / part / f"IDRiD_{name}.jpg")
    report = retina.prepare_idrid([tmp_path], tmp_path / "store", size=32)
    store = ArrayStore.open(tmp_path / "store")
    assert store.table["name"].tolist() == ["IDRiD_01", "IDRiD_55"]
    assert report.warnings == (
        "2 images are left out, because they have no mask file (first IDRiD_001)",
    )
    with pytest.raises(SourceError, match=r"expected masks IDRiD_\*_MA\.tif, found none"):
        retina.prepare_idrid([grading], tmp_path / "other", size=32)


def test_two_different_photographs_of_one_name_are_refused_and_copies_are_counted(idrid):
    image = idrid / "1. Original Images" / TRAIN / "IDRiD_01.png"
    (idrid / "copy").mkdir()
    (idrid / "copy" / "IDRiD_01.png").write_bytes(image.read_bytes())
    files = retina.IdridFiles.find([idrid])
    assert files.warnings[0].startswith("1 images are there more than once, as equal copies")
    save(eye() + np.uint8(1), idrid / "copy" / "IDRiD_01.png")
    with pytest.raises(SourceError, match=r"IDRiD_01: expected one file .*, which differ"):
        retina.IdridFiles.find([idrid])


def test_two_different_masks_of_one_lesion_are_refused(idrid):
    save(np.ones((100, 200), np.uint8), idrid / "reader 2" / "IDRiD_01_MA.png")
    with pytest.raises(SourceError, match=r"IDRiD_01_MA: expected one file .*, which differ"):
        retina.IdridFiles.find([idrid])


@pytest.mark.parametrize("name", ["{}_he.TIF", "HE/{}.png", "2. Haemorrhages/{}.tif"])
def test_a_mask_is_known_by_its_name_or_its_folder(idrid, name):
    path = idrid / "more" / name.format("idrid_01")
    path.parent.mkdir(parents=True)
    Image.fromarray(np.ones((100, 200), np.uint8)).save(path)
    assert retina.IdridFiles.find([idrid]).eyes["IDRiD_01"][1]["HE"] == path


def test_a_mask_has_the_size_of_its_image_when_that_is_upright(idrid):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(eye()).save(idrid / "IDRiD_03.jpg", exif=exif)
    save(np.ones((200, 100), np.uint8), idrid / "IDRiD_03_MA.tif")
    assert set(retina.IdridFiles.find([idrid]).eyes["IDRiD_03"][1]) == {"MA"}
    save(np.ones((100, 200), np.uint8), idrid / "IDRiD_03_MA.tif")
    with pytest.raises(SourceError, match=r"expected a mask of \(100, 200\) pixels"):
        retina.IdridFiles.find([idrid])


def test_a_mask_that_turns_out_to_be_of_another_size_is_broken(idrid, tmp_path, monkeypatch):
    save(np.ones((50, 60), np.uint8), idrid / "IDRiD_55_HE.tif")
    monkeypatch.setattr(retina, "_size_of", lambda path: (200, 100))
    report = retina.prepare_idrid([idrid], tmp_path / "store", size=32)
    [line] = report.broken
    assert "IDRiD_55_HE.tif: expected a mask of 100 x 200 pixels" in line
    assert line.endswith("got 50 x 60")


def test_an_image_whose_size_is_not_known_beforehand_keeps_its_lesions(
    idrid, tmp_path, monkeypatch
):
    size_of = retina._size_of
    monkeypatch.setattr(
        retina, "_size_of", lambda path: None if path.name == "IDRiD_01.png" else size_of(path)
    )
    retina.prepare_idrid([idrid], tmp_path / "store", size=32)
    assert ArrayStore.open(tmp_path / "store").labels.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_what_is_a_link_to_nothing_is_a_missing_image_and_no_absent_lesion(idrid, tmp_path):
    image = idrid / "1. Original Images" / TEST / "IDRiD_55.png"
    image.unlink()
    image.symlink_to(tmp_path / "nowhere.png")
    save(eye(), idrid / "1. Original Images" / TRAIN / "IDRiD_03.png")
    save(np.ones((100, 200), np.uint8), idrid / "IDRiD_03_OD.tif")
    (idrid / "IDRiD_03_MA.tif").symlink_to(tmp_path / "nowhere.tif")
    report = retina.prepare_idrid([idrid], tmp_path / "store", size=32)
    assert ArrayStore.open(tmp_path / "store").table["name"].tolist() == ["IDRiD_01"]
    assert report.missing == ("IDRiD_03", "IDRiD_55") and not report.broken


def test_test_images_stay_test_images_behind_a_link_of_another_name(idrid, tmp_path):
    originals = idrid / "1. Original Images"
    (originals / TEST).rename(tmp_path / TEST)
    (originals / "later").symlink_to(tmp_path / TEST)
    retina.prepare_idrid([idrid], tmp_path / "store", size=32)
    assert ArrayStore.open(tmp_path / "store").table["split"].tolist() == ["train", "test"]


def test_kaggle_images_become_a_store_with_grades(tmp_path):
    folder = tmp_path / "dr"
    for name in ("10_left", "10_right", "13_left"):
        save(eye(), folder / "train" / f"{name}.jpeg")
    (folder / "trainLabels.csv").write_text(
        "image,level\n10_left,0\n10_right,3\n13_left,1\n15_left,0\n"
    )
    report = retina.prepare_kaggle([folder], tmp_path / "store", size=32)
    assert (report.images, report.missing) == (3, ("15_left",))
    store = ArrayStore.open(tmp_path / "store")
    assert store.labels.tolist() == [[0], [1], [1]]
    assert store.table["level"].tolist() == ["0", "3", "1"]
    assert store.table["patient"].tolist() == ["10", "10", "13"]
    assert store.table["split"][0] == store.table["split"][1]
    (folder / "trainLabels.csv").write_text("image,level\n10_left,5\n")
    with pytest.raises(SourceError, match=r"line 2: expected level 0 \.\.\. 4, got 5"):
        retina.prepare_kaggle([folder], tmp_path / "store")
    (folder / "trainLabels.csv").unlink()
    with pytest.raises(SourceError, match=r"expected trainLabels\.csv"):
        retina.prepare_kaggle([folder], tmp_path / "store")


def test_the_real_eyes_become_a_store(real_data, tmp_path):
    report = retina.prepare_idrid([real_data / "idrid"], tmp_path / "store", size=256)
    assert report.images == 14 and not report.broken
    store = ArrayStore.open(tmp_path / "store", verify="full")
    with open(real_data / "idrid" / "labels.csv", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    for name, labels in zip(store.table["name"], store.labels, strict=True):
        expected = [int(rows[name][f"px_{code}"]) > 0 for code in retina.LESIONS]
        assert labels.tolist() == expected, name
    mask = store.batch(np.arange(14)).mask
    assert np.array_equal(mask.flatten(2).any(dim=2).numpy(), store.labels == 1)
    assert (store.images > 30).mean() > 0.3
