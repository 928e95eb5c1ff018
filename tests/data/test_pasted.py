"""Pictures pasted into normal images."""

import numpy as np
import pytest
import torch

from cxrtut.data.pasted import PASTED, pasted_store
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.split import ground_truth, one_disease
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.experiments.source import Source


@pytest.fixture(scope="module")
def clean():
    return in_memory(ChestPhantom(32, prevalence=0.5), 40)


def test_pasting_changes_every_other_normal_image_where_the_mask_says(clean):
    store = pasted_store(clean, 32)
    n_normal = int((~clean.labels.any(1)).sum())
    assert len(store) == n_normal and store.classes == (PASTED,)
    batch = store.batch(np.arange(n_normal))
    ill = batch.label_vector[:, 0] > 0
    assert ill.tolist() == [i % 2 == 1 for i in range(n_normal)]
    changed = (batch.image != batch.healthy).any(1)
    assert not changed[~ill].any() and changed[ill].any((1, 2)).all()
    inside = ground_truth(batch)
    grown = torch.nn.functional.max_pool2d(inside.float(), 5, 1, 2).bool()
    assert not (changed & ~grown).any() and changed[inside].float().mean() > 0.9


def test_the_untouched_images_are_those_of_the_store_with_their_patients(clean):
    rows = np.flatnonzero(~clean.labels.any(axis=1))
    store = pasted_store(clean, 32)
    assert np.array_equal(store.healthy, clean.images[rows])
    for column in ("name", "patient", "split"):
        assert store.table[column].tolist() == clean.table[column][rows].tolist()
    assert store.source == f"pasted: {clean.source}"
    small = pasted_store(clean, 16)
    assert small.size == 16 and small.images.shape[1:] == (1, 16, 16)


def test_pictures_and_places_follow_the_seed(clean):
    prints = [pasted_store(clean, 32, seed=seed).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_what_a_reading_calls_not_normal_is_not_pasted_into():
    images = np.random.default_rng(0).integers(0, 255, (12, 1, 32, 32)).astype(np.uint8)
    said = ["Normal", "No Lung Opacity / Not Normal"] * 6
    table = [
        {"name": str(i), "patient": str(i), "split": "train", "reading": said[i]} for i in range(12)
    ]
    labels = np.zeros((12, 1), np.uint8)
    store = ArrayStore.from_arrays(images, labels, ("Pneumonia",), table_rows=table)
    made = pasted_store(store, 32)
    assert made.table["name"].tolist() == [str(i) for i in range(0, 12, 2)]
    assert set(made.table["reading"]) == {"Normal"}


def test_a_store_without_normal_images_is_refused():
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    store = ArrayStore.from_arrays(images, np.ones((4, 1), dtype=np.uint8), ("A",))
    with pytest.raises(StoreError, match="expected at least 4 normal images to paste into, got 0"):
        pasted_store(store, 8)


def test_pasted_images_are_a_split_of_one_disease(clean):
    split = one_disease(pasted_store(clean, 32), disease=PASTED)
    assert split.classes == (PASTED,) and len(split.normal()) and len(split.abnormal())
    assert split.with_truth("train").tolist() == split.abnormal().tolist()
    simulated = Source(data="pasted").one_disease(32, 0, 60)
    assert simulated.classes == (PASTED,) and "pasted" in simulated.name
