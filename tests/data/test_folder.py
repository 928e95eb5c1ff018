"""A folder of image files with a table, as a store."""

import os
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from cxrtut.data.sample import check_batch
from cxrtut.data.source_tables import SourceError
from cxrtut.data.split import one_disease
from cxrtut.data.splits import patient_hash_split
from cxrtut.data.store import ArrayStore

LABELS = [
    "name,patient,split,Mass,Nodule", "a.png,p0,train,0,0", "b,p1,train,1,0", "c.jpg,p1,train,1,1",
    "d.png,p2,test,0,1",
]  # fmt: skip
SHAPES = {"a.png": (20, 20), "b.png": (40, 20), "c.jpg": (20, 40), "more/d.png": (10, 10)}


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def films(tmp_path):
    """Four films of one grey level each, one of them in a folder of its own."""
    for i, (name, shape) in enumerate(SHAPES.items()):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(shape, 50 + 50 * i, np.uint8)).save(path)
    write(tmp_path / "films" / "notes.txt", ["no image"])
    return tmp_path / "films"


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "labels.csv", LABELS)


def test_a_folder_and_a_table_become_a_store(films, table):
    store = ArrayStore.from_folder(films, table, size=10)
    assert store.classes == ("Mass", "Nodule")
    assert store.labels.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert store.images.shape == (4, 1, 10, 10) and store.source == "folder films"
    assert store.table["name"].tolist() == ["a.png", "b", "c.jpg", "d.png"]
    assert store.table["patient"].tolist() == ["p0", "p1", "p1", "p2"]
    assert store.table["split"].tolist() == ["train"] * 3 + ["test"]
    assert store.images[:, 0, 5, 5].tolist() == pytest.approx([50, 100, 150, 200], abs=2)
    assert store.images[1, 0, 5, 0] == 0, "black beside a tall film"
    check_batch(store.batch(np.arange(4)))
    assert len(store.boxes) == 0


def test_colour_is_kept_where_it_is_asked_for(films, table):
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(films / "a.png")
    store = ArrayStore.from_folder(films, table, size=10, channels=3)
    assert store.images.shape == (4, 3, 10, 10)
    assert store.images[0, :, 5, 5].tolist() == [200, 0, 0]
    assert store.images[3, :, 5, 5].tolist() == [200, 200, 200]


def test_boxes_are_scaled_from_the_pixels_of_their_file(films, table, tmp_path):
    boxes = write(tmp_path / "boxes.csv", [
        "name,label,x0,y0,x1,y1", "b.png,Mass,0,0,20,40", "c,Nodule,8,4,16,20", "c,Mass,0,0,4,4",
    ])  # fmt: skip
    store = ArrayStore.from_folder(films, table, size=10, boxes=boxes)
    assert store.boxes.of(1)[0].tolist() == [[2, 0, 7, 10]]  # 20 wide, 40 high: 5 of 10
    found, label = store.boxes.of(2)
    by_label = {int(k): box for k, box in zip(label, found.tolist(), strict=True)}
    assert by_label == {1: [2, 3, 4, 7], 0: [0, 2, 1, 3]}  # 40 wide: a quarter, 2 down
    assert set(store.boxes.origin) == {"folder"}
    check_batch(store.batch(np.arange(4)))


def test_a_class_that_is_no_column_is_named_with_its_line(films, table, tmp_path):
    boxes = write(tmp_path / "boxes.csv", ["name,label,x0,y0,x1,y1", "b,Gout,0,0,2,2"])
    words = r"boxes\.csv, line 2: expected one of Mass, Nodule, got 'Gout'"
    with pytest.raises(SourceError, match=words):
        ArrayStore.from_folder(films, table, size=10, boxes=boxes)


@pytest.mark.parametrize("corner", ["x", "", "nan"])
def test_a_corner_that_is_no_number_is_named_with_its_line(films, table, tmp_path, corner):
    boxes = write(tmp_path / "boxes.csv", ["name,label,x0,y0,x1,y1", f"b,Mass,{corner},0,2,2"])
    with pytest.raises(SourceError, match=r"boxes\.csv, line 2: expected a number as x0, got"):
        ArrayStore.from_folder(films, table, size=10, boxes=boxes)


def test_missing_and_broken_images_are_warned_of_and_left_out(films, table, tmp_path):
    (films / "b.png").unlink()
    (films / "a.png").write_bytes(b"")
    boxes = write(tmp_path / "boxes.csv", [
        "name,label,x0,y0,x1,y1", "b,Mass,0,0,9,9", "c,Mass,0,0,40,20",
    ])  # fmt: skip
    with pytest.warns(UserWarning, match=r"2 images are left out, first .*a\.png"):
        store = ArrayStore.from_folder(films, table, size=10, boxes=boxes)
    assert store.table["name"].tolist() == ["c.jpg", "d.png"]
    assert store.boxes.row.tolist() == [0] and len(store.images) == 2
    assert store.labels.tolist() == [[1, 1], [0, 1]]


def test_where_nothing_is_missing_nothing_is_warned_of(films, table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ArrayStore.from_folder(films, table, size=10)


@pytest.mark.parametrize("label", ["2", "yes", "", "0.5", "-1"])
def test_a_label_that_is_neither_0_nor_1_is_refused(films, tmp_path, label):
    table = write(tmp_path / "labels.csv", ["name,Mass", "a,0", f"b,{label}"])
    with pytest.raises(SourceError, match=rf"b: expected 0 or 1 in column 'Mass', got '{label}'"):
        ArrayStore.from_folder(films, table, size=10)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["file,Mass", "a,0"], r"expected columns \['name'\]"),
        (["name,Mass"], "expected a line for each image, got none"),
        (["name,patient,split", "a,p,train"], "expected a column of 0 and 1 for each class"),
        (["name,Mass", "z.png,0"], r"expected the images of .*, found none; z\.png"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(films, tmp_path, lines, words):
    table = write(tmp_path / "labels.csv", lines)
    with pytest.raises(SourceError, match=words):
        ArrayStore.from_folder(films, table, size=10)


def test_a_line_that_lacks_a_label_is_refused(films, tmp_path):
    table = write(tmp_path / "labels.csv", ["name,Mass,Nodule", "a,0,1", "b,0"])
    with pytest.raises(SourceError, match=r"labels\.csv.*Nodule"):
        ArrayStore.from_folder(films, table, size=10)


def test_an_image_that_is_named_twice_is_refused(films, tmp_path):
    table = write(tmp_path / "labels.csv", ["name,Mass", "a,0", "a.png,1"])
    with pytest.raises(SourceError, match=r"a\.png.*twice"):
        ArrayStore.from_folder(films, table, size=10)


def test_a_name_that_two_files_have_is_refused(films, tmp_path):
    (films / "more" / "a.jpg").write_bytes((films / "c.jpg").read_bytes())
    table = write(tmp_path / "labels.csv", ["name,Mass", "a,0"])
    with pytest.raises(SourceError, match=r"a: expected one file .*a\.png.*a\.jpg"):
        ArrayStore.from_folder(films, table, size=10)


def test_copies_of_a_film_are_warned_of_and_the_first_is_taken(films, table):
    (films / "more" / "a.png").write_bytes((films / "a.png").read_bytes())
    with pytest.warns(UserWarning, match="1 images are there more than once, as equal copies"):
        store = ArrayStore.from_folder(films, table, size=10)
    assert len(store) == 4


def test_a_name_is_found_however_its_accents_are_stored(films, tmp_path):
    stored, typed = ("Mu\u0308ller", "Zoe\u0308"), ("M\u00fcller.png", "Zo\u00eb")
    for i, name in enumerate(stored):
        Image.fromarray(np.full((8, 8), 9 + i, np.uint8)).save(films / f"{name}.png")
    for names in (stored, typed):
        table = write(tmp_path / "labels.csv", ["name,Mass", *(f"{name},1" for name in names)])
        boxes = write(tmp_path / "boxes.csv", [
            "name,label,x0,y0,x1,y1", f"{typed[0]},Mass,0,0,4,4",
        ])  # fmt: skip
        store = ArrayStore.from_folder(films, table, size=8, boxes=boxes)
        assert store.images[:, 0, 4, 4].tolist() == [9, 10]
        assert store.boxes.row.tolist() == [0]


def test_films_behind_a_link_are_found_and_a_link_to_nothing_is_left_out(films, tmp_path):
    (films / "more").rename(tmp_path / "disk")
    (films / "linked").symlink_to(tmp_path / "disk")
    (films / "e.png").symlink_to(tmp_path / "nowhere.png")
    table = write(tmp_path / "labels.csv", ["name,Mass", "a,0", "d,1", "e,1"])
    with pytest.warns(UserWarning, match=r"1 images are left out, first e: no such file"):
        store = ArrayStore.from_folder(films, table, size=10)
    assert store.table["name"].tolist() == ["a", "d"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_film_whose_name_is_not_utf_8_is_left_out_and_named(films, table):
    shutil.copy(films / "a.png", os.fsencode(films) + b"/L\xe4sion.png")
    with pytest.warns(UserWarning, match=r"1 images are left out, first .*L\\xe4sion\.png"):
        assert len(ArrayStore.from_folder(films, table, size=10)) == 4


def test_a_name_with_its_ending_tells_two_files_apart(films, tmp_path):
    (films / "a.jpg").write_bytes((films / "c.jpg").read_bytes())
    table = write(tmp_path / "labels.csv", ["name,Mass", "a.png,0", "a.jpg,1"])
    store = ArrayStore.from_folder(films, table, size=10)
    assert store.images[:, 0, 5, 5].tolist() == pytest.approx([50, 150], abs=2)


def test_a_patient_on_both_sides_is_refused(films, tmp_path):
    lines = ["name,patient,split,Mass", "a,p,train,0", "b,p,test,1"]
    table = write(tmp_path / "labels.csv", lines)
    with pytest.raises(SourceError, match=r"on both sides of the split: \['p'\]"):
        ArrayStore.from_folder(films, table, size=10)


def test_a_box_of_no_image_or_beside_its_image_is_refused_with_its_line(films, table, tmp_path):
    head = "name,label,x0,y0,x1,y1"
    for row, words in (
        ("a_.png,Mass,1,1,4,4", r"line 2: expected an image of .*, got 'a_\.png'"),
        ("a.png,Mass,900,900,950,950", r"line 2: expected a box inside the .* pixels of a\.png"),
        ("a.png,Mass,4,1,1,4", r"line 2: expected a box inside"),
    ):
        boxes = write(tmp_path / "boxes.csv", [head, row])
        with pytest.raises(SourceError, match=words):
            ArrayStore.from_folder(films, table, size=10, boxes=boxes)


@pytest.mark.parametrize("text", ["Test", "val", "training"])
def test_a_split_of_another_name_is_refused(films, tmp_path, text):
    table = write(tmp_path / "labels.csv", ["name,split,Mass", "a,train,0", f"b,{text},1"])
    with pytest.raises(SourceError, match=rf"b: expected train or test in .*'split', got '{text}'"):
        ArrayStore.from_folder(films, table, size=10)


def test_a_folder_or_table_that_is_not_there_is_named(films, table, tmp_path):
    with pytest.raises(SourceError, match="expected a folder, got nothing"):
        ArrayStore.from_folder(tmp_path / "none", table, size=10)
    with pytest.raises(SourceError, match=r"none\.csv: no such file"):
        ArrayStore.from_folder(films, tmp_path / "none.csv", size=10)


def test_names_with_a_dot_in_them_are_found(films, tmp_path):
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(films / "1.2.840.png")
    for name in ("1.2.840", "1.2.840.png"):
        table = write(tmp_path / "labels.csv", ["name,Mass", f"{name},1", "a,0"])
        boxes = write(tmp_path / "boxes.csv", ["name,label,x0,y0,x1,y1", f"{name},Mass,0,0,4,4"])
        store = ArrayStore.from_folder(films, table, size=8, boxes=boxes)
        assert store.images[0, 0, 4, 4] == 9
        assert store.boxes.of(0)[0].tolist() == [[0, 0, 4, 4]]


def test_without_patients_and_split_a_fifth_is_tested_and_no_patient_is_on_two_sides(tmp_path):
    (tmp_path / "films").mkdir()
    lines, by_patient = ["name,Mass"], ["name,patient,Mass"]
    for i in range(150):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / "films" / f"f{i}.png")
        lines.append(f"f{i},{i % 2}")
        by_patient.append(f"f{i},p{i // 3},{i % 2}")
    alone = ArrayStore.from_folder(tmp_path / "films", write(tmp_path / "l.csv", lines), size=4)
    assert alone.table["patient"].tolist() == alone.table["name"].tolist()
    assert 15 <= (alone.table["split"] == "test").sum() <= 45
    table = write(tmp_path / "p.csv", by_patient)
    store = ArrayStore.from_folder(tmp_path / "films", table, size=4)
    for patient, side in zip(store.table["patient"], store.table["split"], strict=True):
        assert side == patient_hash_split(str(patient))
    split = one_disease(store, disease="Mass")
    learnt, tested = (set(store.table["patient"][rows]) for rows in (split.train, split.test))
    assert learnt and tested and not learnt & tested
    assert torch.equal(split.batch(split.test).index, torch.from_numpy(split.test))
