"""Studies: who is trained on, who is scored, and what is known of them."""

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from cxrtut.experiments.studies import (
    Study,
    disease_study,
    ground_truth,
    pasted_study,
    phantom_study,
)

from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory, write_store
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.experiments import studies


def patients(study, rows):
    return set(study.store.table["patient"][rows].tolist())


@pytest.fixture(scope="module")
def simulated():
    return phantom_study(32, n=100, disease="Effusion")


def test_no_patient_is_trained_on_and_held_out(simulated):
    s = simulated
    trained = patients(s, s.normal) | patients(s, s.abnormal)
    out = patients(s, s.held_out) | patients(s, s.held_out_normal)
    assert trained and out and not trained & out
    assert set(s.same) <= set(s.abnormal)


def test_labels_fit_the_rows(simulated):
    s = simulated
    assert s.store.classes == ("Effusion",)
    assert s.store.labels[s.abnormal].all() and s.store.labels[s.held_out].all()
    assert not s.store.labels[s.normal].any() and not s.store.labels[s.held_out_normal].any()


def test_batches_hold_normal_and_abnormal_images_in_turn(simulated):
    for batch in islice(simulated.feed().batches(batch_size=8, seed=0), 3):
        assert batch.label_vector[:, 0].tolist() == [0, 1] * 4


def test_the_ground_truth_is_the_mask_or_the_boxes(simulated):
    batch = simulated.store.batch(simulated.held_out)
    truth = ground_truth(batch)
    assert torch.equal(truth, batch.mask[:, 0]) and truth.any((1, 2)).all()
    boxed = ground_truth(replace(batch, mask=None))
    assert (boxed >= truth).all() and boxed.sum() > truth.sum()


def test_pasting_changes_every_other_normal_image_where_the_mask_says():
    clean = in_memory(ChestPhantom(32, prevalence=0.5), 40)
    study = pasted_study(clean, 32)
    n_normal = int((~clean.labels.any(1)).sum())
    assert len(study.store) == n_normal and study.store.classes == (studies.PASTED,)
    batch = study.store.batch(np.arange(n_normal))
    ill = batch.label_vector[:, 0] > 0
    assert ill.tolist() == [i % 2 == 1 for i in range(n_normal)]
    changed = (batch.image != batch.healthy).any(1)
    assert not changed[~ill].any() and changed[ill].any((1, 2)).all()
    inside = ground_truth(batch)
    grown = torch.nn.functional.max_pool2d(inside.float(), 5, 1, 2).bool()
    assert not (changed & ~grown).any() and changed[inside].float().mean() > 0.9


def test_without_a_test_split_a_fifth_of_the_patients_is_held_out():
    images = np.zeros((200, 1, 8, 8), dtype=np.uint8)
    labels = (np.arange(200) % 2).astype(np.uint8)[:, None]
    study = Study.of("toy", ArrayStore.from_arrays(images, labels, ("A",)))
    assert 10 <= len(study.held_out_normal) <= 30 and len(study.held_out) == 0
    assert 140 < len(study.normal) + len(study.abnormal) < 180 and len(study.same) == 0


def test_a_disease_of_a_store_or_any_of_them_against_the_normal_images(tmp_path):
    write_store(ChestPhantom(32), tmp_path / "store", 60)
    store = ArrayStore.open(tmp_path / "store")
    one = disease_study(tmp_path / "store", 32, disease="Effusion")
    assert one.store.classes == ("Effusion",)
    assert len(one.abnormal) + len(one.held_out) == len(store.rows(label="Effusion"))
    whole = disease_study(tmp_path / "store", 16, disease="any")
    assert len(whole.store) == 60 and whole.store.classes == store.classes
    assert whole.store.size == 16
    with pytest.raises(StoreError, match="got 'Gout'"):
        disease_study(tmp_path / "store", 32, disease="Gout")


def test_at_most_so_many_images_are_scored_evenly(monkeypatch):
    monkeypatch.setattr(studies, "EVALUATED", 5)
    study = phantom_study(32, n=60)
    assert len(study.same) == 5 and study.same[0] == study.abnormal[0]
    assert study.same[-1] == study.abnormal[-1]


def test_a_store_without_normal_or_abnormal_images_is_refused():
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    store = ArrayStore.from_arrays(images, np.ones((4, 1), dtype=np.uint8), ("A",))
    with pytest.raises(StoreError, match=r"toy: expected normal .*got 0 and 4"):
        Study.of("toy", store)
    with pytest.raises(StoreError, match="expected at least 4 normal images to paste into, got 0"):
        pasted_study(store, 8)


@pytest.mark.skipif("CXRTUT_REAL_DATA" not in os.environ, reason="CXRTUT_REAL_DATA is not set")
def test_real_pneumonia_against_real_normal_images_with_their_boxes(tmp_path):
    import subprocess
    import sys

    real = Path(os.environ["CXRTUT_REAL_DATA"])
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable, str(root / "data_scripts" / "prepare_nih.py"), "--from",
        str(real / "nih_cxr" / "images"), str(real / "nih_rsna_metadata"), "--out",
        str(tmp_path / "nih"), "--accept-licence", "--rsna-boxes", "--size", "64",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    study = disease_study(tmp_path / "nih", 64)
    scored = np.concatenate([study.same, study.held_out])
    assert len(scored) > 20 and study.store.masks is None
    truth = ground_truth(study.store.batch(scored))
    assert truth.any((1, 2)).all() and 0.02 < truth.float().mean() < 0.5
