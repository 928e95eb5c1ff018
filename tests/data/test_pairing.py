"""Who looks most like whom: by distance, of other patients, of the training side."""

import numpy as np
import pytest
import torch

from cxrtut.data.pairing import nearest_neighbours, thumbnails, training_neighbours
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.split import one_disease
from cxrtut.data.store import StoreError


@pytest.fixture(scope="module")
def split():
    return one_disease(in_memory(ChestPhantom(32, classes=("Pneumonia",)), 120))


def test_a_thumbnail_is_the_mean_over_cells_and_channels():
    image = torch.zeros(1, 2, 64, 96)
    image[0, 0, 2:4, 3:6] = 6  # all of the cell (1, 1)
    found = thumbnails(image).view(32, 32)
    assert found[1, 1] == 3 and found.sum() == 3


def test_images_smaller_than_their_thumbnail_are_refused():
    with pytest.raises(ValueError, match="expected images of 32 x 32 pixels or more, got 31 x 40"):
        thumbnails(torch.zeros(1, 1, 31, 40))


def test_neighbours_are_the_nearest_in_order():
    pool = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    found = nearest_neighbours(torch.tensor([[0.9, 0.9], [3.0, 5.0]]), pool, 2)
    assert found.tolist() == [[2, 0], [1, 2]]
    assert nearest_neighbours(torch.zeros(0, 2), pool, 2).shape == (0, 2)
    with pytest.raises(ValueError, match="k: expected 1 to 3, the size of the pool, got 4"):
        nearest_neighbours(pool, pool, 4)


def test_many_images_in_parts_have_the_neighbours_that_each_has_alone(monkeypatch):
    monkeypatch.setattr("cxrtut.data.pairing.PART", 2)
    images, pool = torch.rand(5, 8), torch.rand(7, 8)
    alone = torch.cat([nearest_neighbours(image[None], pool, 3) for image in images])
    assert torch.equal(nearest_neighbours(images, pool, 3), alone)


def test_training_neighbours_are_of_other_patients_and_nearest_among_those(split):
    rows, among = split.abnormal(), split.normal()
    found = training_neighbours(split, rows, among, 3).numpy()
    assert found.shape == (len(rows), 3) and np.isin(found, among).all()
    small = {row: thumbnails(split.batch(np.array([row])).image)[0] for row in {*rows, *among}}
    patient = dict(zip(split.train.tolist(), split.patients(split.train), strict=True))
    for row, chosen in zip(rows.tolist(), found.tolist(), strict=True):
        others = [other for other in among.tolist() if patient[other] != patient[row]]
        by_distance = sorted(others, key=lambda other: (small[row] - small[other]).norm().item())
        assert chosen == by_distance[:3]


def test_an_image_is_not_its_own_neighbour(split):
    rows = split.normal()[:20]
    found = training_neighbours(split, rows, rows)[:, 0].numpy()
    patient = dict(zip(rows.tolist(), split.patients(rows), strict=True))
    assert all(patient[a] != patient[b] for a, b in zip(rows.tolist(), found.tolist(), strict=True))


def test_rows_of_the_test_side_are_refused_on_either_side(split):
    tested = split.test[:1]
    with pytest.raises(StoreError, match="among: expected rows that are learnt from, got 1 others"):
        training_neighbours(split, split.abnormal(), np.append(split.normal(), tested))
    with pytest.raises(StoreError, match="rows: expected rows that are learnt from"):
        training_neighbours(split, tested, split.normal())


def test_too_few_other_patients_are_refused_and_nobody_needs_none(split):
    one = split.normal()[:1]
    with pytest.raises(StoreError, match="among: expected 1 images of other patients or more"):
        training_neighbours(split, one, one)
    assert training_neighbours(split, one[:0], one, 2).shape == (0, 2)
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"k: expected 1 or more, got {k}"):
            training_neighbours(split, split.abnormal(), split.normal(), k)
