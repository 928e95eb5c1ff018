r"""VA-GAN: a map that turns an image with the disease into one without.

C. F. Baumgartner, L. M. Koch, K. C. Tezcan et al., Visual Feature Attribution using Wasserstein
GANs, CVPR 2018.

Equations
    (1)  $M^* = argmin_M \max_D L_{GAN}(M, D) + \lambda L_{reg}(M)$    `VAGAN`
    (2)  $L_{GAN} = E_{x \sim p_0} D(x) - E_{x \sim p_1} D(x + M(x))$    `VAGAN.critic_loss` for D,
         `VAGAN.map_loss` for M
    (3)  $L_{reg} = \| M(x) \|_1$    `VAGAN.map_loss`
    Section 3.3, the map generator and the critic    `MapGenerator`, `VAGANCritic`
    Section 3.3, how often the critic moves    `is_map_step`
    Where the disease is: $|y - x|$    `baselines.pseudo_healthy.PseudoHealthy`

Reading (network, around what the tanh is): The paper adds the map to the image without a tanh.
    Here: The image without the disease is $y = \tanh(x + M(x))$, the last layer of M is linear.
    Why: The authors' public code does so and says that it makes training stable. A well-known port
        puts the tanh around the map instead, which its authors call wrong.

Reading (loss, what is kept small): Eq. (3) keeps the map small.
    Here: With the tanh it is $|y - x|$, 100 times its mean, that is kept small.
    Why: The authors' public code does so. A map of zero would not leave the image as it is.

Reading (data, batches): Both sets have batches of their own.
    Here: A batch holds as many images of the one as of the other; M sees the diseased half.
    Why: All systems then see the same number of images in a step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, abnormal, normal
from cxrtut.engine.task import Phase, Terms
from cxrtut.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss
from cxrtut.losses.gradient_penalty import gradient_penalty


class MapGenerator(nn.Module):
    """M: a U-Net whose way up has `base` channels at every level, with batch norm.

    Four levels of two 3x3 convolutions, with `base` to 8 `base` channels. On the way up a
    transposed 4x4 convolution of stride 2 makes `base` channels, which stand before the level's
    own. The last 3x3 convolution is linear. No convolution has a bias but the last.
    """

    def __init__(self, channels: int = 1, base: int = 16) -> None:
        """
        Args:
            channels: channels of the image.
            base: channels of the first level, and of every transposed convolution.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        _check_positive(channels=channels, base=base)
        widths = [base, 2 * base, 4 * base, 8 * base]
        before = [channels, *widths]
        self.down = nn.ModuleList(
            nn.Sequential(*_block(a, b), *_block(b, b))
            for a, b in zip(before, widths, strict=False)
        )
        self.enlarge = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(c, base, 4, 2, 1, bias=False), *_norm(base))
            for c in reversed(widths[1:])
        )
        # The last level has one block before the output
        self.up = nn.ModuleList(
            nn.Sequential(*_block(base + c, c), *(_block(c, c) if c > base else ()))
            for c in reversed(widths[:-1])
        )
        self.output = nn.Conv2d(base, channels, 3, 1, 1)
        _initialise(self)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The map, of any range.

        Raises:
            ValueError: height or width is no multiple of 8.
        """
        height, width = image.shape[-2:]
        if height % 8 or width % 8:
            raise ValueError(f"expected height and width divisible by 8, got {height} x {width}")
        x, seen = image, []
        for level in self.down[:-1]:
            seen.append(level(x))
            x = F.max_pool2d(seen[-1], 2)
        x = self.down[-1](x)
        for enlarge, level in zip(self.enlarge, self.up, strict=True):
            x = level(torch.cat((enlarge(x), seen.pop()), dim=1))
        return self.output(x)


class VAGANCritic(nn.Module):
    """One number for each image: 3x3 convolutions with bias and ReLU and no norm, four times halved
    by pooling, a linear 1x1 convolution to one channel, and the mean over what is left.
    """

    def __init__(self, channels: int = 1, base: int = 16) -> None:
        """
        Args:
            channels: channels of the image.
            base: channels of the first convolution; the last ones have 16 times as many.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        _check_positive(channels=channels, base=base)
        stages = [(1,), (2,), (4, 4), (8, 8), (16, 16, 16)]
        layers: list[nn.Module] = []
        width = channels
        for k, stage in enumerate(stages):
            layers += [nn.MaxPool2d(2)] if k else []
            for factor in stage:
                layers += [nn.Conv2d(width, factor * base, 3, 1, 1), nn.ReLU()]
                width = factor * base
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))
        _initialise(self)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
        """
        Raises:
            ValueError: height or width is no multiple of 16.
        """
        height, width = image.shape[-2:]
        if height % 16 or width % 16:
            raise ValueError(f"expected height and width divisible by 16, got {height} x {width}")
        return self.layers(image).mean((1, 2, 3))


def to_healthy(generator: nn.Module, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """y = tanh(x + M(x)). M has no target domain: a healthy image gets a map, too."""
    return torch.tanh(image + generator(image))


def is_map_step(
    step: int, *, critic_steps: int = 5, long: int = 100, first: int = 25, every: int = 100
) -> bool:
    """Whether M moves in a step, rather than the critic.

    Before each map step the critic moves `critic_steps` times; before the `first` map steps, and
    before map steps `every`, 2 `every`, ..., it moves `long` times. Every step is a batch, the map
    steps too.

    Raises:
        ValueError: a negative step, or another number below 1 or `first` above `every`.
    """
    if step < 0 or min(critic_steps, long, first) < 1 or first > every:
        raise ValueError(
            "expected a step of 0 or more, critic_steps and long of 1 or more and first between "
            f"1 and every, got {step}, {critic_steps}, {long}, {every} and {first}"
        )
    n, short = step + 1, critic_steps + 1  # n steps are done after this one
    beginning = first * (long + 1)
    if n <= beginning:
        return n % (long + 1) == 0
    until_every = beginning + (every - first) * short
    if n <= until_every:
        return (n - beginning) % short == 0
    # From here on rounds of `every` map steps: a long one and the others
    in_round = (n - until_every - 1) % (long + 1 + (every - 1) * short) + 1
    return in_round >= long + 1 and (in_round - long - 1) % short == 0


class VAGAN:
    """M and its critic, trained by turns. Batches are balanced: normal and diseased in turn.

    Networks: `generator`, `discriminator`.
    """

    n_uniforms = 1  # where between a healthy and a translated image the penalty is taken

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        learning_rate: float = 1e-4,
        critic_steps: int = 5,
        long: int = 100,
        first: int = 25,
        every: int = 100,
        lambda_reg: float = 100.0,
        lambda_gp: float = 10.0,
    ) -> None:
        """
        Args:
            generator: such as `MapGenerator`; on its device.
            discriminator: such as `VAGANCritic`; on its device.
            learning_rate: of Adam (betas 0 and 0.9), for both.
            critic_steps, long, first, every: see `is_map_step`.
            lambda_reg: of Eq. (1).
            lambda_gp: of the gradient penalty.
        """
        self.networks: dict[str, nn.Module] = {
            "generator": generator, "discriminator": discriminator,
        }  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), learning_rate, betas=(0.0, 0.9))
            for name, network in self.networks.items()
        }
        self.critic_steps, self.long, self.first, self.every = critic_steps, long, first, every
        self.lambda_reg, self.lambda_gp = lambda_reg, lambda_gp

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        if is_map_step(
            step, critic_steps=self.critic_steps, long=self.long, first=self.first,
            every=self.every,
        ):  # fmt: skip
            yield Phase("M", ("generator",), self.map_loss)
        else:
            yield Phase("D", ("discriminator",), self.critic_loss)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """max_D of Eq. (2), as a loss, with the penalty between healthy and translated images.

        Reading (loss, the penalty): The norm of the gradient is over the whole image.
            Here: It is, and the penalty is taken between a healthy and a translated image.
            Why: The authors' public code takes the norm of each column of pixels, and a well-known
                port takes the penalty between a *diseased* and a translated image. Neither is what
                the paper says.
        """
        D = self.networks["discriminator"]
        with torch.no_grad():
            fake = to_healthy(self.networks["generator"], abnormal(batch.image))
        real = normal(batch.image)
        distance = wasserstein_critic_loss(D(real), D(fake))
        assert batch.uniforms is not None, "a batch for training has uniform numbers"
        penalty = gradient_penalty(D, real, fake, batch.uniforms[0::2, 0])
        terms = {"distance": -distance, "penalty": penalty}
        return distance + self.lambda_gp * penalty, terms

    def map_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """min_M of Eq. (1): -E[D(y)] + λ mean |y - x|, over diseased images."""
        x = abnormal(batch.image)
        y = to_healthy(self.networks["generator"], x)
        adversarial = wasserstein_generator_loss(self.networks["discriminator"](y))
        reg = (y - x).abs().mean()
        return adversarial + self.lambda_reg * reg, {"adversarial": adversarial, "reg": reg}


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}: expected 1 or more, got {number}")


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.ReLU()


def _block(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False), *_norm(channels)


def _initialise(network: nn.Module) -> None:
    """He et al.'s normal weights, biases 0."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
