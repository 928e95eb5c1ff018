"""Boxes one by one, and boxes drawn where there are none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtut.data.annotated import (
    one_box_each,
    together,
    with_all_boxes,
    with_boxes_drawn,
    with_twins,
)
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.split import Split, all_diseases
from cxrtut.data.store import StoreError


@pytest.fixture(scope="module")
def split() -> Split:
    phantom = ChestPhantom(32, "default", prevalence=0.8)
    store = in_memory(phantom, 120)
    return all_diseases(store, poses=lambda rows: torch.zeros(len(rows), 2, 3))


@pytest.mark.parametrize("side", ["train", "test"])
def test_every_box_of_a_side_has_a_row_of_its_own_with_its_image_and_class(split, side):
    found = one_box_each(split, side)
    rows = split.rows(side)
    expected = [
        (row, label, box.tolist())
        for row in rows
        for box, label in zip(*split.store.boxes.of(int(row)), strict=True)
    ]
    assert len({row for row, _, _ in expected}) < len(expected)  # some images have several
    got = [
        (row, label, box)
        for row, label, box in zip(
            found.index.tolist(), found.box_label[:, 0].tolist(), found.boxes[:, 0].tolist(),
            strict=True,
        )
    ]  # fmt: skip
    assert sorted(got) == sorted((int(r), int(k), b) for r, k, b in expected)
    images = split.batch(found.index.numpy()).image
    assert torch.equal(found.batch(torch.arange(len(found))).image, images)
    assert torch.equal(found.label_vector.argmax(1), found.box_label[:, 0])
    assert (found.label_vector.sum(1) == 1).all()
    assert found.masks is None and found.healthy is None


def test_images_without_boxes_to_learn_from_are_named(split):
    nobody = Split(
        "nobody", split.store, split.normal(), np.zeros(0, np.int64), split.test, split.identity
    )
    with pytest.raises(StoreError, match="nobody: expected train images with boxes, got none"):
        one_box_each(nobody)


def test_drawn_boxes_have_sizes_that_were_given_and_lie_in_the_middle_of_the_image(split):
    rows = np.repeat(split.normal(), 40)
    sizes = torch.tensor([[0.0, 0, 8, 12], [3, 3, 24, 9], [0, 0, 32, 4]])
    found = with_boxes_drawn(split, rows, sizes, seed=0)
    box = found.boxes[:, 0]
    size = box[:, 2:] - box[:, :2]
    kinds, counts = size.unique(dim=0, return_counts=True)
    assert kinds.tolist() == [[8, 12], [21, 6], [32, 4]]
    assert counts.min() > 0.25 * len(rows)
    fits = size[:, 0] < 28
    assert (box[fits] >= 1.6 - 0.5).all() and (box[fits] <= 32 - 1.6 + 0.5).all()
    assert (box[~fits, 0] == 0).all() and (box[~fits, 2] == 32).all()  # larger than the middle
    corner = box[fits & (size[:, 0] == 8), 0]
    assert corner.min() <= 3 and corner.max() >= 21  # everywhere, not only in the middle
    assert (box[:, :2] == box[:, :2].round()).all()  # whole pixels: their edges are sharp
    assert (found.label_vector == 0).all() and (found.box_label == 0).all()
    assert found.index.tolist() == rows.tolist()


def test_a_seed_draws_its_boxes_and_no_others(split):
    rows, sizes = split.normal(), torch.tensor([[0.0, 0, 8, 12], [3, 3, 24, 9]])
    first, again, other = (
        with_boxes_drawn(split, rows, sizes, seed=seed).boxes for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_a_box_no_size_can_be_taken(split):
    with pytest.raises(ValueError, match="boxes: expected one at least"):
        with_boxes_drawn(split, split.normal(), torch.zeros(0, 4), seed=0)


def test_images_keep_all_their_boxes_and_lose_what_a_detector_does_not_see(split):
    rows = split.test[:20]
    found, known = with_all_boxes(split, rows), split.batch(rows)
    batch = found.batch(torch.arange(20))
    for field in ("image", "boxes", "box_label", "label_vector", "index"):
        assert torch.equal(getattr(batch, field), getattr(known, field))
    assert known.mask is not None and batch.mask is None and batch.healthy is None


def test_stores_together_are_one_with_boxes_padded_to_the_most(split):
    several, single = with_all_boxes(split, split.test[:20]), one_box_each(split, "test")
    most = several.boxes.shape[1]
    assert most > 1
    whole = together(single, several)
    assert len(whole) == len(single) + 20 and whole.boxes.shape[1] == most
    for first, store in ((0, single), (len(single), several)):
        for i in range(len(store)):
            ours, theirs = whole.batch(torch.tensor([first + i])), store.batch(torch.tensor([i]))
            assert torch.equal(ours.image, theirs.image)
            for one, other in zip(ours.boxes_of(0), theirs.boxes_of(0), strict=True):
                assert torch.equal(one, other)


def test_healthy_twins_stay_where_all_stores_have_them(split):
    first, second = (
        replace(of, healthy=of.images // 2)
        for of in (with_all_boxes(split, split.test[:20]), one_box_each(split, "test"))
    )
    both = with_twins(first, second)
    assert torch.equal(both.healthy, torch.cat((first.healthy, second.healthy)))
    assert both.boxes.shape[1] == first.boxes.shape[1] > second.boxes.shape[1]
    assert together(first, second).healthy is None
