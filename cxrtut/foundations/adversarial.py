"""Adversarial training on points of the plane, small enough to see what the critic sees.

A point is an image of one pixel and two channels, (2, 1, 1), so that the losses of the papers and
the one training loop serve it as they are. `Ring` is the data; `WassersteinGAN`,
`NonSaturatingGAN` and `SaturatingGAN` are the games; `CriticAlone` and `DiscriminatorAlone` keep
the generator as it is; `Film` remembers how a game went.

Sources: Goodfellow et al., NIPS 2014; Arjovsky, Chintala and Bottou, ICML 2017; Gulrajani et al.,
NIPS 2017, whose Fig. 1 shows critics of points in the plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import pi

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from cxrtut.engine.task import Phase, Report, Terms
from cxrtut.losses.adversarial import (
    non_saturating_discriminator_loss,
    non_saturating_generator_loss,
    wasserstein_critic_loss,
    wasserstein_generator_loss,
)
from cxrtut.losses.gradient_penalty import gradient_penalty
from cxrtut.randomness import generator, seeded

EPOCH = 1000  # steps we call an epoch: the ring never runs out of points
LIMIT = 1.6  # the part of the plane that is looked at: [-LIMIT, LIMIT] in x and in y


@dataclass(frozen=True, eq=False)
class PointBatch:
    """Real points, and the uniform numbers that a phase gets.

    Attributes:
        image: the points, as images of one pixel.
        uniforms: uniform in [0, 1), a row for each point; the engine fills it for each phase.
    """

    image: Float[Tensor, "B 2 1 1"]
    uniforms: Float[Tensor, "B D"] | None = None


@dataclass(frozen=True)
class Ring:
    """Gaussians, evenly spaced on a circle around the origin: data of several kinds (modes).

    Attributes:
        n_modes: how many.
        radius: of the circle.
        spread: standard deviation of each Gaussian, in x and in y.
    """

    n_modes: int = 8
    radius: float = 1.0
    spread: float = 0.05

    def __post_init__(self) -> None:
        if self.n_modes < 1 or self.spread <= 0:
            raise ValueError(
                f"expected at least one mode and a spread above 0, got {self.n_modes} modes of "
                f"spread {self.spread}"
            )

    @property
    def centres(self) -> Float[Tensor, "K 2"]:
        """Where the modes are."""
        angle = torch.arange(self.n_modes) * (2 * pi / self.n_modes)
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1)

    def points(self, n: int, *key: int | str) -> Float[Tensor, "n 2 1 1"]:
        """n points that belong to the key (a seed, a step): the same key, the same points."""
        lot = generator("ring", *key)
        mode = torch.randint(self.n_modes, (n,), generator=lot)
        noise = self.spread * torch.randn(n, 2, generator=lot)
        return (self.centres[mode] + noise)[:, :, None, None]

    def steps_per_epoch(self, batch_size: int) -> int:
        """`EPOCH`, whatever the batch."""
        return EPOCH

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        ranks: int = 1,
    ) -> Iterator[PointBatch]:
        """Batches of steps `start`, `start + 1`, ...; a rank gets its share of each."""
        share, step = batch_size // ranks, start
        while True:
            points = self.points(batch_size, seed, step)[rank * share : (rank + 1) * share]
            yield PointBatch(points.to(device))
            step += 1

    def near(self, points: Float[Tensor, "n 2 1 1"]) -> Int[Tensor, " K"]:
        """How many of the points are within three spreads of each mode, its own nearest ones."""
        distance, mode = torch.cdist(points.flatten(1), self.centres).min(1)
        return torch.bincount(mode[distance <= 3 * self.spread], minlength=self.n_modes)

    def modes_reached(
        self, points: Float[Tensor, "n 2 1 1"], *, share: float = 0.02
    ) -> Bool[Tensor, " K"]:
        """The modes that have at least `share` of all points near them."""
        return self.near(points) >= share * len(points)


def make_networks(seed: int, width: int) -> dict[str, nn.Module]:
    """A generator, noise (B, 2) to points, and a critic, points to scores (B, 1)."""
    with seeded("points", seed):
        return {
            "generator": nn.Sequential(
                nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                nn.Linear(width, 2), nn.Unflatten(1, (2, 1, 1)),
            ),
            "critic": nn.Sequential(
                nn.Flatten(), nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, width),
                nn.LeakyReLU(0.2), nn.Linear(width, 1),
            ),
        }  # fmt: skip


def make_optimizers(
    networks: Mapping[str, nn.Module], learning_rate: float
) -> dict[str, Optimizer]:
    r"""Adam for each network, with β = (.5, .9): the game's gradients forget quickly, as the
    opponent moves.

    Reading (training, the momentum of Adam): Algorithm 1 of Gulrajani et al. has
        $\beta = (0, 0.9)$. Their published code for points in the plane has $(0.5, 0.9)$.
        Here: We follow the code.
        Why: It plays the same game.
    """
    return {
        name: Adam(network.parameters(), learning_rate, betas=(0.5, 0.9))
        for name, network in networks.items()
    }


def noise(uniforms: Float[Tensor, "B D"]) -> Float[Tensor, "B 2"]:
    """What the generator starts from, uniform in the square [-1, 1]²: columns 1 and 2. (Column 0
    mixes real and generated points in the gradient penalty.)
    """
    return 2 * uniforms[:, 1:3] - 1


def generated(networks: Mapping[str, nn.Module], batch: PointBatch) -> Float[Tensor, "B 2 1 1"]:
    """G(z), as many points as the batch has."""
    assert batch.uniforms is not None, "a batch for training has uniform numbers"
    points: Tensor = networks["generator"](noise(batch.uniforms))
    return points


class WassersteinGAN:
    """The game of Gulrajani et al.: several steps of the critic, each on a batch of its own, then
    one of the generator.
    """

    n_uniforms = 3  # one for the penalty, two for the generator's noise

    def __init__(
        self,
        *,
        critic_steps: int = 5,
        lambda_gp: float = 1.0,
        learning_rate: float = 2e-3,
        width: int = 64,
        seed: int = 0,
    ) -> None:
        """
        Args:
            critic_steps: of the critic, for each of the generator.
            lambda_gp: the weight λ of the gradient penalty; 0 is no penalty.
            learning_rate: of both networks.
            width: of their layers.
            seed: of the initial weights.
        """
        self.critic_steps, self.lambda_gp = critic_steps, lambda_gp
        self.networks = make_networks(seed, width)
        self.optimizers = make_optimizers(self.networks, learning_rate)

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("critic",), self.critic_loss)
        if (step + 1) % self.critic_steps == 0:
            yield Phase("G", ("generator",), self.generator_loss)

    def critic_loss(self, batch: PointBatch) -> tuple[Tensor, Terms]:
        """E[D(fake)] - E[D(real)] + λ E[(||∇D|| - 1)²]."""
        D, real = self.networks["critic"], batch.image
        with torch.no_grad():
            fake = generated(self.networks, batch)
        assert batch.uniforms is not None
        loss = wasserstein_critic_loss(D(real), D(fake))
        penalty = gradient_penalty(D, real, fake, batch.uniforms[:, 0])
        return loss + self.lambda_gp * penalty, {"distance": -loss, "penalty": penalty}

    def generator_loss(self, batch: PointBatch) -> tuple[Tensor, Terms]:
        """-E[D(fake)]."""
        D = self.networks["critic"]
        return wasserstein_generator_loss(D(generated(self.networks, batch))), {}


class NonSaturatingGAN:
    """The game of Goodfellow et al. as it is played: cross-entropy, and a generator that wants its
    points called real.
    """

    n_uniforms = 3  # as `WassersteinGAN`; there is no penalty, so the first is not used

    def __init__(
        self,
        *,
        critic_steps: int = 1,
        learning_rate: float = 2e-3,
        width: int = 64,
        seed: int = 0,
    ) -> None:
        """As `WassersteinGAN`; its critic is a discriminator, the score a logit."""
        self.critic_steps = critic_steps
        self.networks = make_networks(seed, width)
        self.optimizers = make_optimizers(self.networks, learning_rate)

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("critic",), self.critic_loss)
        if (step + 1) % self.critic_steps == 0:
            yield Phase("G", ("generator",), self.generator_loss)

    def critic_loss(self, batch: PointBatch) -> tuple[Tensor, Terms]:
        """-E[log σ(D(real))] - E[log(1 - σ(D(fake)))]."""
        D = self.networks["critic"]
        with torch.no_grad():
            fake = generated(self.networks, batch)
        return non_saturating_discriminator_loss(D(batch.image), D(fake)), {}

    def generator_loss(self, batch: PointBatch) -> tuple[Tensor, Terms]:
        """-E[log σ(D(fake))]."""
        D = self.networks["critic"]
        return non_saturating_generator_loss(D(generated(self.networks, batch))), {}


def saturating_generator_loss(fake_logit: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    """E[log(1 - σ(D(fake)))], the generator's side of the minimax game as it is defined: its
    gradient -σ(D(fake)) vanishes where the discriminator is sure of a fake.

    Source: Goodfellow et al., NIPS 2014, Eq. (1).
    """
    return -F.softplus(fake_logit).mean()


class SaturatingGAN(NonSaturatingGAN):
    """The same game with the generator's loss of Eq. (1) of Goodfellow et al."""

    def generator_loss(self, batch: PointBatch) -> tuple[Tensor, Terms]:
        """E[log(1 - σ(D(fake)))]."""
        D = self.networks["critic"]
        return saturating_generator_loss(D(generated(self.networks, batch))), {}


class CriticAlone(WassersteinGAN):
    """A critic that learns while the generator stays as it began."""

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("critic",), self.critic_loss)


class DiscriminatorAlone(NonSaturatingGAN):
    """A discriminator that learns while the generator stays as it began."""

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("critic",), self.critic_loss)


@torch.no_grad()
def sample(
    networks: Mapping[str, nn.Module], n: int = 1000, seed: int = 0
) -> Float[Tensor, "n 2 1 1"]:
    """n generated points; the same seed gives the same noise to every generator."""
    uniforms = torch.rand(n, 3, generator=generator("sample", seed))
    points: Tensor = networks["generator"](noise(uniforms))
    return points


def gradient_norm(
    networks: Mapping[str, nn.Module], generator_loss: Callable[[Tensor], Tensor]
) -> float:
    """How strongly a loss pulls at the generated points: mean over a thousand points x of
    ||∂ loss / ∂x||₂, as if each were a batch of its own.
    """
    points = sample(networks).requires_grad_()
    loss = generator_loss(networks["critic"](points))
    (gradient,) = torch.autograd.grad(loss, points)
    return len(points) * gradient.flatten(1).norm(dim=1).mean().item()


def plane(n: int = 81) -> Float[Tensor, "_ 2 1 1"]:
    """A lattice of n x n points over [-LIMIT, LIMIT]²: rows rise in y, columns in x."""
    line = torch.linspace(-LIMIT, LIMIT, n)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2, 1, 1)


@torch.no_grad()
def surface(critic: nn.Module, n: int = 81) -> Float[Tensor, "n n"]:
    """The critic's score over the plane."""
    score: Tensor = critic(plane(n))
    return score.reshape(n, n)


def slope(critic: nn.Module, n: int = 81) -> Float[Tensor, "n n"]:
    """||∇D(x)||₂ over the plane: what the gradient penalty wants to be 1."""
    points = plane(n).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points)
    return gradient.flatten(1).norm(dim=1).reshape(n, n)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A game at one moment.

    Attributes:
        step: steps of the generator, or what would have been its steps where it does not move.
        surface: the critic's score over the plane.
        fake: a thousand generated points, from the same noise in each frame.
    """

    step: int
    surface: Float[Tensor, "n n"]
    fake: Float[Tensor, "m 2 1 1"]


class Film:
    """Remembers the beginning and, as a callback of `train`, the moment of each report."""

    def __init__(self, game: WassersteinGAN | NonSaturatingGAN) -> None:
        """
        Args:
            game: is looked at from now on; each of its steps is one of the critic.
        """
        self.game = game
        self.frames = [self._frame(0)]

    def __call__(self, report: Report) -> None:
        self.frames.append(self._frame(report.step // self.game.critic_steps))

    def _frame(self, step: int) -> Snapshot:
        networks = self.game.networks
        return Snapshot(step, surface(networks["critic"]), sample(networks))


def measure_points(points: Float[Tensor, "n 2 1 1"], ring: Ring) -> dict[str, int | float]:
    """How many modes the generated points reach, and the share of the points near a mode."""
    return {
        "modes reached": int(ring.modes_reached(points).sum()),
        "near a mode": ring.near(points).sum().item() / len(points),
    }


def measure_game(networks: Mapping[str, nn.Module], ring: Ring) -> dict[str, int | float]:
    """How a game stands: `measure_points` of a thousand generated points, and the median of the
    critic's slope over the plane.
    """
    median = slope(networks["critic"]).median().item()
    return {**measure_points(sample(networks), ring), "median slope": median}
