"""Splits: who is learnt from, who is tested, and what is known of them."""

import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from data.splits_by_hand import PEOPLE, boxed, by_hand, patients, toy

from cxrtut.data.phantom import PRESETS, ChestPhantom
from cxrtut.data.sample import Batch
from cxrtut.data.split import (
    all_diseases,
    ground_truth,
    identity_of,
    is_normal,
    one_disease,
    row_parts,
)
from cxrtut.data.store import ArrayStore, StoreError, StoreWriter
from cxrtut.experiments.source import PREVALENCE, Source

READINGS = ["Normal", "No Lung Opacity / Not Normal", "Lung Opacity"]


def read_by_radiologists(n=300):
    """As RSNA: every third image is pneumonia, normal, or neither."""
    reading = [READINGS[i % 3] for i in range(n)]
    table = [
        {"name": f"n{i}", "patient": f"p{i}", "split": "train", "reading": reading[i],
         "view": "PA" if i % 2 else "AP"}
        for i in range(n)
    ]  # fmt: skip
    labels = np.array([[said == "Lung Opacity"] for said in reading], np.uint8)
    images = np.zeros((n, 1, 8, 8), np.uint8)
    return ArrayStore.from_arrays(images, labels, ("Pneumonia",), table_rows=table, source="toy")


@pytest.fixture(scope="module")
def simulated():
    return Source().all_diseases(32, 0, 120)


def test_an_image_with_a_box_alone_has_it_as_truth_in_a_store_with_masks_too():
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, :4, :4] = True
    batch = Batch(
        image=torch.zeros(2, 1, 8, 8), label_vector=torch.ones(2, 1),
        boxes=torch.tensor([[[0.0, 0, 2, 2]], [[2.0, 2, 5, 6]]]),
        box_label=torch.zeros(2, 1, dtype=torch.int64), index=torch.arange(2), mask=mask,
    )  # fmt: skip
    truth = ground_truth(batch)
    assert torch.equal(truth[0], mask[0, 0])
    assert truth[1].sum() == 12 and truth[1, 2:6, 2:5].all()


# Nothing is copied


def test_a_split_of_a_store_costs_no_copy_of_the_pixels(tmp_path):
    n, size = 600, 128
    table = [{"name": str(i), "patient": str(i), "split": "train"} for i in range(n)]
    images = np.zeros((n, 1, size, size), np.uint8)
    labels = (np.arange(n) % 2).astype(np.uint8)[:, None]
    in_memory = ArrayStore.from_arrays(images, labels, ("A",), table_rows=table)
    path = tmp_path / "store"
    with StoreWriter(path, source="toy", classes=("A",), n=n, size=size, licence="none") as writer:
        writer.write(0, images, labels, table)
    for store in (in_memory, ArrayStore.open(path)):
        tracemalloc.start()
        for where in (None, size // 2):
            split = one_disease(store, where, disease="A")
            assert np.shares_memory(split.store.store.images, store.images)
        shown = one_disease(store, disease="A").store.on_device("cpu")
        assert np.shares_memory(shown.images.numpy(), store.images)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < store.nbytes / 10
    assert isinstance(split.store.store.images, np.memmap)


# Many diseases


def test_no_simulated_patient_is_learnt_from_and_tested(simulated):
    s = simulated
    learnt, tested = patients(s, s.train), patients(s, s.test)
    assert learnt and tested and not learnt & tested
    assert sorted([*s.train, *s.test]) == list(range(120))
    assert len(s.classes) == 8 and "eight diseases" in s.name


def test_no_patient_with_a_box_or_of_the_test_split_is_learnt_from(tmp_path):
    split = toy(tmp_path / "store")
    assert split.train.tolist() == [0, 1, 6, 7] and split.test.tolist() == [2, 3, 4, 5]
    assert not np.isin(split.store.boxes.row, split.train).any()
    assert not patients(split, split.train) & patients(split, split.store.boxes.row)
    assert split.name == "2 diseases (toy)" and split.poses is None
    assert not split.has_boxes_to_learn_from and len(split.validation) == 0


def test_a_patient_with_a_box_is_tested_even_where_there_is_no_test_split(tmp_path):
    people = [(p, "train", found) for p, _, found in PEOPLE]
    assert toy(tmp_path / "store", people=people).test.tolist() == [2, 3]


def test_images_and_boxes_come_at_the_size_asked_for(tmp_path):
    split = toy(tmp_path / "store", 4)
    assert split.size == 4 and split.channels == 1
    assert split.batch(split.test).image.shape == (4, 1, 4, 4)
    assert split.boxes_of(2, 0).tolist() == [[0.5, 0.5, 2.5, 2.5], [1.0, 1.0, 3.0, 3.5]]


def test_a_store_with_nobody_to_test_or_nobody_to_learn_from_is_refused(tmp_path):
    people = [(p, "train", found) for p, _, found in PEOPLE]
    with pytest.raises(StoreError, match="others to test, got 8 and 0"):
        toy(tmp_path / "one", people=people, boxes=[])
    people = [(p, "test", found) for p, _, found in PEOPLE]
    with pytest.raises(StoreError, match="others to test, got 0 and 8"):
        toy(tmp_path / "two", people=people)


def test_each_image_and_class_with_a_box_is_a_pair_once(tmp_path):
    rows, labels = toy(tmp_path / "store").pairs()
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == [(2, 0), (2, 1)]


def test_pairs_are_of_the_images_of_a_side_and_have_their_boxes(simulated):
    s = simulated
    for side in ("train", "test"):
        rows, labels = s.pairs(side)
        pairs = list(zip(rows.tolist(), labels.tolist(), strict=True))
        known = {
            (int(r), int(k))
            for r, k in zip(s.store.boxes.row, s.store.boxes.label, strict=True)
            if r in s.rows(side)
        }
        assert set(pairs) == known and len(pairs) == len(known) > 20
        assert all(len(s.boxes_of(*pair)) >= 1 for pair in pairs)
    assert s.has_boxes_to_learn_from


def test_a_split_without_boxes_has_no_pairs():
    store = ArrayStore.from_arrays(
        np.zeros((4, 1, 8, 8), np.uint8), np.eye(4, dtype=np.uint8), [*"abcd"]
    )
    rows, labels = by_hand(store, [0, 1], [2, 3]).pairs()
    assert len(rows) == len(labels) == 0


def test_the_boxes_of_a_class_are_those_of_the_image_and_the_class(tmp_path):
    split = toy(tmp_path / "store")
    assert split.boxes_of(2, 0).tolist() == [[1, 1, 5, 5], [2, 2, 6, 7]]
    assert split.boxes_of(2, 1).tolist() == [[0, 0, 3, 3]]
    assert split.boxes_of(4, 1).shape == (0, 4)


def test_the_average_box_of_a_class_is_of_the_training_images_alone():
    store = ArrayStore.from_arrays(
        np.zeros((4, 1, 16, 16), np.uint8), np.ones((4, 3), np.uint8), ("A", "B", "C"),
        boxes_rows=[
            (0, 0, 0.0, 0.0, 4.0, 8.0, "hand"), (1, 0, 2.0, 2.0, 8.0, 10.0, "hand"),
            (1, 2, 1.0, 1.0, 2.0, 3.0, "hand"), (3, 0, 0.0, 0.0, 16.0, 16.0, "hand"),
        ],
    )  # fmt: skip
    split = by_hand(store, [0, 1], [2, 3])
    assert split.average_boxes().tolist() == [[1, 1, 6, 9], [0, 0, 0, 0], [1, 1, 2, 3]]


def test_normal_images_are_those_of_a_side_without_a_disease(simulated, tmp_path):
    split = toy(tmp_path / "store")
    assert split.normal().tolist() == [0, 7]  # 3 and 5 have none either, but are tested
    assert split.normal("test").tolist() == [3, 5] and split.normal("validation").tolist() == []
    assert split.abnormal().tolist() == [1, 6] and split.abnormal("test").tolist() == [2, 4]
    assert len(simulated.normal()) and set(simulated.normal()) <= set(simulated.train)
    assert not simulated.store.labels[simulated.normal()].any()


def test_some_normal_images_are_drawn_by_lot_without_repetition():
    store = ArrayStore.from_arrays(
        np.zeros((60, 1, 4, 4), np.uint8), (np.arange(60) % 2).astype(np.uint8)[:, None], ("A",)
    )
    split = by_hand(store, range(50), range(50, 60))
    some = split.some_normal(10, 0)
    assert len(set(some.tolist())) == 10 and set(some) <= set(split.normal())
    assert some.tolist() == split.some_normal(10, 0).tolist()
    assert some.tolist() != split.some_normal(10, 1).tolist()
    assert sorted(split.some_normal(99, 0)) == split.normal().tolist()


def test_without_normal_images_there_is_no_anchor():
    with pytest.raises(StoreError, match="toy: expected normal images to learn from, got none"):
        boxed(20).some_normal(5, 0)


def test_an_epoch_has_every_image_to_learn_from_once_and_no_other(simulated):
    n = len(simulated.train)
    loader = simulated.loader()
    first, second = (b.index for b in islice(loader.batches(batch_size=n, seed=0), 2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == simulated.train.tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_the_boxes_of_a_share_of_the_images_are_known(share):
    split = boxed()
    shown = split.showing_boxes(share, seed=3)
    batch = next(shown.loader().batches(batch_size=len(split.train), seed=0))
    known = (batch.box_label >= 0).any(1)
    assert float(known.float().mean()) == pytest.approx(share, abs=0.04)
    whole = split.batch(batch.index[known].numpy())
    for i, row in enumerate(known.nonzero()[:, 0].tolist()[:50]):  # all boxes of a known image
        assert torch.equal(batch.boxes_of(row)[0], whole.boxes_of(i)[0])


def test_which_boxes_are_known_depends_on_the_seed_alone():
    split = boxed(200)

    def known(seed):
        return set(split.showing_boxes(0.5, seed).store.boxes.row.tolist())

    assert known(0) == known(0) != known(1)


def test_hiding_boxes_leaves_the_split_as_it_was_and_copies_no_pixels():
    split = boxed(200)
    print_before, n = split.store.store.fingerprint, len(split.store.boxes)
    before = split.batch(split.train)
    shown = split.showing_boxes(0.0, seed=0)
    after = split.batch(split.train)
    assert np.shares_memory(shown.store.store.images, split.store.store.images)
    assert len(shown.store.boxes) == 0
    assert len(split.store.boxes) == n and split.store.store.fingerprint == print_before
    assert torch.equal(before.boxes, after.boxes) and torch.equal(before.box_label, after.box_label)
    assert len(split.pairs()[0]) == len(split.test)


def test_images_of_a_loader_with_boxes_are_those_of_the_loader(simulated):
    pairs = zip(
        simulated.loader().batches(batch_size=8, seed=5),
        simulated.showing_boxes(0.3, 0).loader().batches(batch_size=8, seed=5), strict=False,
    )  # fmt: skip
    for one, other in islice(pairs, 3):
        assert torch.equal(one.image, other.image) and torch.equal(one.index, other.index)


def test_poses_are_those_with_which_the_images_were_simulated(simulated):
    assert simulated.poses is not None
    posed = replace(PRESETS["easy"], pose=PRESETS["default"].pose)
    phantom = ChestPhantom(32, posed, seed=0, prevalence=PREVALENCE)
    sample = phantom.sample(torch.from_numpy(simulated.test))
    assert torch.equal(simulated.poses(simulated.test), sample.pose)
    shown = simulated.batch(simulated.test).image
    assert (sample.image - shown).abs().max() <= 1 / 255 + 1e-6  # rounded to grey levels
    assert sample.pose.std(0).max() > 0.5, "posed as in the clinic"


def test_easy_images_are_posed_as_in_the_clinic():
    easy, default = (
        Source(phantom_preset=name).all_diseases(32, 0, 20) for name in ("easy", "default")
    )
    rows = np.arange(8)
    assert torch.equal(easy.poses(rows), default.poses(rows))


def test_the_seed_reaches_the_simulation():
    one, other, again = (Source().all_diseases(32, seed, 40) for seed in (0, 1, 0))
    prints = [split.store.store.fingerprint for split in (one, other, again)]
    assert prints[0] == prints[2] != prints[1]


# What a table says


def test_not_normal_is_not_normal_where_there_is_a_reading():
    store = read_by_radiologists()
    assert np.flatnonzero(is_normal(store)).tolist() == [*range(0, 300, 3)]
    split = one_disease(store)
    used = np.concatenate([split.train, split.test])
    assert set(store.table["reading"][used]) == {"Normal", "Lung Opacity"}
    for side in ("train", "test"):
        assert set(store.table["reading"][split.normal(side)]) == {"Normal"}
    balanced = next(split.loader("balanced").batches(batch_size=32, seed=0)).index.numpy()
    assert set(store.table["reading"][balanced[0::2]]) == {"Normal"}
    whole = all_diseases(ArrayStore.from_arrays(
        store.images, store.labels, store.classes,
        table_rows=[
            {"name": str(i), "patient": str(i), "split": "test" if i > 200 else "train",
             "reading": str(store.table["reading"][i])}
            for i in range(300)
        ],
    ))  # fmt: skip
    assert len(whole.train) == 201, "learnt from are all"
    assert set(whole.store.table["reading"][whole.normal("test")]) == {"Normal"}


def test_a_column_without_any_reading_says_nothing():
    store = read_by_radiologists(12)
    silent = replace(store, table=store.table | {"reading": np.array([""] * 12)})
    assert is_normal(silent).tolist() == (silent.labels[:, 0] == 0).tolist()


@pytest.mark.parametrize("make", [one_disease, all_diseases])
def test_images_can_be_chosen_by_a_column_of_the_table(make):
    store = read_by_radiologists()
    store = replace(store, table=store.table | {
        "split": np.array(["test" if i % 5 == 0 else "train" for i in range(300)])
    })  # fmt: skip
    some, everything = make(store, where={"view": "PA"}), make(store)
    for side in ("train", "test"):
        wanted = [row for row in everything.rows(side) if row % 2]
        assert some.rows(side).tolist() == wanted and wanted
    with pytest.raises(StoreError, match=r"expected a column of .*got 'colour'"):
        make(store, where={"colour": "red"})
    with pytest.raises(StoreError, match="got 0 and 0"):
        make(store, where={"view": "lateral"})


def test_several_columns_choose_together():
    where = {"view": "PA", "reading": "Normal"}
    store = read_by_radiologists()
    table = store.table | {"split": np.array(["test", *["train"] * 299])}
    with pytest.raises(StoreError, match="got 50 and 0"):  # row 0, the tested one, is AP
        all_diseases(replace(store, table=table), where=where)
    with pytest.raises(StoreError, match=r"expected normal and abnormal images .* and 0"):
        one_disease(store, where=where)


def test_the_identity_is_that_of_the_store_unless_it_is_given(tmp_path):
    split = toy(tmp_path / "store")
    assert split.identity == identity_of(split.store.store)
    assert split.identity["images"] == 8 and split.identity["source"] == "toy"
    assert toy(tmp_path / "other", identity={"seed": 3}).identity == {"seed": 3}


def test_parts_are_all_rows_in_order():
    rows = np.arange(7) * 3
    parts = row_parts(rows, 3)
    assert [len(part) for part in parts] == [3, 3, 1] and row_parts(rows[:0]) == []
    assert np.concatenate(parts).tolist() == rows.tolist()


@pytest.mark.parametrize("order", ["shuffled", "balanced"])
def test_a_loader_brings_target_domains_if_it_is_asked_for_them(simulated, order):
    plain, asked = simulated.loader(order), simulated.loader(order, with_targets=True)
    pairs = [list(islice(x.batches(batch_size=16, seed=0), 3)) for x in (plain, asked)]
    for without, batch in zip(*pairs, strict=True):
        assert without.target_vector is None
        assert torch.equal(without.index, batch.index)
        assert sorted(batch.target_vector.tolist()) == sorted(batch.label_vector.tolist())
    assert any(not torch.equal(b.target_vector, b.label_vector) for b in pairs[1])


# Real images


@pytest.fixture
def nih(real_data, tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable, str(root / "data_scripts" / "prepare_nih.py"), "--from",
        str(real_data / "nih_cxr" / "images"), str(real_data / "nih_rsna_metadata"), "--out",
        str(tmp_path / "nih"), "--accept-licence", "--rsna-boxes", "--size", "64",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr[-2000:]
    return ArrayStore.open(tmp_path / "nih")


def test_real_radiographs_no_patient_with_a_box_is_learnt_from(nih):
    split = all_diseases(nih, 32)
    store = split.store
    assert len(split.classes) == 14 and split.size == 32
    assert len(split.train) + len(split.test) == len(store)
    assert not patients(split, split.train) & patients(split, split.test)
    assert not patients(split, split.train) & patients(split, store.boxes.row)
    assert set(store.table["split"][split.train]) == {"train_val"}
    assert len(split.normal()) > 100 and len(split.pairs()[0]) > 100
    assert store.boxes.xyxy.max() <= 32 + 1e-3


def test_real_pneumonia_against_real_normal_images_with_their_boxes(nih):
    split = one_disease(nih, 64)
    scored = np.concatenate([split.with_truth("train"), split.with_truth("test")])
    assert len(scored) > 20 and nih.masks is None
    truth = ground_truth(split.batch(scored))
    assert truth.any((1, 2)).all() and 0.02 < truth.float().mean() < 0.5
