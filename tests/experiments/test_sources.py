"""Which images the command line means."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from cxrtut.experiments.label_study import phantom_labels
from cxrtut.experiments.sources import Source
from cxrtut.experiments.studies import PASTED, phantom_study

from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import write_store
from cxrtut.data.store import StoreError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("sources") / "store"
    write_store(ChestPhantom(32, prevalence=0.7), path, 60)
    return path


def test_unknown_data_are_refused_when_they_are_named():
    with pytest.raises(StoreError, match="expected phantom, nih or pasted, got 'mimic'"):
        Source(data="mimic")


def test_simulated_images_are_as_many_and_of_the_preset_and_seed_asked_for():
    source = Source(images=40, phantom_preset="hard", disease="Effusion")
    same = phantom_study(32, n=40, preset="hard", disease="Effusion", seed=2)
    assert source.study(32, 2).store.fingerprint == same.store.fingerprint
    labels = source.label_study(32, 2)
    alike = phantom_labels(32, n=40, preset="hard", seed=2)
    assert len(labels.store) == 40 and labels.store.fingerprint == alike.store.fingerprint
    assert labels.store.fingerprint != source.label_study(32, 3).store.fingerprint


def test_a_store_is_read_at_the_size_asked_for(root):
    source = Source(data="nih", root=root, disease="Effusion")
    one, labels = source.study(16, 0), source.label_study(16, 0)
    assert one.store.classes == ("Effusion",) and one.store.size == 16
    assert len(labels.store.classes) == 8 and labels.store.size == 16 and len(labels.store) == 60


def test_pasted_biomarkers_are_no_diseases_to_label(root):
    with pytest.raises(StoreError, match="--data pasted: expected phantom or nih"):
        Source(data="pasted").label_study(16, 0)
    with pytest.raises(StoreError, match="--data pasted: expected phantom or nih"):
        Source(data="pasted", root=root).label_study(16, 0)


def test_biomarkers_are_pasted_into_a_store_or_into_simulated_normal_images(root):
    simulated, own = Source(data="pasted", images=40), Source(data="pasted", root=root)
    one, other = simulated.study(32, 0), own.study(32, 0)
    assert one.store.classes == other.store.classes == (PASTED,)
    assert len(one.store) == 40 and 4 <= len(other.store) < 60
    assert not np.array_equal(one.store.images, simulated.study(32, 1).store.images)


@pytest.mark.parametrize("ask", ["study", "label_study"])
def test_a_store_is_needed_for_nih_and_forbidden_for_the_simulation(ask, root):
    with pytest.raises(StoreError, match=r"--data nih: expected --data-root .*got none"):
        getattr(Source(data="nih"), ask)(16, 0)
    with pytest.raises(StoreError, match="--data phantom: expected no --data-root, got"):
        getattr(Source(root=root), ask)(16, 0)
    with pytest.raises(StoreError, match="nowhere"):
        getattr(Source(data="nih", root=Path("nowhere")), ask)(16, 0)


def test_a_source_is_what_the_command_line_can_say():
    assert [f.name for f in fields(Source)] == [
        "data", "root", "disease", "phantom_preset", "images"
    ]  # fmt: skip
