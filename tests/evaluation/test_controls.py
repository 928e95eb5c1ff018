"""Floor and ceiling of a pixel AP, against scikit-learn on maps that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.answers import Says
from sklearn.metrics import average_precision_score

from cxrtut.data.split import ground_truth
from cxrtut.evaluation.controls import BETTER, controls, controls_measure
from cxrtut.experiments.source import Source


@pytest.fixture(scope="module")
def split():
    return Source().one_disease(32, 0, 96)


def unit(maps):
    low = maps.min((1, 2), keepdims=True)
    return (maps - low) / (maps.max((1, 2), keepdims=True) - low)


def ap(maps, truth):
    return average_precision_score(truth.ravel(), maps.ravel())


@pytest.mark.parametrize("at_most", [None, 6])
def test_the_floor_is_the_mean_map_of_the_others_and_the_ceiling_the_twin(split, at_most):
    found = controls(Says(lambda x: (x + 1) ** 2), split, "test", at_most=at_most)
    rows = split.with_truth("test", at_most)
    batch = split.batch(rows)
    truth = ground_truth(batch).numpy()
    own = unit(((batch.image + 1) ** 2)[:, 0].double().numpy())
    others = np.stack([np.delete(own, i, axis=0).mean(0) for i in range(len(own))])
    assert found["pixel_ap_others"] == pytest.approx(ap(unit(others), truth), abs=2e-4)
    twin = (batch.image - batch.healthy).abs().mean(1).double().numpy()
    assert found["pixel_ap_twin"] == pytest.approx(ap(unit(twin), truth), abs=2e-4)
    raw = ((batch.image + 1) ** 2)[:, 0].double().numpy()  # as the system gives them
    alike = [np.corrcoef(m.ravel(), (raw.sum(0) - m).ravel())[0, 1] for m in raw]
    assert found["likeness_to_others"] == pytest.approx(np.mean(alike), abs=1e-5)
    assert 0.7 < found["pixel_ap_twin"] < 1 and found["pixel_ap_others"] < 0.4


def test_one_map_for_all_is_its_own_floor(split):
    template = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = controls(Says(lambda x: template.expand(len(x), -1, -1, -1)), split, "test")
    assert found["likeness_to_others"] == pytest.approx(1.0)


def test_an_image_with_a_constant_map_has_no_likeness_and_takes_none_away(split):
    rows = split.with_truth("test")
    first = split.batch(rows[:1]).image[0]

    def heat(images):
        same = (images == first).flatten(1).all(1)[:, None, None, None]
        return torch.where(same, torch.zeros_like(images), images + 1)

    found = controls(Says(heat), split, "test")["likeness_to_others"]
    maps = heat(split.batch(rows).image)[:, 0].double().numpy()
    others = [np.delete(maps, i, axis=0).sum(0).ravel() for i in range(len(maps))]
    alike = [np.corrcoef(m.ravel(), o)[0, 1] for m, o in zip(maps[1:], others[1:], strict=True)]
    assert found == pytest.approx(np.mean(alike), abs=1e-5)


def test_a_measure_is_of_so_many_images_as_it_was_asked_for(split):
    says = Says(lambda x: x + 1)
    few = controls_measure("test", 6).measure(says, split, "test")
    assert few == controls(says, split, "test", at_most=6) != controls(says, split, "test")


def test_what_cannot_be_known_is_left_out(split):
    says = Says(lambda x: x.abs())
    stored = split.store
    without = replace(split, store=replace(stored, store=replace(stored.store, healthy=None)))
    assert set(controls(says, without, "test")) == set(BETTER) - {"pixel_ap_twin"}
    one = replace(split, test=split.with_truth("test")[:1])
    assert controls(says, one, "test") == controls(Says(lambda x: None), split, "test") == {}
    measure = controls_measure("test")
    assert set(measure.measure(says, split, "test")) == set(measure.better) == set(BETTER)
