import math

import pytest
import torch

from cxrtut.losses.adversarial import (
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    non_saturating_discriminator_loss,
    non_saturating_generator_loss,
    wasserstein_critic_loss,
    wasserstein_generator_loss,
)

JUDGES = [
    wasserstein_critic_loss,
    least_squares_discriminator_loss,
    non_saturating_discriminator_loss,
]
GENERATORS = [
    wasserstein_generator_loss,
    least_squares_generator_loss,
    non_saturating_generator_loss,
]
REAL, FAKE = torch.tensor([1.0, 3.0]), torch.tensor([2.0, -1.0, 5.0])


def test_the_wasserstein_losses_by_hand():
    assert wasserstein_critic_loss(REAL, FAKE) == 2.0 - 2.0
    assert wasserstein_critic_loss(REAL + 1, FAKE) == -1.0
    assert wasserstein_generator_loss(FAKE) == -2.0


def test_the_least_squares_losses_by_hand():
    assert least_squares_discriminator_loss(REAL, FAKE) == (0 + 4) / 2 + (4 + 1 + 25) / 3
    assert least_squares_generator_loss(FAKE) == (1 + 4 + 16) / 3


def test_the_least_squares_losses_vanish_where_each_side_has_won():
    assert least_squares_discriminator_loss(torch.ones(3), torch.zeros(2)) == 0
    assert least_squares_generator_loss(torch.ones(3)) == 0


def test_the_non_saturating_losses_are_those_of_goodfellow():
    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    real = sum(math.log(sigmoid(z)) for z in REAL.tolist()) / 2
    fake = sum(math.log(1 - sigmoid(z)) for z in FAKE.tolist()) / 3
    loss = non_saturating_discriminator_loss(REAL.double(), FAKE.double())
    assert math.isclose(loss.item(), -real - fake, rel_tol=1e-12)
    expected = -sum(math.log(sigmoid(z)) for z in FAKE.tolist()) / 3
    loss = non_saturating_generator_loss(FAKE.double())
    assert math.isclose(loss.item(), expected, rel_tol=1e-12)


def test_a_discriminator_that_knows_nothing_loses_twice_the_logarithm_of_two():
    loss = non_saturating_discriminator_loss(torch.zeros(4), torch.zeros(4))
    assert math.isclose(loss.item(), 2 * math.log(2), rel_tol=1e-6)


def test_the_generators_gradient_does_not_vanish_where_the_discriminator_is_sure():
    logit = torch.tensor([-40.0], requires_grad=True)
    non_saturating_generator_loss(logit).backward()
    assert torch.allclose(logit.grad, torch.tensor([-1.0]))


@pytest.mark.parametrize("loss", JUDGES)
def test_a_judge_wants_real_scores_up_and_fake_scores_down(loss):
    real, fake = torch.zeros(3, requires_grad=True), torch.full((3,), 0.5, requires_grad=True)
    loss(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()


@pytest.mark.parametrize("loss", GENERATORS)
def test_a_fake_that_looks_fake_costs_the_generator_more(loss):
    fake = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    loss(fake).backward()
    assert (fake.grad < 0).all()
    assert loss(torch.tensor([-2.0])) > loss(torch.tensor([0.0])) > loss(torch.tensor([0.9]))


@pytest.mark.parametrize("loss", JUDGES)
def test_a_map_of_scores_counts_every_patch_alike(loss):
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 2, 1, 3, 5, generator=generator, dtype=torch.float64)
    assert torch.allclose(loss(real, fake), loss(real.flatten(), fake.flatten()))
    assert torch.allclose(loss(torch.cat((real, real)), fake), loss(real, fake))


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_give_finite_losses_and_gradients(size):
    real, fake = torch.tensor([-size], requires_grad=True), torch.tensor([size], requires_grad=True)
    loss = non_saturating_discriminator_loss(real, fake) + non_saturating_generator_loss(-fake)
    loss.backward()
    assert math.isclose(loss.item(), 3 * size, rel_tol=1e-6)
    assert (real.grad, fake.grad) == (torch.tensor([-1.0]), torch.tensor([2.0]))


def test_means_of_half_precision_scores_are_taken_in_float32():
    score = torch.full((1000,), 100.0, dtype=torch.bfloat16)
    closer = score.clone()
    closer[:10] += 4.0  # a mean of 100.04, which bfloat16 cannot say
    assert torch.allclose(wasserstein_critic_loss(closer, score), torch.tensor(-0.04), atol=1e-4)
    assert all(loss(score).dtype == torch.float32 for loss in GENERATORS)
    assert all(loss(score.double(), score.double()).dtype == torch.float64 for loss in JUDGES)


@pytest.mark.parametrize("loss", JUDGES)
def test_no_scores_are_an_error(loss):
    for real, fake in ((torch.zeros(0, 1), REAL), (REAL, torch.zeros(0, 1))):
        with pytest.raises(ValueError, match=r"expected at least one score, got shape \(0, 1\)"):
            loss(real, fake)


@pytest.mark.parametrize("loss", GENERATORS)
def test_no_fakes_are_an_error(loss):
    with pytest.raises(ValueError, match=r"expected at least one score, got shape \(0,\)"):
        loss(torch.zeros(0))
