"""Splits of one disease against normal images."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from data.splits_by_hand import by_hand, patients, written

from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import write_store
from cxrtut.data.split import (
    evenly,
    ground_truth,
    is_held_out,
    one_disease,
)
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.view import view
from cxrtut.experiments.source import Source


@pytest.fixture(scope="module")
def effusions():
    return Source(disease="Effusion").one_disease(32, 0, 100)


# One disease


def test_no_patient_of_one_disease_is_learnt_from_and_tested(effusions):
    s = effusions
    learnt, tested = patients(s, s.train), patients(s, s.test)
    assert learnt and tested and not learnt & tested
    assert set(s.with_truth("train")) <= set(s.abnormal())


def test_labels_fit_the_rows(effusions):
    s = effusions
    assert s.classes == ("Effusion",)
    for side in ("train", "test"):
        assert s.store.labels[s.abnormal(side)].all() and len(s.abnormal(side))
        assert not s.store.labels[s.normal(side)].any() and len(s.normal(side))


def test_balanced_batches_hold_normal_and_abnormal_images_in_turn(effusions):
    for batch in islice(effusions.loader("balanced").batches(batch_size=8, seed=0), 3):
        assert batch.label_vector[:, 0].tolist() == [0, 1] * 4
        assert set(batch.index.tolist()) <= set(effusions.train.tolist())


def test_the_ground_truth_is_the_mask_or_the_boxes(effusions):
    batch = effusions.batch(effusions.with_truth("test"))
    truth = ground_truth(batch)
    assert torch.equal(truth, batch.mask[:, 0]) and truth.any((1, 2)).all()
    boxed = ground_truth(replace(batch, mask=None))
    for i in range(len(batch)):
        boxes, _ = batch.boxes_of(i)
        assert torch.equal(boxed[i], boxes_to_mask(boxes, *truth.shape[1:]))
    assert (boxed & truth).any((1, 2)).all()


def test_outlined_is_what_has_a_mask_or_a_box_of_these_classes():
    masks = np.zeros((6, 4, 4), np.uint8)
    masks[2], masks[3] = 1, 2  # of A, of B
    store = ArrayStore.from_arrays(
        np.zeros((6, 1, 4, 4), np.uint8), np.ones((6, 2), np.uint8), ("A", "B"), masks=masks,
        boxes_rows=[(0, 0, 0.0, 0.0, 2.0, 2.0, "x"), (1, 1, 0.0, 0.0, 2.0, 2.0, "x")],
    )  # fmt: skip
    for classes, rows in ((("A", "B"), [0, 1, 2, 3]), (("A",), [0, 2]), (("B",), [1, 3])):
        split = replace(by_hand(store, range(6), [0]), store=view(store, classes=classes))
        assert split.with_truth("train").tolist() == rows


def test_without_a_test_split_a_fifth_of_the_patients_is_held_out():
    images = np.zeros((200, 1, 8, 8), dtype=np.uint8)
    labels = (np.arange(200) % 2).astype(np.uint8)[:, None]
    store = ArrayStore.from_arrays(images, labels, ("A",))
    split = one_disease(store, disease="A")
    assert 10 <= len(split.normal("test")) <= 30 and len(split.with_truth("test")) == 0
    assert 140 < len(split.train) < 180 and len(split.with_truth("train")) == 0
    assert np.flatnonzero(is_held_out(store)).tolist() == split.test.tolist()


def test_a_patient_with_a_test_image_is_not_learnt_from_in_one_disease_either(tmp_path):
    store = ArrayStore.open(written(tmp_path / "store"))
    split = one_disease(store, disease="Nodule")
    assert split.train.tolist() == [0, 2, 3, 6, 7] and split.test.tolist() == [4, 5]


def test_a_disease_of_a_store_or_any_of_them_against_the_normal_images(tmp_path):
    write_store(ChestPhantom(32), tmp_path / "store", 60)
    store = ArrayStore.open(tmp_path / "store")
    one = one_disease(store, 32, disease="Effusion")
    assert one.classes == ("Effusion",) and one.name == f"Effusion ({store.source})"
    found = len(one.abnormal()) + len(one.abnormal("test"))
    assert found == len(store.rows(label="Effusion"))
    whole = one_disease(store, 16, disease="any")
    assert len(whole.train) + len(whole.test) == 60 and whole.classes == store.classes
    assert whole.size == 16
    with pytest.raises(StoreError, match="got Gout"):
        one_disease(store, 32, disease="Gout")


def test_images_with_other_diseases_only_are_on_no_side():
    labels = np.array([[0, 0], [1, 0], [0, 1], [1, 1]] * 20, np.uint8)
    store = ArrayStore.from_arrays(np.zeros((80, 1, 4, 4), np.uint8), labels, ("A", "B"))
    split = one_disease(store, disease="A")
    used = np.concatenate([split.train, split.test])
    assert sorted(used) == [i for i in range(80) if i % 4 != 2]
    assert sorted(np.concatenate([split.normal(), split.normal("test")])) == [*range(0, 80, 4)]


def test_at_most_so_many_images_are_scored_evenly(effusions):
    everything, some = effusions.with_truth("train"), effusions.with_truth("train", 5)
    assert len(some) == 5 and some[0] == everything[0] and some[-1] == everything[-1]
    assert evenly(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert evenly(np.arange(3), 4).tolist() == [0, 1, 2] == evenly(np.arange(3), None).tolist()


def test_a_store_without_normal_or_abnormal_images_is_refused():
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    table = [{"name": str(i), "patient": str(i), "split": "train"} for i in range(4)]
    table[3]["split"] = "test"
    for label, counts in ((1, "0 and 3"), (0, "3 and 0")):
        labels = np.full((4, 1), label, np.uint8)
        store = ArrayStore.from_arrays(images, labels, ("A",), table_rows=table)
        with pytest.raises(StoreError, match=rf"A \(memory\): expected normal .*got {counts}"):
            one_disease(store, disease="A")
