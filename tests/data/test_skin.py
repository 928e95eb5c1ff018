import numpy as np
import pytest
from PIL import Image

from cxrtut.data import skin
from cxrtut.data.decode import ImageError
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import ArrayStore
from cxrtut.experiments.source import Source


def numbered(height, width):
    """Every pixel bright, and different from its neighbours."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([50 + y % 200, 50 + x % 200, np.full_like(x, 99)]).astype(np.uint8)


def test_the_patch_is_the_one_farthest_from_the_centre():
    image = numbered(450, 600)
    assert np.array_equal(skin.outer_patch(image, 128), image[:128, :128])


def test_a_patch_with_the_dark_vignette_is_passed_over():
    image = numbered(450, 600)
    image[:100, :100] = 5
    image[:100, -100:] = 5
    patch = skin.outer_patch(image, 128)
    assert np.array_equal(patch, image[-128:, :128])
    image[:, :] = 5
    with pytest.raises(ImageError, match="without dark padding, found none"):
        skin.outer_patch(image, 128)


def test_an_image_of_the_patch_size_is_the_patch_and_a_smaller_one_is_refused():
    image = numbered(128, 128)
    assert np.array_equal(skin.outer_patch(image, 128), image)
    with pytest.raises(ImageError, match="expected at least 129 x 129 pixels, got 128 x 128"):
        skin.outer_patch(image, 129)


def test_images_become_a_store_with_diagnoses(tmp_path):
    folder = tmp_path / "ham"
    for part, name in (("part_1", "ISIC_1"), ("part_2", "ISIC_2"), ("part_2", "ISIC_3")):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbered(90, 120)).save(folder / part / f"{name}.png")
    Image.fromarray(numbered(9, 12)).save(folder / "part_2" / "ISIC_4.png")
    (folder / "lesion_masks").mkdir()
    Image.fromarray(numbered(90, 120)).save(folder / "lesion_masks" / "ISIC_9.png")
    (folder / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx,age\nHAM_7,ISIC_1,mel,50\nHAM_7,ISIC_2,nv,50\nHAM_8,ISIC_5,df,1\n"
    )
    report = skin.prepare([folder], tmp_path / "store", size=32)
    assert (report.images, report.missing) == (3, ("ISIC_5",))
    assert len(report.broken) == 1 and "ISIC_4.png: expected at least" in report.broken[0]
    store = ArrayStore.open(tmp_path / "store", verify="full")
    assert store.table["name"].tolist() == ["ISIC_1", "ISIC_2", "ISIC_3"]
    assert store.table["patient"].tolist() == ["HAM_7", "HAM_7", "ISIC_3"]
    assert store.rows(dx="mel").tolist() == [0] and store.rows(dx="nv").tolist() == [1]
    assert store.channels == 3 and store.images.min() >= 50


def test_a_plain_folder_does_and_an_unknown_diagnosis_is_named(tmp_path):
    Image.fromarray(numbered(64, 64)).save(tmp_path / "one.png")
    assert skin.prepare([tmp_path], tmp_path / "store", size=64).images == 1
    (tmp_path / "labels.csv").write_text("lesion_id,image_id,dx\na,b,flu\n")
    with pytest.raises(SourceError, match=r"line 2: expected dx of .*, got flu"):
        skin.prepare([tmp_path], tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "separator"),
    [("HAM10000_metadata", ","), ("HAM10000_metadata.tab", "\t"), ("labels.csv", ",")],
)
def test_the_official_metadata_are_found_by_name_and_read_by_separator(tmp_path, name, separator):
    Image.fromarray(numbered(64, 64)).save(tmp_path / "ISIC_1.png")
    Image.fromarray(numbered(64, 64)).save(tmp_path / "ISIC_2.png")
    lines = [["lesion_id", "image_id", "dx"], ["HAM_7", "ISIC_1", "bcc"]]
    (tmp_path / name).write_text("".join(separator.join(line) + "\n" for line in lines))
    report = skin.prepare([tmp_path], tmp_path / "store", size=64)
    store = ArrayStore.open(tmp_path / "store")
    assert store.table["patient"].tolist() == ["HAM_7", "ISIC_2"]
    assert store.rows(dx="bcc").tolist() == [0] and not store.labels.any()
    assert "by SHA-256 of the lesion" in report.warnings[0]
    assert (
        report.warnings[1] == f"1 images are not in {name}: each counts as a lesion, no diagnosis"
    )


def test_without_metadata_nothing_is_claimed_about_lesions(tmp_path):
    Image.fromarray(numbered(64, 64)).save(tmp_path / "one.png")
    report = skin.prepare([tmp_path], tmp_path / "store", size=64)
    assert "no metadata: one lesion may be on both sides, no diagnoses" in report.warnings
    assert not any("of the lesion," in warning for warning in report.warnings)
    (tmp_path / "labels.csv").write_text("image,level\none,3\n")
    with pytest.raises(SourceError, match=r"labels\.csv: expected columns \['image_id'"):
        skin.prepare([tmp_path], tmp_path / "store", size=64)


def test_what_a_computer_hides_beside_images_is_no_image(tmp_path):
    for name in (".", "__MACOSX", ".ipynb_checkpoints"):
        (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name / "._ISIC_1.png").write_bytes(b"Mac OS X")
    for name in ("ISIC_1.png", ".ipynb_checkpoints/ISIC_2.png", "__MACOSX/ISIC_3.png"):
        Image.fromarray(numbered(64, 64)).save(tmp_path / "in" / name)
    report = skin.prepare([tmp_path / "in"], tmp_path / "store", size=64)
    assert (report.images, report.broken, report.left_out) == (1, (), ())


def test_without_metadata_a_link_to_nothing_is_still_a_missing_image(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(numbered(64, 64)).save(tmp_path / "in" / "ISIC_1.png")
    (tmp_path / "in" / "ISIC_2.png").symlink_to(tmp_path / "nowhere.png")
    report = skin.prepare([tmp_path / "in"], tmp_path / "store", size=64)
    assert (report.images, report.missing, report.broken) == (1, ("ISIC_2",), ())


def test_masks_behind_a_link_of_another_name_are_no_images(tmp_path):
    for folder in ("in/images", "disk/lesion_masks"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(numbered(64, 64)).save(tmp_path / "in" / "images" / "ISIC_1.png")
    Image.fromarray(numbered(64, 64)).save(tmp_path / "disk" / "lesion_masks" / "ISIC_2.png")
    (tmp_path / "in" / "lesions").symlink_to(tmp_path / "disk" / "lesion_masks")
    assert skin.prepare([tmp_path / "in"], tmp_path / "store", size=64).images == 1


def test_two_different_images_of_one_name_are_refused(tmp_path):
    for i, name in enumerate(("part_1", "thumbs")):
        (tmp_path / name).mkdir()
        Image.fromarray(numbered(64 + i, 64)).save(tmp_path / name / "ISIC_1.png")
    with pytest.raises(SourceError, match=r"ISIC_1: expected one file .*part_1.*thumbs"):
        skin.prepare([tmp_path], tmp_path / "store", size=64)


def test_the_real_dermoscopy_images_become_a_store(real_data, tmp_path):
    report = skin.prepare([real_data / "ham10000_sample"], tmp_path / "store", size=128)
    assert report.images + len(report.broken) == 85
    assert report.images == 84  # one image has the vignette in each of its patches
    store = ArrayStore.open(tmp_path / "store", verify="full")
    assert (store.table["dx"] != "").sum() == 45 and store.images.mean() > 100
    # The second set of the Biomarker paper: every patch is a normal image
    assert not store.labels.any()
    split = Source(data="pasted", root=tmp_path / "store").one_disease(128, 0, 0)
    assert len(split.store) == 84 and len(split.store.store.labels.nonzero()[0]) == 42
    assert len(split.with_truth("train")) and len(split.with_truth("test"))
