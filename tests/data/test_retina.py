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
    """Two eyes in the official layout; the first has microaneurysms, the second nothing."""
    folder = tmp_path / "A. Segmentation"
    originals, truths = folder / "1. Original Images", folder / "2. All Segmentation Groundtruths"
    save(eye(), originals / TRAIN / "IDRiD_01.png")
    save(eye(), originals / TEST / "IDRiD_55.png")
    mask = np.zeros((100, 200), np.uint8)
    mask[30, 80] = mask[60:70, 110:130] = 1
    save(mask, truths / TRAIN / "1. Microaneurysms" / "IDRiD_01_MA.tif")
    save(mask * 0, truths / TRAIN / "4. Soft Exudates" / "IDRiD_01_SE.tif")
    save(mask, truths / TRAIN / "5. Optic Disc" / "IDRiD_01_OD.tif")
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
    image, masks = retina.find_idrid([idrid])["IDRiD_01"]
    assert "Original" in str(image) and set(masks) == {"MA", "SE"}
    assert "Microaneurysms" in str(masks["MA"])


def test_masks_of_another_size_and_empty_folders_are_named(idrid, tmp_path):
    save(np.ones((50, 100), np.uint8), idrid / "HE" / "IDRiD_01.png")
    with pytest.raises(SourceError, match=r"expected a mask of \(200, 100\) pixels"):
        retina.find_idrid([idrid])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="expected IDRiD_"):
        retina.find_idrid([tmp_path / "empty"])


def test_broken_images_and_masks_are_listed_and_the_others_prepared(idrid, tmp_path):
    truths = idrid / "2. All Segmentation Groundtruths" / TRAIN
    (truths / "1. Microaneurysms" / "IDRiD_01_MA.tif").write_bytes(b"torn")
    (idrid / "1. Original Images" / TRAIN / "IDRiD_02.jpg").touch()
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
        retina.find_idrid([tmp_path / "nowhere"])


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
