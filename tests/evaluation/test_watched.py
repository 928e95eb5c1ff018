"""What is watched during a training is what is measured after it."""

import pytest
import torch
from evaluation.answers import Says

from cxrtut.evaluation.pixels import pixel_localisation
from cxrtut.evaluation.watched import pixel_ap, pixel_ap_measure
from cxrtut.experiments.source import Source


@pytest.fixture(scope="module")
def split():
    return Source().one_disease(32, 0, 96)


@pytest.mark.parametrize("side", ["train", "test"])
@pytest.mark.parametrize("at_most", [None, 5])
def test_it_is_the_pixel_ap_of_that_side_and_so_many_images(split, side, at_most):
    # A map whose range is another in each image: it has to be normalised
    system = Says(lambda x: (x + 1) * (1 + (1000 * x.mean((1, 2, 3), keepdim=True)) % 7))
    found = pixel_ap_measure(side, at_most).measure(system, split, side)
    whole = pixel_localisation(system, split, side, at_most=at_most)
    assert found == {"pixel_ap": whole["pixel_ap"]}
    assert whole["pixel_ap"] != pytest.approx(whole["pixel_ap_global_norm"], abs=1e-5)


def test_sides_and_numbers_of_images_differ(split):
    system = Says(lambda x: x + 1)
    every = [
        pixel_ap(system, split, side, at_most=n)["pixel_ap"]
        for side in ("train", "test")
        for n in (None, 5)
    ]
    assert len(set(every)) == 4


def test_without_heat_maps_or_an_outline_there_is_no_number(split):
    measure = pixel_ap_measure("validation")
    assert measure.measure(Says(torch.abs), split, "validation") == {}
    assert pixel_ap(Says(lambda x: None), split, "test") == {}
    assert measure.side == "validation" and measure.better == {"pixel_ap": "higher"}
