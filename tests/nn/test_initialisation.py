import pytest
import torch
from torch import nn

from cxrtut.nn.initialisation import initialise_normal


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(8, 64, 4),
        nn.BatchNorm2d(64),
        nn.ConvTranspose2d(64, 32, 4),
        nn.InstanceNorm2d(32),
        nn.GroupNorm(4, 32),
        nn.PReLU(),
        nn.Linear(32, 256),
    )


def test_weights_have_the_mean_and_the_deviation_asked_for_and_biases_are_zero():
    made = network()
    initialise_normal(made, 0.02, seeded(0))
    for part, mean in ((made[0], 0), (made[1], 1), (made[2], 0), (made[4], 1), (made[6], 0)):
        weight, n = part.weight.detach().double(), part.weight.numel()
        assert abs(weight.mean() - mean) < 4 * 0.02 / n**0.5, part
        assert abs(weight.std() / 0.02 - 1) < 4 / (2 * n) ** 0.5, part
        assert weight.unique().numel() > 0.9 * n and (part.bias == 0).all(), part


def test_the_same_generator_gives_the_same_network_and_another_seed_another():
    first, second, third = network(), network(), network()
    state = torch.get_rng_state()
    for made, seed in ((first, 1), (second, 1), (third, 2)):
        initialise_normal(made, 0.02, seeded(seed))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first[0].weight, third[0].weight)


def test_two_equal_layers_get_different_weights():
    made = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    initialise_normal(made, 0.02, seeded(0))
    assert not torch.equal(made[0].weight, made[1].weight)


def test_other_parameters_and_running_statistics_stay():
    made = network()
    made[1].running_mean.fill_(3.0)
    initialise_normal(made, 0.02, seeded(0))
    assert made[5].weight.item() == 0.25 and (made[1].running_mean == 3.0).all()


def test_a_part_can_be_initialised_alone():
    made = network()
    before = made[2].weight.detach().clone()
    initialise_normal(made[0], 0.02, seeded(0))
    assert torch.equal(made[2].weight, before) and made[0].weight.std() < 0.03


def test_parameters_stay_leaves_that_can_be_trained():
    made = network()
    initialise_normal(made, 0.02, seeded(0))
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in made.parameters())


def test_a_deviation_of_zero_gives_the_means_and_a_negative_one_is_refused():
    made = network()
    initialise_normal(made, 0.0, seeded(0))
    assert (made[0].weight == 0).all() and (made[1].weight == 1).all()
    with pytest.raises(ValueError, match=r"expected a standard deviation of 0 or more, got -0\.1"):
        initialise_normal(made, -0.1, seeded(0))
