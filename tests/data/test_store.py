import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtut.data.manifest import fingerprint_of
from cxrtut.data.sample import Batch, check_batch, from_uint8
from cxrtut.data.store import ArrayStore, StoreError, StoreWriter, pack_masks, unpack_masks

CLASSES = ("Mass", "Nodule", "Effusion")


def writer(path: Path, **changes) -> StoreWriter:
    arguments = {"source": "test", "classes": CLASSES, "n": 2, "size": 4, "licence": "none"}
    return StoreWriter(path, **(arguments | changes))


def block(n: int = 2, value: int = 7, first: int = 0) -> tuple:
    table = [{"name": str(first + i), "patient": "p", "split": "train"} for i in range(n)]
    return np.full((n, 1, 4, 4), value, np.uint8), np.zeros((n, 3), np.uint8), table


def assert_equal(one: Batch, other: Batch) -> None:
    for name in set(Batch.__dataclass_fields__) - {"uniforms", "target_vector"}:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.uniforms is None and other.uniforms is None


def test_a_store_comes_back_from_the_disk_as_it_was_written(folder, contents):
    store = ArrayStore.open(folder, verify="full")
    for name in ("images", "labels", "healthy", "masks"):
        assert np.array_equal(getattr(store, name), contents[name]), name
    assert store.table["name"].tolist() == [row["name"] for row in contents["table_rows"]]
    assert store.table["split"].tolist() == ["train"] * 8 + ["test"] * 3
    boxes = sorted(contents["boxes_rows"], key=lambda box: box[0])
    assert store.boxes.row.tolist() == [box[0] for box in boxes]
    assert store.boxes.label.tolist() == [box[1] for box in boxes]
    assert np.array_equal(store.boxes.xyxy, np.array([box[2:6] for box in boxes], np.float32))
    assert store.boxes.origin.tolist() == [box[6] for box in boxes]
    assert (len(store), store.channels, store.size) == (11, 2, 16)
    assert store.classes == CLASSES and store.notes == {"inputs": "abc"}
    assert isinstance(store.images, np.memmap)


def test_nothing_but_the_store_is_left_beside_it(folder):
    assert [path.name for path in folder.parent.iterdir()] == ["store"]


def test_the_same_store_in_memory_gives_the_same_batches(folder, store):
    rows = np.array([3, 0, 10, 3])
    assert_equal(ArrayStore.open(folder).batch(rows), store.batch(rows))


def test_a_batch_holds_the_rows_asked_for(store):
    batch = store.batch(np.array([9, 3]))
    check_batch(batch)
    assert torch.equal(batch.image[1], from_uint8(torch.from_numpy(store.images[3])))
    assert torch.equal(batch.healthy[0], from_uint8(torch.from_numpy(store.healthy[9])))
    assert batch.index.tolist() == [9, 3]
    assert batch.label_vector.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert batch.boxes_of(0)[0].tolist() == [[3, 3, 4, 4]]
    assert batch.boxes_of(1)[1].tolist() == [0, 1]
    assert batch.boxes.shape == (2, 2, 4)  # the store's largest count, whatever the rows
    assert store.batch(np.array([5])).boxes.shape == (1, 2, 4)


def test_the_resident_store_gives_the_same_batches_and_is_made_once(store):
    rows = torch.tensor([3, 0, 10, 3])
    resident = store.on_device("cpu")
    assert_equal(resident.batch(rows), store.batch(rows))
    assert store.on_device("cpu") is resident and store.is_on_device("cpu")


def test_on_the_host_the_resident_store_is_the_store_without_a_copy(folder, store):
    resident = store.on_device("cpu")
    for name in ("images", "healthy", "masks"):
        assert np.shares_memory(getattr(resident, name).numpy(), getattr(store, name)), name
    opened = ArrayStore.open(folder)
    mapped = opened.on_device("cpu")
    assert isinstance(opened.images, np.memmap)
    assert np.shares_memory(mapped.images.numpy(), opened.images)
    rows = torch.tensor([3, 0, 10])
    assert_equal(mapped.batch(rows), resident.batch(rows))


def test_a_batch_of_a_shared_store_is_no_window_into_it(store):
    before = store.images.copy()
    batch = store.on_device("cpu").batch(torch.arange(3))
    batch.image.fill_(0)
    batch.healthy.fill_(0)
    assert np.array_equal(store.images, before)


def test_a_store_made_resident_piece_by_piece_is_whole(store, monkeypatch):
    # as for a device with memory of its own
    monkeypatch.setattr("cxrtut.data.store._BLOCK_BYTES", 3 * store.nbytes // len(store))
    rows = torch.arange(len(store))
    copied = store._copied(torch.device("cpu"))
    assert not np.shares_memory(copied.images.numpy(), store.images)
    assert_equal(copied.batch(rows), store.batch(rows))


def test_a_store_without_boxes_pads_to_one():
    store = ArrayStore.from_arrays(*block()[:2], CLASSES)
    batch = store.batch(np.array([1, 0]))
    check_batch(batch)
    assert batch.box_label.tolist() == [[-1], [-1]] and batch.mask is None and batch.healthy is None


def test_an_empty_batch_has_the_right_shapes(store):
    assert store.batch(np.array([], np.int64)).image.shape == (0, 2, 16, 16)


@pytest.mark.parametrize("row", [-1, 11])
def test_a_row_outside_the_store_is_refused(store, row):
    with pytest.raises(IndexError, match=r"expected rows in \[0, 11\)"):
        store.batch(np.array([row]))


def test_masks_survive_the_bit_field_for_eight_classes():
    masks = np.random.default_rng(0).random((3, 8, 5, 5)) > 0.5
    unpacked = unpack_masks(torch.from_numpy(pack_masks(masks)), 8)
    assert np.array_equal(unpacked.numpy(), masks)


def test_nine_classes_do_not_fit_a_bit_field(tmp_path):
    with pytest.raises(StoreError, match="at most 8 classes, got 9"):
        pack_masks(np.zeros((1, 9, 4, 4), bool))
    with pytest.raises(StoreError, match="at most 8 classes, got 9"):
        writer(tmp_path / "s", classes=tuple("abcdefghi"), with_masks=True)
    with writer(tmp_path / "s", classes=tuple("abcdefghi"), n=1) as nine_without_masks:
        images, _, table = block(1)
        nine_without_masks.write(0, images, np.ones((1, 9), np.uint8), table)
    assert len(ArrayStore.open(tmp_path / "s").classes) == 9


def test_rows_are_chosen_by_split_label_and_column(store):
    assert store.rows(split="test").tolist() == [8, 9, 10]
    assert store.rows(split="train", label="Nodule").tolist() == [0, 3, 6]
    assert store.rows(label="No Finding").tolist() == [2, 8, 10]
    assert store.rows(patient=["p0", "p4"]).tolist() == [0, 1, 8, 9]
    assert store.rows().tolist() == list(range(11))
    assert store.rows(split="validation").tolist() == []


def test_an_unknown_class_or_column_is_named(store):
    with pytest.raises(StoreError, match="Mess"):
        store.rows(label="Mess")
    with pytest.raises(StoreError, match="sex"):
        store.rows(sex="F")


def test_the_fingerprint_follows_the_content_and_not_the_day(tmp_path):
    prints = []
    for name, value in (("a", 7), ("b", 7), ("c", 8)):
        with writer(tmp_path / name) as w:
            w.write(0, *block(value=value))
        prints.append(ArrayStore.open(tmp_path / name).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_the_fingerprint_in_memory_follows_every_part(contents):
    def fingerprint(**changes):
        given = contents | changes
        return ArrayStore.from_arrays(
            given.pop("images"), given.pop("labels"), CLASSES, **given
        ).fingerprint

    assert fingerprint() == fingerprint()
    different = [
        fingerprint(images=255 - contents["images"]),
        fingerprint(labels=1 - contents["labels"]),
        fingerprint(healthy=None),
        fingerprint(masks=None),
        fingerprint(boxes_rows=()),
        fingerprint(table_rows=[row | {"split": "x"} for row in contents["table_rows"]]),
    ]
    assert len({fingerprint(), *different}) == 7


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_an_interrupted_store(tmp_path, error):
    with pytest.raises(error), writer(tmp_path / "s") as w:
        w.write(0, *block(1))
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_only_overwritten_when_asked_and_only_by_a_whole_one(tmp_path):
    with writer(tmp_path / "s") as w:
        w.write(0, *block(value=1))
    with pytest.raises(StoreError, match="overwrite=True"):
        writer(tmp_path / "s")
    with pytest.raises(RuntimeError), writer(tmp_path / "s", overwrite=True):
        raise RuntimeError
    assert ArrayStore.open(tmp_path / "s").images[0, 0, 0, 0] == 1
    with writer(tmp_path / "s", overwrite=True) as w:
        w.write(0, *block(value=2))
        assert ArrayStore.open(tmp_path / "s").images[0, 0, 0, 0] == 1
    assert ArrayStore.open(tmp_path / "s").images[0, 0, 0, 0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_folder_that_is_no_store_is_never_overwritten(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("precious")
    with pytest.raises(StoreError, match=r"store\.json is missing; not overwritten"):
        writer(tmp_path / "s", overwrite=True)


def test_a_store_with_foreign_files_or_of_another_source_is_never_overwritten(tmp_path):
    with writer(tmp_path / "s") as w:
        w.write(0, *block())
    (tmp_path / "s" / "thesis.txt").write_text("precious")
    with pytest.raises(StoreError, match=r"only the files of a store, got thesis\.txt"):
        writer(tmp_path / "s", overwrite=True)
    (tmp_path / "s" / "thesis.txt").rename(tmp_path / "s" / "README.txt")
    writer(tmp_path / "s", overwrite=True)
    about = json.loads((tmp_path / "s" / "store.json").read_text())
    (tmp_path / "s" / "store.json").write_text(json.dumps(about | {"source": "another"}))
    with pytest.raises(StoreError, match="got one of 'another'; not overwritten"):
        writer(tmp_path / "s", overwrite=True)


def test_what_comes_to_the_place_while_a_store_is_written_stays(tmp_path):
    with pytest.raises(StoreError, match="exists already"), writer(tmp_path / "s") as w:
        w.write(0, *block())
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "thesis.txt").write_text("precious")
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "thesis.txt"]


def test_a_missing_row_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(StoreError, match="expected 2 rows, row 1"), writer(tmp_path / "s") as w:
        w.write(0, *block(1))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_shrank_opens_with_fewer_rows(tmp_path):
    with writer(tmp_path / "s", n=1000) as w:
        w.write(0, *block(3))
        w.shrink(3)
    store = ArrayStore.open(tmp_path / "s", verify="full")
    assert len(store) == 3 and (np.asarray(store.images) == 7).all()


def test_a_store_cannot_shrink_below_what_was_written_nor_grow(tmp_path):
    for n in (1, 3):
        with pytest.raises(StoreError, match="shrink"), writer(tmp_path / "s") as w:
            w.write(0, *block(2))
            w.shrink(n)


GOOD = block()
TABLE = GOOD[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, *GOOD), r"expected rows in \[0, 2\), got 1 ... 2"),
        ((0, GOOD[0].repeat(2, 2).repeat(2, 3), *GOOD[1:]), "images: expected shape"),
        ((0, GOOD[0], GOOD[1][:, :2], TABLE), "labels: expected shape"),
        ((0, GOOD[0], GOOD[1] + 2, TABLE), "labels: expected only 0 and 1, got"),
        ((0, *GOOD[:2], [{"name": "a", "patient": "b"}] * 2), "missing .'split'"),
        ((0, *GOOD[:2], [TABLE[0], TABLE[1] | {"age": 3}]), "expected the columns"),
        ((0, *GOOD, [(2, 0, 0, 0, 1, 1, "x")]), "expected a row of"),
        ((0, *GOOD, [(0, 3, 0, 0, 1, 1, "x")]), "class index below 3"),
        ((0, *GOOD, [(0, 0, 2, 0, 1, 1, "x")]), "x0 < x1"),
        ((0, *GOOD, [(0, 0, 0, 0, 1, 5, "x")]), "inside 4 x 4"),
        ((0, *GOOD, [(0, 0, 0, 0, float("nan"), 5, "x")]), "x0 < x1"),
        ((0, *GOOD, [], GOOD[0]), "expected .'images', 'labels'., got"),
    ],
)
def test_a_block_that_does_not_fit_is_refused_with_words(tmp_path, arguments, words):
    with pytest.raises(StoreError, match=words), writer(tmp_path / "s") as w:
        w.write(*arguments)


def test_a_row_is_written_once(tmp_path):
    with pytest.raises(StoreError, match="written before"), writer(tmp_path / "s") as w:
        w.write(0, *block())
        w.write(1, *block(1))


def test_wrong_class_names_are_refused(tmp_path):
    for classes in ((), ("a", "a")):
        with pytest.raises(StoreError, match="classes: expected"):
            writer(tmp_path / "s", classes=classes)


@pytest.mark.parametrize(
    "name", ["images.npy", "healthy.npy", "masks.npy", "labels.npy", "boxes.csv"]
)
def test_a_truncated_or_missing_file_is_named(folder, name):
    with open(folder / name, "r+b") as file:
        file.truncate(os.path.getsize(folder / name) - 1)
    with pytest.raises(StoreError, match=rf"{name}: expected .*truncated"):
        ArrayStore.open(folder)
    (folder / name).unlink()
    with pytest.raises(StoreError, match=f"{name} is missing"):
        ArrayStore.open(folder)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_changed_pixel_is_found_by_the_full_check_only(folder):
    flip_last_byte(folder / "images.npy")
    ArrayStore.open(folder)
    with pytest.raises(StoreError, match=r"images\.npy: the content does not match"):
        ArrayStore.open(folder, verify="full")


def test_a_changed_label_is_found_by_the_quick_check(folder):
    flip_last_byte(folder / "labels.npy")
    with pytest.raises(StoreError, match=r"labels\.npy: the content does not match"):
        ArrayStore.open(folder)


def edit_manifest(folder: Path, **changes) -> None:
    about = json.loads((folder / "store.json").read_text()) | changes
    if "fingerprint" not in changes:
        about["fingerprint"] = fingerprint_of(about)
    (folder / "store.json").write_text(json.dumps(about))


def test_a_header_that_contradicts_the_manifest_is_found(folder):
    edit_manifest(folder, size=15)
    with pytest.raises(StoreError, match=r"npy: expected uint8 \(11, 2, 15, 15\), got"):
        ArrayStore.open(folder)


def test_a_manifest_edited_by_hand_is_refused(folder):
    edit_manifest(folder, source="elsewhere", fingerprint="0" * 64)
    with pytest.raises(StoreError, match="changed by hand"):
        ArrayStore.open(folder)


def test_a_newer_format_says_so(folder):
    edit_manifest(folder, version=99, created_with="cxrtut 9.9")
    with pytest.raises(StoreError, match=r"got 99 \(made with cxrtut 9.9\).*update cxrtut"):
        ArrayStore.open(folder)


def test_what_is_no_store_is_refused_with_words(folder, tmp_path):
    with pytest.raises(StoreError, match="found none"):
        ArrayStore.open(tmp_path / "nowhere")
    half = folder.rename(tmp_path / "store.partial-12")
    with pytest.raises(StoreError, match="half-written"):
        ArrayStore.open(half)
    folder = half.rename(folder)
    (folder / "store.json").write_text('{"format": "something else"}')
    with pytest.raises(StoreError, match="does not describe"):
        ArrayStore.open(folder)
    (folder / "store.json").write_text('{"format": ')
    with pytest.raises(StoreError, match="cannot be read"):
        ArrayStore.open(folder)
    (folder / "store.json").unlink()
    with pytest.raises(StoreError, match=r"store\.json is missing"):
        ArrayStore.open(folder)
