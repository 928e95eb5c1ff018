"""Whether heat maps depend on what was learnt: systems of which a test knows."""

import math

import numpy as np
import pytest
import torch
from evaluation.localised import study_of
from torch import nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.data.sample import Prediction
from cxrtut.evaluation.randomisation import (
    BETTER,
    parameter_randomisation,
    randomisation_measure,
    randomised,
    shuffle_parameters,
)
from cxrtut.experiments.source import Source
from cxrtut.metrics.intervals import bootstrap_interval
from cxrtut.metrics.sameness import rank_correlation


class Localiser:
    """Heat is a function of the image and, where it is asked for, of what the network says."""

    size, channels = 32, 1

    def __init__(self, network, heat, classes=("Pneumonia",)):
        self.networks, self.heat, self.classes = {"network": network}, heat, classes

    def predict(self, images):
        with torch.no_grad():
            return Prediction(heatmap=self.heat(self.networks["network"], images))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2))


@pytest.fixture(scope="module")
def split():
    return Source().one_disease(32, 0, 64)


def of_the_network(net, images):
    return net(images)


def of_the_image(net, images):
    return images.abs()


def test_a_map_of_the_image_alone_stays_and_one_of_the_network_does_not(split):
    stays = parameter_randomisation(Localiser(network(), of_the_image), split, "test")
    assert stays["randomised_likeness"] == pytest.approx(1.0)
    assert stays["randomised_likeness_low"] == pytest.approx(1.0)
    torch.manual_seed(1)
    noise = nn.ParameterDict({"template": torch.randn(1, 1, 32, 32)})
    gone = parameter_randomisation(
        Localiser(noise, lambda net, images: net["template"].expand(len(images), -1, -1, -1)),
        split, "test",
    )  # fmt: skip
    assert abs(gone["randomised_likeness"]) < 0.1


def test_it_is_the_mean_rank_correlation_with_the_shuffled_network(split):
    system = Localiser(network(), of_the_network)
    found = parameter_randomisation(system, split, "test", at_most=5, seed=3)
    rows = split.abnormal("test")[np.linspace(0, len(split.abnormal("test")) - 1, 5).astype(int)]
    images = split.batch(rows).image
    other = randomised(system, 3)
    pair = (of.predict(images).heatmap[:, 0] for of in (system, other))
    expected = rank_correlation(*pair).mean()
    assert found["randomised_likeness"] == pytest.approx(expected.item(), abs=1e-6)
    low, high = found["randomised_likeness_low"], found["randomised_likeness_high"]
    assert low < found["randomised_likeness"] < high
    again = parameter_randomisation(system, split, "test", at_most=5, seed=3)
    assert again == found
    assert parameter_randomisation(system, split, "test", at_most=5, seed=4) != found


def test_the_interval_is_over_patients_and_the_measure_of_so_many_images(split):
    system = Localiser(network(), of_the_network)
    rows = split.abnormal("test")
    assert len(set(split.patients(rows))) < len(rows)
    images = split.batch(rows).image
    pair = (of.predict(images).heatmap[:, 0] for of in (system, randomised(system, 0)))
    known = bootstrap_interval(
        rank_correlation(*pair).float(), 0, patients=split.patients(rows)
    )  # fmt: skip
    found = randomisation_measure("test").measure(system, split, "test")
    assert found["randomised_likeness_low"] == pytest.approx(known.low, abs=1e-6)
    assert found["randomised_likeness_high"] == pytest.approx(known.high, abs=1e-6)
    few = randomisation_measure("test", 5).measure(system, split, "test")
    assert few == parameter_randomisation(system, split, "test", at_most=5) != found


def test_shuffled_parameters_are_the_same_numbers_and_the_system_is_left_alone():
    system = Localiser(network(), of_the_network)
    before = {name: p.clone() for name, p in system.networks["network"].named_parameters()}
    other = randomised(system, 0).networks["network"]
    for name, parameter in other.named_parameters():
        assert torch.equal(system.networks["network"].get_parameter(name), before[name])
        assert torch.equal(parameter.flatten().sort().values, before[name].flatten().sort().values)
        assert parameter.numel() == 1 or not torch.equal(parameter, before[name])


def test_each_parameter_has_an_order_of_its_own():
    pair = nn.ParameterDict({name: torch.arange(20.0) for name in ("one", "other")})
    shuffle_parameters(pair, 0)
    assert not torch.equal(pair["one"], pair["other"])


def test_buffers_stay():
    norm = nn.BatchNorm2d(4)
    norm.running_mean += torch.arange(4.0)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(4.0))
    shuffle_parameters(norm, 1)
    assert norm.running_mean.tolist() == [0, 1, 2, 3] and norm.weight.tolist() != [0, 1, 2, 3]


def test_the_aligner_is_not_touched():
    inner = Localiser(network(), of_the_network)
    aligner = nn.Linear(4, 4)
    system = Aligned(inner, aligner, torch.zeros(1, 1, 32, 32), grid_size=8)
    other = randomised(system, 0)
    assert torch.equal(other.networks["aligner"].weight, aligner.weight)
    assert other.aligner is other.networks["aligner"] is not aligner
    assert other.system.networks["network"] is other.networks["network"]
    assert not torch.equal(other.networks["network"][0].weight, inner.networks["network"][0].weight)


def test_an_image_is_looked_at_by_the_maps_of_the_classes_that_it_has():
    split = study_of(
        (1, 0, 0.0, 0.0, 4.0, 4.0), (2, 1, 0.0, 0.0, 4.0, 4.0), n=3, classes=("A", "B")
    )
    template = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))

    def heat(net, images):  # A is of the network, B is not
        first = net["template"].expand(len(images), -1, -1)
        return torch.stack((first, template[1].expand(len(images), -1, -1)), 1)

    learnt = nn.ParameterDict({"template": template[:1].clone()})
    system = Localiser(learnt, heat, classes=("A", "B"))
    found = parameter_randomisation(system, split, "test")
    shuffled = randomised(system, 0).networks["network"]["template"]
    of_a = rank_correlation(template[:1], shuffled.detach()).item()
    assert found["randomised_likeness"] == pytest.approx((of_a + 1) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("classes", "seen"), [(("any of A, B",), [0]), (("B", "neither", "A"), [0, 2])]
)
def test_of_another_number_of_maps_those_of_the_split_are_added(classes, seen):
    split = study_of((1, 0, 0.0, 0.0, 4.0, 4.0), n=2, classes=("A", "B"))
    maps = torch.rand(len(classes), 16, 16, generator=torch.Generator().manual_seed(0))

    def heat(net, images):
        return net["template"].expand(len(images), -1, -1, -1)

    system = Localiser(nn.ParameterDict({"template": maps}), heat, classes)
    found = parameter_randomisation(system, split, "test")
    shuffled = randomised(system, 0).networks["network"]["template"].detach()
    expected = rank_correlation(maps[seen].sum(0)[None], shuffled[seen].sum(0)[None])
    assert found["randomised_likeness"] == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["no heat", "no parameter", "only an aligner", "constant"])
def test_what_cannot_be_checked_has_no_number(split, kind):
    if kind == "no heat":
        system = Localiser(network(), lambda net, images: None)
    elif kind == "constant":
        system = Localiser(network(), lambda net, images: torch.zeros_like(images))
    else:
        system = Localiser(nn.Identity(), of_the_image)
        if kind == "only an aligner":  # is kept, so that nothing would change
            system.networks["aligner"] = nn.Linear(4, 4)
    measure = randomisation_measure("test")
    assert measure.measure(system, split, "test") == {}
    assert set(measure.better) == set(BETTER)


def test_ranks_are_those_of_scipy_with_ties():
    from scipy.stats import spearmanr

    draw = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 6, (2, 4, 5, 7), generator=draw).float()
    expected = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(expected)
    assert math.isnan(rank_correlation(a[:1], torch.zeros(1, 5, 7)).item())
    with pytest.raises(ValueError, match=r"maps of one shape, got \(4, 5, 7\) and \(1, 5, 7\)"):
        rank_correlation(a, b[:1])
