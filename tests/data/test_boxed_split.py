"""Who with a box is learnt from, and who is tested."""

import numpy as np
import pytest

from cxrtut.data.boxed_split import leaks, split_annotations, split_boxed
from cxrtut.data.store import ArrayStore, StoreError

CLASSES = ("Mass", "Nodule", "Effusion")
KEPT = ("Mass", "Effusion")


def store_of(n_patients=300):
    """Of three patients one has two images with a Mass, of which the first has two boxes, one an
    image with an Effusion, and one a normal image. Every tenth patient has a Nodule besides, and
    one image with a label and no box.
    """
    table, labels, boxes = [], [], []

    def add(patient, *found):
        row = len(table)
        table.append({"name": str(row), "patient": f"p{patient}", "split": "train"})
        labels.append([int(k in found) for k in range(3)])
        return row

    for p in range(n_patients):
        if p % 3 == 0:
            first, second = add(p, 0), add(p, 0)
            for row, x in ((first, 0.0), (first, 4.0), (second, 0.0)):
                boxes.append((row, 0, x, 0.0, x + 3, 4.0, "hand"))
        elif p % 3 == 1:
            boxes.append((add(p, 2), 2, 1.0, 1.0, 6.0, 5.0, "hand"))
        else:
            add(p)
        if p % 10 == 0:
            boxes.append((add(p, 1), 1, 0.0, 0.0, 2.0, 2.0, "hand"))
            add(p, 0)
    grey = (np.arange(len(table)) % 251).astype(np.uint8)[:, None, None, None]
    return ArrayStore.from_arrays(
        np.tile(grey, (1, 1, 8, 8)), np.array(labels, np.uint8), CLASSES, table_rows=table,
        boxes_rows=boxes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store():
    return store_of()


def shares(split):
    """Of each class the share of boxes that are tested."""
    table = split.store.boxes
    tested = np.isin(table.row, split.test)
    return [float(tested[table.label == k].mean()) for k in range(len(split.classes))]


def test_a_patient_is_on_one_side_and_every_class_has_its_share_of_boxes_in_the_test(store):
    split = split_boxed(store, classes=KEPT)
    assert split.classes == KEPT
    assert not set(split.patients(split.train)) & set(split.patients(split.test))
    assert leaks(split) == 0
    assert shares(split) == pytest.approx([0.3, 0.3], abs=0.02)


def test_images_with_a_box_of_the_classes_and_normal_ones_are_used_and_no_others(store):
    split = split_boxed(store, classes=KEPT)
    used = np.concatenate([split.train, split.test])
    assert len(used) == len(set(used.tolist()))
    boxed = set(split.store.boxes.row.tolist())
    normal = set(np.flatnonzero(~store.labels.any(1)).tolist())
    assert set(used.tolist()) == boxed | normal
    nodule_only = np.flatnonzero(store.labels[:, 1] == 1)
    assert not np.isin(nodule_only, used).any()
    healthy = {side: len(split.normal(side)) for side in ("train", "test")}
    assert healthy["test"] / sum(healthy.values()) == pytest.approx(0.3, abs=0.12)


def test_a_seed_draws_its_patients(store):
    first, again, other = (split_boxed(store, classes=KEPT, seed=seed).test for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_is_the_one_that_was_asked_for(store, share):
    assert shares(split_boxed(store, classes=KEPT, share=share)) == pytest.approx(
        [share] * 2, abs=0.03
    )


def test_a_split_by_annotation_lets_patients_and_images_through_and_says_how_many(store):
    split = split_annotations(store, classes=KEPT)
    assert len(split.store.boxes) == 400 == len(split.train) + len(split.test)
    per_row = np.bincount(split.store.boxes.row)
    assert (per_row == 1).all()
    assert shares(split) == pytest.approx([0.3, 0.3], abs=0.005)
    # Of three boxes of a patient with a Mass, one is tested: the chance that neither of the others
    # is learnt from is small. Every Effusion is alone.
    mass = np.isin(split.test, split.store.boxes.row[split.store.boxes.label == 0])
    assert leaks(split) == pytest.approx(mass.mean() * (1 - 0.3**2), abs=0.05)


def test_a_row_of_an_annotation_has_its_image_its_patient_and_its_box(store):
    split = split_annotations(store, classes=KEPT)
    table = split.store.table
    for i in (*split.train[:20], *split.test[:20]):
        row = int(table["name"][i])
        assert table["patient"][i] == store.table["patient"][row]
        assert split.store.store.images[i, 0, 0, 0] == store.images[row, 0, 0, 0]
        (box,), (label,) = split.store.boxes.of(int(i))
        known, labels = split_boxed(store, classes=KEPT).store.boxes.of(row)
        assert [*box, label] in [[*b, k] for b, k in zip(known, labels, strict=True)]
        assert split.store.labels[i].tolist() == [int(k == label) for k in range(2)]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 1.3])
@pytest.mark.parametrize("how", [split_boxed, split_annotations])
def test_a_share_that_is_none_is_refused(store, how, share):
    with pytest.raises(ValueError, match=r"share: expected one in \(0, 1\)"):
        how(store, classes=KEPT, share=share)


def test_too_few_boxes_are_named():
    with pytest.raises(StoreError, match="expected images with boxes to test, got none"):
        split_boxed(store_of(4), classes=("Effusion",))
    with pytest.raises(StoreError, match="expected classes of"):
        split_boxed(store_of(4), classes=("Fibrosis",))
