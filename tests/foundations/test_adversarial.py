"""Adversarial training on points: the data, whose turn it is, what a game learns, its numbers."""

from dataclasses import replace
from math import exp, hypot

import pytest
import torch
from torch import Tensor, nn

from cxrtut.engine.loop import train
from cxrtut.engine.task import Data, Task, check_task
from cxrtut.foundations import adversarial
from cxrtut.foundations.adversarial import (
    LIMIT,
    CriticAlone,
    DiscriminatorAlone,
    Film,
    NonSaturatingGAN,
    PointBatch,
    Ring,
    SaturatingGAN,
    WassersteinGAN,
)
from cxrtut.losses.adversarial import non_saturating_generator_loss, wasserstein_generator_loss
from cxrtut.losses.gradient_penalty import gradient_penalty

GAMES = (WassersteinGAN, NonSaturatingGAN, SaturatingGAN, CriticAlone, DiscriminatorAlone)


def batch_of(n: int = 32) -> PointBatch:
    uniforms = torch.rand(n, 4, generator=torch.Generator().manual_seed(5))
    return PointBatch(Ring().points(n, "test"), uniforms)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def plane_critic(*w: float) -> nn.Module:
    """D(x) = w · x."""
    linear = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([w]))
    return nn.Sequential(nn.Flatten(), linear)


# The ring


def test_the_modes_lie_evenly_on_the_circle() -> None:
    centres = Ring(n_modes=4, radius=2.0).centres
    expected = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
    torch.testing.assert_close(centres, expected, atol=1e-6, rtol=0)


def test_points_scatter_around_all_modes_with_the_spread_that_was_asked_for() -> None:
    ring = Ring(spread=0.1)
    points = ring.points(8000, 0).flatten(1)
    mode = torch.cdist(points, ring.centres).argmin(1)
    share = torch.bincount(mode, minlength=8) / 8000
    assert share.sub(1 / 8).abs().max() < 0.02
    assert abs((points - ring.centres[mode]).std().item() - 0.1) < 0.005


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    ring = Ring()
    stream = ring.batches(batch_size=8, seed=3)
    first, second = next(stream).image, next(stream).image
    resumed = next(ring.batches(batch_size=8, seed=3, start=1)).image
    assert torch.equal(second, resumed)
    assert not torch.equal(first, second)
    other = next(ring.batches(batch_size=8, seed=4)).image
    assert not torch.equal(first, other)


def test_ranks_share_a_batch_between_them() -> None:
    ring = Ring()
    whole = next(ring.batches(batch_size=8, seed=3)).image
    parts = [next(ring.batches(batch_size=8, seed=3, rank=r, ranks=2)).image for r in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


def test_points_count_where_they_are_within_three_spreads() -> None:
    ring = Ring(n_modes=2, radius=1.0, spread=0.1)  # modes at (1, 0) and (-1, 0)
    points = torch.tensor([[1.0, 0.29], [1.0, -0.31], [-1.0, 0.0], [-1.2, 0.0], [0.0, 0.0]])
    image = points[:, :, None, None]
    assert ring.near(image).tolist() == [1, 2]
    assert ring.modes_reached(image, share=0.2).tolist() == [True, True]
    assert ring.modes_reached(image, share=0.3).tolist() == [False, True]


def test_real_points_reach_every_mode_and_nearly_all_are_near_one() -> None:
    ring = Ring()
    points = ring.points(2000, 0)
    assert ring.modes_reached(points).all()
    expected = 1 - exp(-(3**2) / 2)  # a two-dimensional Gaussian within three standard deviations
    assert abs(ring.near(points).sum().item() / 2000 - expected) < 0.01


@pytest.mark.parametrize(("n_modes", "spread"), [(0, 0.1), (8, 0.0)])
def test_a_ring_without_modes_or_spread_is_refused(n_modes: int, spread: float) -> None:
    with pytest.raises(ValueError, match=f"got {n_modes} modes of spread {spread}"):
        Ring(n_modes=n_modes, spread=spread)


# The games


@pytest.mark.parametrize("game", GAMES)
def test_a_game_is_what_the_loop_takes(game: type) -> None:
    task = game()
    assert isinstance(task, Task) and isinstance(Ring(), Data)
    check_task(task)


@pytest.mark.parametrize("game", [WassersteinGAN, NonSaturatingGAN, SaturatingGAN])
def test_the_critic_moves_as_often_as_it_is_told_then_the_generator(game: type) -> None:
    task = game(critic_steps=3)
    steps = [[(p.name, *p.updates) for p in task.phases(step, 0)] for step in range(6)]
    d, g = ("D", "critic"), ("G", "generator")
    assert steps == [[d], [d], [d, g]] * 2


@pytest.mark.parametrize("game", [CriticAlone, DiscriminatorAlone])
def test_alone_the_critic_learns_and_the_generator_stays(game: type) -> None:
    task = game(seed=1)
    before = {name: weights(network) for name, network in task.networks.items()}
    train(task, Ring(), steps=3, batch_size=16)
    assert torch.equal(weights(task.networks["generator"]), before["generator"])
    assert not torch.equal(weights(task.networks["critic"]), before["critic"])


@pytest.mark.parametrize("game", GAMES)
def test_the_critics_loss_sends_no_gradient_to_the_generator(game: type) -> None:
    task = game()
    loss, _ = task.critic_loss(batch_of())
    loss.backward()
    assert all(p.grad is None for p in task.networks["generator"].parameters())
    assert any(
        p.grad.abs().sum() > 0 for p in task.networks["critic"].parameters() if p.grad is not None
    )


def test_the_wasserstein_critic_has_its_printed_loss() -> None:
    task, batch = WassersteinGAN(lambda_gp=3.0), batch_of()
    D, G = task.networks["critic"], task.networks["generator"]
    assert batch.uniforms is not None
    z = torch.stack([2 * batch.uniforms[:, 1] - 1, 2 * batch.uniforms[:, 2] - 1], 1)
    fake = G(z).detach()
    expected = D(fake).mean() - D(batch.image).mean()
    penalty = gradient_penalty(D, batch.image, fake, batch.uniforms[:, 0])
    loss, terms = task.critic_loss(batch)
    torch.testing.assert_close(loss, expected + 3 * penalty)
    torch.testing.assert_close(terms["distance"], -expected)
    torch.testing.assert_close(task.generator_loss(batch)[0], -D(fake).mean())


def test_the_first_game_and_its_saturating_twin_differ_in_the_generators_loss_alone() -> None:
    first, twin, batch = NonSaturatingGAN(), SaturatingGAN(), batch_of()
    torch.testing.assert_close(first.critic_loss(batch)[0], twin.critic_loss(batch)[0])
    G, D = first.networks["generator"], first.networks["critic"]
    probability = torch.sigmoid(D(adversarial.generated(first.networks, batch)))
    torch.testing.assert_close(first.generator_loss(batch)[0], -probability.log().mean())
    torch.testing.assert_close(twin.generator_loss(batch)[0], (1 - probability).log().mean())
    assert G is not twin.networks["generator"]


def test_weights_belong_to_the_seed_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (weights(WassersteinGAN(seed=s).networks["critic"]) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_fills_the_square_and_shares_no_column_with_the_mixing() -> None:
    uniforms = torch.tensor([[0.3, 0.0, 1.0, 0.9], [0.3, 0.5, 0.25, 0.9]])
    assert adversarial.noise(uniforms).tolist() == [[-1.0, 1.0], [0.0, -0.5]]


@pytest.mark.parametrize("lambda_gp", [10.0, 1.0])
def test_a_critic_claims_what_the_soft_penalty_makes_of_the_true_distance(
    lambda_gp: float,
) -> None:
    """θ + θ² / (2λ), for a heap in the middle of a ring of radius θ = 1."""
    task = CriticAlone(lambda_gp=lambda_gp)
    nn.init.zeros_(task.networks["generator"][4].weight)
    nn.init.zeros_(task.networks["generator"][4].bias)
    last = train(task, Ring(), steps=300, batch_size=128, report_every=100)[-1]
    assert last.terms["D/distance"] == pytest.approx(1 + 1 / (2 * lambda_gp), rel=0.1)


def test_without_penalty_the_critic_claims_more_and_more() -> None:
    reports = train(CriticAlone(lambda_gp=0.0), Ring(), steps=150, batch_size=64, report_every=50)
    claimed = [report.terms["D/distance"] for report in reports]
    assert claimed[1] > 2 * claimed[0] and claimed[2] > 2 * claimed[1] and claimed[2] > 10


def test_a_game_of_two_modes_reaches_both() -> None:
    ring, task = Ring(n_modes=2, spread=0.15), NonSaturatingGAN(critic_steps=3)
    assert not ring.modes_reached(adversarial.sample(task.networks)).any()
    train(task, ring, steps=200, batch_size=64, report_every=100)
    assert ring.modes_reached(adversarial.sample(task.networks)).all()


# Its numbers


def test_the_saturating_loss_is_the_logarithm_of_being_called_a_fake() -> None:
    logit = torch.tensor([-2.0, 0.0, 3.0])
    expected = torch.log(1 - torch.sigmoid(logit)).mean()
    torch.testing.assert_close(adversarial.saturating_generator_loss(logit), expected)


def test_the_saturating_loss_gives_up_where_the_other_pulls() -> None:
    """The derivatives by the logit are -σ and -(1 - σ); the length of w multiplies them."""
    critic = plane_critic(3.0, 4.0)
    critic.append(Shift(-20.0))
    networks = {**WassersteinGAN().networks, "critic": critic}
    assert adversarial.gradient_norm(networks, adversarial.saturating_generator_loss) < 1e-6
    assert adversarial.gradient_norm(networks, non_saturating_generator_loss) == pytest.approx(
        5, rel=1e-4
    )
    assert adversarial.gradient_norm(networks, wasserstein_generator_loss) == pytest.approx(
        5, rel=1e-4
    )


class Shift(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


def test_the_surface_of_a_linear_critic_is_a_ramp_with_low_y_first() -> None:
    height = adversarial.surface(plane_critic(1.0, 10.0), 3)
    line = [-LIMIT, 0.0, LIMIT]
    expected = torch.tensor([[x + 10 * y for x in line] for y in line])
    torch.testing.assert_close(height, expected)


def test_the_slope_is_the_length_of_the_gradient() -> None:
    slope = adversarial.slope(plane_critic(3.0, -4.0), 5)
    torch.testing.assert_close(slope, torch.full((5, 5), hypot(3.0, 4.0)))


def test_a_film_remembers_the_beginning_and_every_report_by_steps_of_the_generator() -> None:
    task = WassersteinGAN(critic_steps=3)
    film = Film(task)
    train(task, Ring(), steps=12, batch_size=16, report_every=6, callbacks=[film])
    assert [frame.step for frame in film.frames] == [0, 2, 4]
    assert not torch.equal(film.frames[0].fake, film.frames[2].fake)
    assert torch.equal(film.frames[2].fake, adversarial.sample(task.networks))
    assert torch.equal(film.frames[2].surface, adversarial.surface(task.networks["critic"]))


def test_a_game_is_measured_by_modes_points_and_slope() -> None:
    class Perfect(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return Ring().points(len(z), "perfect")

    networks = {"generator": Perfect(), "critic": plane_critic(0.0, 2.0)}
    told = adversarial.measure_game(networks, Ring())
    assert told["modes reached"] == 8 and told["median slope"] == pytest.approx(2)
    assert 0.97 < told["near a mode"] <= 1


def test_a_last_frame_and_the_game_that_it_shows_measure_alike() -> None:
    ring, task = Ring(), WassersteinGAN(critic_steps=1)
    film = Film(task)
    train(task, ring, steps=20, batch_size=64, report_every=20, callbacks=[film])
    shown = adversarial.measure_points(film.frames[-1].fake, ring)
    assert shown.items() <= adversarial.measure_game(task.networks, ring).items()


def test_the_share_near_a_mode_is_of_all_points() -> None:
    ring = Ring()
    points = torch.cat([ring.centres[:1].repeat(3, 1), torch.zeros(1, 2)])[:, :, None, None]
    assert adversarial.measure_points(points, ring) == {"modes reached": 1, "near a mode": 0.75}


def test_the_engine_can_fill_the_draws_of_a_batch() -> None:
    batch = next(Ring().batches(batch_size=4, seed=0))
    assert batch.uniforms is None
    assert replace(batch, uniforms=torch.rand(4, 4)).image is batch.image
