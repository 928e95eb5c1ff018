"""Studies of many diseases: who is learnt from, who is tested, and which boxes are known."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from cxrtut.experiments.label_study import (
    PREVALENCE,
    LabelStudy,
    phantom_labels,
    row_parts,
    store_labels,
)

from cxrtut.data.phantom import PRESETS, ChestPhantom
from cxrtut.data.store import ArrayStore, StoreError, StoreWriter

CLASSES = ("Mass", "Nodule")
# patient, split, labels: of b one image has a box, c is a test patient with an image of another
# split, d and e are learnt from
PEOPLE = [
    ("a", "train", (0, 0)), ("a", "train", (1, 0)), ("b", "train", (1, 1)), ("b", "train", (0, 0)),
    ("c", "test", (0, 1)), ("c", "train", (0, 0)), ("d", "train", (0, 1)), ("e", "val", (0, 0)),
]  # fmt: skip
BOXES = [
    (2, 0, 1.0, 1.0, 5.0, 5.0, "one"), (2, 0, 2.0, 2.0, 6.0, 7.0, "two"),
    (2, 1, 0.0, 0.0, 3.0, 3.0, "one"),
]  # fmt: skip


def written(path, people=PEOPLE, boxes=BOXES):
    """A store in a folder; each image has one grey level, ten times its row."""
    grey = 10 * np.arange(len(people), dtype=np.uint8)[:, None, None, None]
    table = [{"name": str(i), "patient": p, "split": s} for i, (p, s, _) in enumerate(people)]
    labels = np.array([found for *_, found in people], dtype=np.uint8)
    with StoreWriter(
        path, source="toy", classes=CLASSES, n=len(people), size=8, licence="none"
    ) as writer:
        writer.write(0, np.tile(grey, (1, 1, 8, 8)), labels, table, boxes)
    return path


def boxed(n=2000):
    """A study in memory in which every image has a box; the last tenth is tested."""
    boxes = [(i, 0, 0.0, 0.0, 1.0 + i % 3, 2.0, "x") for i in range(n)]
    boxes += [(i, 0, 1.0, 1.0, 3.0, 3.0, "x") for i in range(0, n, 2)]
    store = ArrayStore.from_arrays(
        np.zeros((n, 1, 4, 4), np.uint8), np.ones((n, 1), np.uint8), ("A",), boxes_rows=boxes
    )
    return LabelStudy("toy", store, np.arange(n * 9 // 10), np.arange(n * 9 // 10, n))


def patients(study, rows):
    return set(study.store.table["patient"][rows].tolist())


@pytest.fixture(scope="module")
def simulated():
    return phantom_labels(32, n=120)


def test_no_simulated_patient_is_learnt_from_and_tested(simulated):
    s = simulated
    learnt, tested = patients(s, s.train), patients(s, s.test)
    assert learnt and tested and not learnt & tested
    assert sorted([*s.train, *s.test]) == list(range(120))
    assert len(s.store.classes) == 8 and "eight diseases" in s.name


def test_no_patient_with_a_box_or_of_the_test_split_is_learnt_from(tmp_path):
    study = store_labels(written(tmp_path / "store"), 8)
    assert study.train.tolist() == [0, 1, 6, 7] and study.test.tolist() == [2, 3, 4, 5]
    assert not np.isin(study.store.boxes.row, study.train).any()
    assert not patients(study, study.train) & patients(study, study.store.boxes.row)
    assert study.name == "2 diseases (toy)" and study.poses is None


def test_a_patient_with_a_box_is_tested_even_where_there_is_no_test_split(tmp_path):
    people = [(p, "train", found) for p, _, found in PEOPLE]
    study = store_labels(written(tmp_path / "store", people), 8)
    assert study.test.tolist() == [2, 3]


def test_images_and_boxes_come_at_the_size_asked_for(tmp_path):
    study = store_labels(written(tmp_path / "store"), 4)
    assert study.store.size == 4
    assert study.boxes_of(2, 0).tolist() == [[0.5, 0.5, 2.5, 2.5], [1.0, 1.0, 3.0, 3.5]]


def test_a_store_of_the_size_asked_for_is_not_copied_into_memory(tmp_path):
    path = written(tmp_path / "store")
    assert isinstance(store_labels(path, 8).store.images, np.memmap)
    assert not isinstance(store_labels(path, 4).store.images, np.memmap)


def test_a_store_with_nobody_to_test_or_nobody_to_learn_from_is_refused(tmp_path):
    people = [(p, "train", found) for p, _, found in PEOPLE]
    with pytest.raises(StoreError, match="others to test, got 8 and 0"):
        store_labels(written(tmp_path / "one", people, []), 8)
    people = [(p, "test", found) for p, _, found in PEOPLE]
    with pytest.raises(StoreError, match="others to test, got 0 and 8"):
        store_labels(written(tmp_path / "two", people), 8)
    with pytest.raises(StoreError, match="none"):
        store_labels(tmp_path / "none", 8)


def test_each_image_and_class_with_a_box_is_a_pair_once(tmp_path):
    rows, labels = store_labels(written(tmp_path / "store"), 8).pairs
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == [(2, 0), (2, 1)]


def test_pairs_are_of_test_images_and_have_their_boxes(simulated):
    s = simulated
    rows, labels = s.pairs
    pairs = list(zip(rows.tolist(), labels.tolist(), strict=True))
    known = {
        (int(r), int(k))
        for r, k in zip(s.store.boxes.row, s.store.boxes.label, strict=True)
        if r in s.test
    }
    assert set(pairs) == known and len(pairs) == len(known) > 20
    assert np.isin(s.store.boxes.row, s.train).any(), "or the test shows nothing"
    assert all(len(s.boxes_of(*pair)) >= 1 for pair in pairs)


def test_a_study_without_boxes_has_no_pairs():
    store = ArrayStore.from_arrays(
        np.zeros((4, 1, 8, 8), np.uint8), np.eye(4, dtype=np.uint8), [*"abcd"]
    )
    rows, labels = LabelStudy("toy", store, np.arange(2), np.arange(2, 4)).pairs
    assert len(rows) == len(labels) == 0


def test_the_boxes_of_a_class_are_those_of_the_image_and_the_class(tmp_path):
    study = store_labels(written(tmp_path / "store"), 8)
    assert study.boxes_of(2, 0).tolist() == [[1, 1, 5, 5], [2, 2, 6, 7]]
    assert study.boxes_of(2, 1).tolist() == [[0, 0, 3, 3]]
    assert study.boxes_of(4, 1).shape == (0, 4)


def test_the_average_box_of_a_class_is_of_the_training_images_alone():
    store = ArrayStore.from_arrays(
        np.zeros((4, 1, 16, 16), np.uint8), np.ones((4, 3), np.uint8), ("A", "B", "C"),
        boxes_rows=[
            (0, 0, 0.0, 0.0, 4.0, 8.0, "hand"), (1, 0, 2.0, 2.0, 8.0, 10.0, "hand"),
            (1, 2, 1.0, 1.0, 2.0, 3.0, "hand"), (3, 0, 0.0, 0.0, 16.0, 16.0, "hand"),
        ],
    )  # fmt: skip
    study = LabelStudy("by hand", store, np.array([0, 1]), np.array([2, 3]))
    assert study.average_boxes().tolist() == [[1, 1, 6, 9], [0, 0, 0, 0], [1, 1, 2, 3]]


def test_normal_images_are_those_to_learn_from_without_a_disease(simulated, tmp_path):
    study = store_labels(written(tmp_path / "store"), 8)
    assert study.normal.tolist() == [0, 7]  # 3 and 5 have none either, but belong to test patients
    assert len(simulated.normal) and set(simulated.normal) <= set(simulated.train)
    assert not simulated.store.labels[simulated.normal].any()


def test_some_normal_images_are_drawn_by_lot_without_repetition():
    store = ArrayStore.from_arrays(
        np.zeros((60, 1, 4, 4), np.uint8), (np.arange(60) % 2).astype(np.uint8)[:, None], ("A",)
    )
    study = LabelStudy("toy", store, np.arange(50), np.arange(50, 60))
    some = study.some_normal(10, 0)
    assert len(set(some.tolist())) == 10 and set(some) <= set(study.normal)
    assert some.tolist() == study.some_normal(10, 0).tolist()
    assert some.tolist() != study.some_normal(10, 1).tolist()
    assert sorted(study.some_normal(99, 0)) == study.normal.tolist()


def test_without_normal_images_there_is_no_anchor():
    study = boxed(20)
    with pytest.raises(StoreError, match="toy: expected normal images to learn from, got none"):
        study.some_normal(5, 0)


def test_an_epoch_has_every_image_to_learn_from_once_and_no_other(simulated):
    n = len(simulated.train)
    feed = simulated.feed()
    first, second = (b.index for b in islice(feed.batches(batch_size=n, seed=0), 2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == simulated.train.tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_the_boxes_of_a_share_of_the_images_are_known(share):
    study = boxed()
    feed = study.feed_with_boxes(share, seed=3)
    batch = next(feed.batches(batch_size=len(study.train), seed=0))
    known = (batch.box_label >= 0).any(1)
    assert float(known.float().mean()) == pytest.approx(share, abs=0.04)
    whole = study.store.batch(batch.index[known])
    for i, row in enumerate(known.nonzero()[:, 0].tolist()[:50]):  # all boxes of a known image
        assert torch.equal(batch.boxes_of(row)[0], whole.boxes_of(i)[0])


def test_which_boxes_are_known_depends_on_the_seed_alone():
    study = boxed(200)

    def known(seed):
        return set(study.feed_with_boxes(0.5, seed).source.boxes.row.tolist())

    assert known(0) == known(0) != known(1)


def test_hiding_boxes_leaves_the_store_as_it_was():
    study = boxed(200)
    print_before, n = study.store.fingerprint, len(study.store.boxes)
    before = study.store.batch(study.train)
    study.feed_with_boxes(0.0, seed=0)
    after = study.store.batch(study.train)
    assert len(study.store.boxes) == n and study.store.fingerprint == print_before
    assert torch.equal(before.boxes, after.boxes) and torch.equal(before.box_label, after.box_label)
    assert len(study.pairs[0]) == len(study.test)


def test_images_of_a_feed_with_boxes_are_those_of_the_feed(simulated):
    pairs = zip(
        simulated.feed().batches(batch_size=8, seed=5),
        simulated.feed_with_boxes(0.3, 0).batches(batch_size=8, seed=5), strict=False,
    )  # fmt: skip
    for one, other in islice(pairs, 3):
        assert torch.equal(one.image, other.image) and torch.equal(one.index, other.index)


def test_poses_are_those_with_which_the_images_were_simulated(simulated):
    assert simulated.poses is not None
    posed = replace(PRESETS["easy"], pose=PRESETS["default"].pose)
    phantom = ChestPhantom(32, posed, seed=0, prevalence=PREVALENCE)
    sample = phantom.sample(torch.from_numpy(simulated.test))
    assert torch.equal(simulated.poses(simulated.test), sample.pose)
    shown = simulated.store.batch(simulated.test).image
    assert (sample.image - shown).abs().max() <= 1 / 255 + 1e-6  # rounded to grey levels
    assert sample.pose.std(0).max() > 0.5, "posed as in the clinic"


def test_easy_images_are_posed_as_in_the_clinic():
    easy, default = (phantom_labels(32, n=8, preset=name) for name in ("easy", "default"))
    rows = np.arange(8)
    assert torch.equal(easy.poses(rows), default.poses(rows))


def test_seed_and_prevalence_reach_the_simulation():
    one, other = phantom_labels(32, n=40), phantom_labels(32, n=40, seed=1)
    assert one.store.fingerprint != other.store.fingerprint
    assert one.store.fingerprint == phantom_labels(32, n=40).store.fingerprint
    assert not phantom_labels(32, n=40, prevalence=0.0).store.labels.any()


def test_parts_are_all_rows_in_order():
    rows = np.arange(7) * 3
    parts = row_parts(rows, 3)
    assert [len(part) for part in parts] == [3, 3, 1] and row_parts(rows[:0]) == []
    assert np.concatenate(parts).tolist() == rows.tolist()


@pytest.mark.skipif("CXRTUT_REAL_DATA" not in os.environ, reason="CXRTUT_REAL_DATA is not set")
def test_real_radiographs_no_patient_with_a_box_is_learnt_from(tmp_path):
    real = Path(os.environ["CXRTUT_REAL_DATA"])
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable, str(root / "data_scripts" / "prepare_nih.py"), "--from",
        str(real / "nih_cxr" / "images"), str(real / "nih_rsna_metadata"), "--out",
        str(tmp_path / "nih"), "--accept-licence", "--rsna-boxes", "--size", "64",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    study = store_labels(tmp_path / "nih", 32)
    store = study.store
    assert len(store.classes) == 14 and store.size == 32
    assert len(study.train) + len(study.test) == len(store)
    assert not patients(study, study.train) & patients(study, study.test)
    assert not patients(study, study.train) & patients(study, store.boxes.row)
    assert set(store.table["split"][study.train]) == {"train_val"}
    assert len(study.normal) > 100 and len(study.pairs[0]) > 100
    assert store.boxes.xyxy.max() <= 32 + 1e-3
