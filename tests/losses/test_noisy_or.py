"""Noisy-or: by hand on four patches, its limits, its gradients."""

import math

import pytest
import torch

from cxrtut.losses.noisy_or import log_image_probability, log_normalised


def logit(p: float) -> float:
    return math.log(p / (1 - p))


PATCHES = (0.9, 0.2, 0.3, 0.6)
Z = torch.tensor([logit(p) for p in PATCHES]).view(1, 1, 2, 2)
NONE = 0.1 * 0.8 * 0.7 * 0.4


def test_at_least_one_of_four_patches_by_hand():
    log_some, log_none = log_image_probability(torch.nn.functional.logsigmoid(-Z))
    assert log_none.exp().item() == pytest.approx(NONE, rel=1e-5)
    assert log_some.exp().item() == pytest.approx(1 - NONE, rel=1e-6)


def test_normalised_probabilities_go_from_98_percent_to_one():
    present, absent = log_normalised(torch.tensor([-90.0, logit(0.3), 90.0]).view(1, 1, 1, 3))
    assert present.exp().flatten().tolist() == pytest.approx([0.98, 0.986, 1.0], rel=1e-6)
    assert absent.exp().flatten().tolist() == pytest.approx([1.0, 0.994, 0.98], rel=1e-6)


def test_a_patch_that_is_almost_surely_empty_keeps_its_logarithm():
    _, absent = log_normalised(torch.full((1, 1, 1, 1), -40.0))
    assert absent.item() == pytest.approx(-0.02 * math.exp(-40), rel=1e-5)


def test_the_largest_normalised_probability_depends_on_the_number_of_patches():
    for side, largest in ((8, 0.73), (16, 0.994)):
        _, absent = log_normalised(torch.full((1, 1, side, side), 50.0))
        p = log_image_probability(absent)[0].exp().item()
        assert p == pytest.approx(1 - 0.98 ** (side * side), rel=1e-5)
        assert p == pytest.approx(largest, abs=5e-3)


@pytest.mark.parametrize("lowest", [0.98, 0.5, 0.2])
def test_values_and_gradients_are_those_of_the_product(lowest):
    torch.manual_seed(0)
    z = (3 * torch.randn(4, 3, 5, 5)).requires_grad_()
    slow = z.detach().double().requires_grad_()
    p = 1 - (1 - (1 - lowest) * slow.sigmoid()).flatten(2).prod(2)
    (p.log() - torch.log1p(-p)).sum().backward()
    log_some, log_none = log_image_probability(log_normalised(z, lowest)[1])
    (log_some - log_none).sum().backward()
    torch.testing.assert_close(log_some, p.log().float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_none, torch.log1p(-p).float(), rtol=1e-4, atol=1e-4)
    assert z.grad is not None and slow.grad is not None and (z.grad > 0).all()
    torch.testing.assert_close(z.grad, slow.grad.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", [-1e4, -100.0, -30.0, 0.0, 30.0, 1e4])
def test_extreme_patches_give_finite_values_and_gradients(level):
    z = torch.full((1, 2, 16, 16), level, requires_grad=True)
    log_some, log_none = log_image_probability(log_normalised(z)[1])
    (log_some - log_none).sum().backward()
    assert log_some.isfinite().all() and log_none.isfinite().all()
    assert z.grad is not None and z.grad.isfinite().all()
