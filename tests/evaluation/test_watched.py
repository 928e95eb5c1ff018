"""What is watched during a training is what is measured after it."""

import pytest
import torch
from evaluation.answers import Says

from cxrtut.evaluation.pixels import pixel_localisation
from cxrtut.evaluation.roc import roc
from cxrtut.evaluation.watched import METRICS, watched, watched_measure
from cxrtut.experiments.source import Source

WHOLE = {"pixel_ap": pixel_localisation, "pixel_auroc": roc}


@pytest.fixture(scope="module")
def split():
    return Source().one_disease(32, 0, 96)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("side", ["train", "test"])
@pytest.mark.parametrize("at_most", [None, 5])
def test_it_is_the_number_of_that_side_and_so_many_images(split, metric, side, at_most):
    # A map whose range is another in each image: it has to be normalised
    system = Says(lambda x: (x + 1) * (1 + (1000 * x.mean((1, 2, 3), keepdim=True)) % 7))
    found = watched_measure(metric, side, at_most).measure(system, split, side)
    whole = WHOLE[metric](system, split, side, at_most=at_most)
    assert found == {metric: whole[metric]}
    everywhere = pixel_localisation(system, split, side, at_most=at_most)
    assert everywhere["pixel_ap"] != pytest.approx(everywhere["pixel_ap_global_norm"], abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_sides_and_numbers_of_images_differ(split, metric):
    system = Says(lambda x: x + 1)
    every = [
        watched(system, split, side, metric=metric, at_most=n)[metric]
        for side in ("train", "test")
        for n in (None, 5)
    ]
    assert len(set(every)) == 4


@pytest.mark.parametrize("metric", METRICS)
def test_without_heat_maps_or_an_outline_there_is_no_number(split, metric):
    measure = watched_measure(metric, "validation")
    assert measure.measure(Says(torch.abs), split, "validation") == {}
    assert watched(Says(lambda x: None), split, "test", metric=metric) == {}
    assert measure.side == "validation" and measure.better == {metric: "higher"}


def test_another_metric_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="metric: expected one of pixel_ap, pixel_auroc, got 'ap'"):
        watched_measure("ap", "train")
