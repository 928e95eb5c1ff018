"""Which images the command line means."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtut.data.pasted import PASTED
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import write_store
from cxrtut.data.store import StoreError
from cxrtut.experiments.source import Source


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("sources") / "store"
    write_store(ChestPhantom(32, prevalence=0.7), path, 60)
    return path


def test_unknown_data_are_refused_when_they_are_named():
    with pytest.raises(StoreError, match="expected one of phantom, store, pasted, got 'mimic'"):
        Source(data="mimic")


def test_simulated_images_are_as_many_and_of_the_preset_and_seed_asked_for():
    source = Source(images=40, phantom_preset="hard", disease="Effusion")
    one = source.one_disease(32, 2, 100)
    expected = ChestPhantom(32, "hard", seed=2, classes=("Effusion",)).batch(torch.arange(40))
    assert len(one.store) == 40 and one.classes == ("Effusion",)
    found = one.batch(np.arange(40)).image
    assert (found - expected.image).abs().max() <= 1 / 127
    assert one.identity["preset"] == "hard" and one.identity["seed"] == 2
    labels, other = source.all_diseases(32, 2, 100), source.all_diseases(32, 3, 100)
    assert len(labels.store) == 40 and len(labels.classes) == 8 and labels.poses is not None
    assert labels.identity != other.identity
    assert not np.array_equal(labels.store.store.images, other.store.store.images)
    assert len(Source().all_diseases(32, 0, 24).store) == 24


def test_a_store_is_read_at_the_size_asked_for(root):
    source = Source(data="store", root=root, disease="Effusion")
    one, labels = source.one_disease(16, 0, 0), source.all_diseases(16, 0, 0)
    assert one.classes == ("Effusion",) and one.size == 16
    assert len(labels.classes) == 8 and labels.size == 16 and len(labels.store) == 60
    assert one.identity["fingerprint"] == labels.identity["fingerprint"]


def test_pasted_biomarkers_are_no_diseases_to_label(root):
    for source in (Source(data="pasted"), Source(data="pasted", root=root)):
        with pytest.raises(StoreError, match="--data pasted: expected phantom or store"):
            source.all_diseases(16, 0, 0)


def test_biomarkers_are_pasted_into_a_store_or_into_simulated_normal_images(root):
    simulated, own = Source(data="pasted", images=40), Source(data="pasted", root=root)
    one, other = simulated.one_disease(32, 0, 0), own.one_disease(32, 0, 0)
    assert one.classes == other.classes == (PASTED,)
    assert len(one.store) == 40 and 4 <= len(other.store) < 60
    again = simulated.one_disease(32, 1, 0)
    assert not np.array_equal(one.store.store.images, again.store.store.images)
    assert str(other.identity["source"]).startswith("pasted")


def test_what_does_not_go_with_the_data_is_refused(root):
    with pytest.raises(StoreError, match=r"--data store: expected --data-root .*got none"):
        Source(data="store")
    with pytest.raises(StoreError, match="--data phantom: expected no --data-root, got"):
        Source(root=root)
    with pytest.raises(StoreError, match="--where: expected --data-root"):
        Source(where={"view": "PA"})
    with pytest.raises(StoreError, match="--images: expected none with --data-root"):
        Source(data="pasted", root=root, images=3)
    with pytest.raises(StoreError, match="no_such_column"):
        Source(data="pasted", root=root, where={"no_such_column": "PA"}).one_disease(16, 0, 0)
    with pytest.raises(StoreError, match="nowhere"):
        Source(data="store", root=Path("nowhere")).one_disease(16, 0, 0)


def test_a_source_is_what_the_command_line_can_say():
    assert [f.name for f in fields(Source)] == [
        "data", "root", "disease", "where", "phantom_preset", "images"
    ]  # fmt: skip
