import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from cxrtut.losses.gradient_penalty import gradient_penalty

SHAPE = (4, 2, 3, 5)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images() -> tuple[Tensor, Tensor, Tensor]:
    mix = torch.rand(4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return numbers(*SHAPE, seed=1), numbers(*SHAPE, seed=2), mix


def small_critic() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 3, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(45, 1))
    return nn.Sequential(*layers)


def test_a_linear_critic_pays_for_the_norm_of_its_weight():
    weight = numbers(*SHAPE[1:])
    penalty = gradient_penalty(lambda x: (x * weight).sum((1, 2, 3)) + 7, *images())
    assert math.isclose(penalty.item(), (weight.norm() - 1) ** 2, rel_tol=1e-12)
    assert (
        gradient_penalty(lambda x: (x * weight / weight.norm()).sum((1, 2, 3)), *images()) < 1e-24
    )


def test_the_norm_is_that_of_the_whole_gradient_of_an_image():
    """A slope of 2 at all of the 30 numbers of an image has norm 2 √30. Over one axis, a slip of
    two public ports, it would be less, and over the batch more.
    """
    penalty = gradient_penalty(lambda x: 2 * x.sum((1, 2, 3)), *images())
    assert math.isclose(penalty.item(), (2 * math.sqrt(30) - 1) ** 2, rel_tol=1e-12)


def test_a_quadratic_critic_pays_at_the_mixture_of_real_and_fake():
    real, fake, mix = images()
    penalty = gradient_penalty(lambda x: 1.5 * x.square().sum((1, 2, 3)), real, fake, mix)
    expected = 0.0
    for a, x, y in zip(mix.tolist(), real, fake, strict=True):
        expected += (3 * math.sqrt(sum(v**2 for v in (a * x + (1 - a) * y).flatten())) - 1) ** 2 / 4
    assert math.isclose(penalty.item(), expected, rel_tol=1e-12)


@pytest.mark.parametrize(("mix", "where"), [(1.0, 0), (0.0, 1)])
def test_a_mix_of_one_is_the_real_image_and_of_zero_the_fake(mix, where):
    real, fake, share = images()
    seen = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.sum((1, 2, 3))

    gradient_penalty(critic, real, fake, torch.full_like(share, mix))
    assert len(seen) == 1 and torch.equal(seen[0], (real, fake)[where])


def test_the_slope_of_a_map_of_scores_is_that_of_their_sum():
    scored = gradient_penalty(lambda x: 3 * x.sum(1, keepdim=True), *images())
    assert math.isclose(scored.item(), (3 * math.sqrt(30) - 1) ** 2, rel_tol=1e-12)


def test_the_gradient_of_the_penalty_agrees_with_finite_differences():
    critic, (real, fake, mix) = small_critic().double(), images()
    names = [name for name, _ in critic.named_parameters()]

    def penalty(*weights: Tensor) -> Tensor:
        parameters = dict(zip(names, weights, strict=True))
        return gradient_penalty(lambda x: functional_call(critic, parameters, x), real, fake, mix)

    # the last bias moves no slope
    assert names[-1] == "3.bias"
    weights = [p.detach().clone().requires_grad_() for p in critic.parameters()]
    assert torch.autograd.gradcheck(lambda *w: penalty(*w, weights[-1]), weights[:-1])
    slopes = torch.autograd.grad(penalty(*weights), weights, allow_unused=True)
    assert slopes[-1] is None and all(slope.abs().max() > 1e-3 for slope in slopes[:-1])


def test_the_gradient_goes_to_the_critic_and_nowhere_else():
    critic, (real, fake, mix) = small_critic().double(), images()
    for tensor in (real, fake, mix):
        tensor.requires_grad_()
    gradient_penalty(critic, real, fake, mix).backward()
    assert critic[0].weight.grad.abs().max() > 0
    assert real.grad is None and fake.grad is None and mix.grad is None


def test_the_generator_behind_the_fakes_is_not_reached():
    generator, critic, (real, fake, mix) = nn.Conv2d(2, 2, 1).double(), small_critic(), images()
    gradient_penalty(critic.double(), real, generator(fake), mix).backward()
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_the_order_of_the_batch_does_not_matter_and_each_image_pays_for_itself():
    critic, (real, fake, mix) = small_critic().double(), images()
    whole = gradient_penalty(critic, real, fake, mix)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(gradient_penalty(critic, real[order], fake[order], mix[order]), whole)
    single = [
        gradient_penalty(critic, real[k, None], fake[k, None], mix[k, None]) for k in range(4)
    ]
    assert torch.allclose(torch.stack(single).mean(), whole)
    assert torch.stack(single).std() > 1e-4


def test_nothing_is_drawn():
    state = torch.get_rng_state()
    first, again = (gradient_penalty(small_critic().double(), *images()) for _ in range(2))
    torch.set_rng_state(state)
    gradient_penalty(lambda x: x.square().sum((1, 2, 3)), *images())
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)


def test_autocast_does_not_reach_the_penalty():
    critic, (real, fake, mix) = small_critic(), (x.float() for x in images())
    plain = gradient_penalty(critic, real, fake, mix)
    plain.backward()
    slope = critic[0].weight.grad.clone()
    critic.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        assert critic(real).dtype == torch.bfloat16
        reduced = gradient_penalty(critic, real, fake, mix)
    reduced.backward()
    assert torch.equal(reduced, plain) and torch.equal(critic[0].weight.grad, slope)


def test_a_fake_in_half_precision_is_judged_in_float32():
    real, fake, mix = (x.float() for x in images())
    half = fake.bfloat16()
    penalty = gradient_penalty(small_critic(), real, half, mix)
    assert penalty.dtype == torch.float32
    assert torch.equal(penalty, gradient_penalty(small_critic(), real, half.float(), mix))
    both = gradient_penalty(small_critic(), real.bfloat16(), half, mix)
    assert both.dtype == torch.float32


def test_a_critic_without_any_slope_pays_one_and_has_finite_gradients():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(30, 1)).double()
    nn.init.zeros_(critic[1].weight)
    penalty = gradient_penalty(critic, *images())
    penalty.backward()
    assert penalty == 1 and torch.isfinite(critic[1].weight.grad).all()


@pytest.mark.parametrize(
    ("real", "fake", "mix", "words"),
    [
        ((4, 1, 8, 8), (3, 1, 8, 8), (4,), "of one shape, at least one of each, got (4, 1, 8, 8)"),
        ((4, 1, 8, 8), (4, 1, 8, 4), (4,), "of each, got (4, 1, 8, 8) and (4, 1, 8, 4)"),
        ((0, 1, 8, 8), (0, 1, 8, 8), (0,), "at least one of each, got (0, 1, 8, 8)"),
        (
            (4, 1, 8, 8),
            (4, 1, 8, 8),
            (1,),
            "expected 4 mixing numbers, one an image, got shape (1,)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(real, fake, mix, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        gradient_penalty(lambda x: x.sum(), torch.zeros(real), torch.zeros(fake), torch.zeros(mix))
