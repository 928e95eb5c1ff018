r"""Biomarker localisation by a CNN classifier and a GAN.

R. Zhang, S. Tan, R. Wang et al., Biomarker Localization by Combining CNN Classifier and Generative
Adversarial Network, MICCAI 2019.

Equations
    (1)  $\min_{G,C} \max_D L_{GAN}(D, G) + \lambda_1 L_{CE}(C, G) + \lambda_2 L_{ED}(G)$
         `Biomarker`
    (2)  $\min_{G,C} L_1 = \lambda_1 L_{CE}(C, G) + \lambda_2 L_{ED}(G)$    `Biomarker.loss_1`
    (3)  $\min_G \max_D L_2 = L_{GAN}(D, G) + \lambda_2 L_{ED}(G)$
         `Biomarker.critic_loss` for D, `Biomarker.loss_2` for G
    $L_{ED}$ and $L_{CE}$    `ed_loss`, `ce_loss`
Steps
    Section 2, "subtracting the output of the encoder-decoder from its input"
         `BiomarkerLocaliser`
    Section 3.1, "a modified UNet" with "Tanh activation function"    `Generator`
    Section 3.1, "the UNet is pre-trained with all images"            `Pretraining`
    (not in the paper) C before the rest                              `WarmUp`
    Section 3.2 and Fig. 3, without C, without D, without both
         `WithoutClassifier`, `WithoutCritic`, `Pretraining`

Reading (data, normal and abnormal in turn): The sets are balanced (2,101 images of each kind, 1,460
    of each). The order of the images is not given.
    Here: Batches hold normal and abnormal images in turn, normal first (`randomness.balanced`).
    Why: Every batch is then as balanced as the sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction, System, abnormal, normal
from cxrtut.engine.schedules import linear_decay
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.residual import residual_heatmap
from cxrtut.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss
from cxrtut.losses.gradient_penalty import gradient_penalty
from cxrtut.nn.backbones import ResNet10, ResNet18
from cxrtut.nn.critic import Critic
from cxrtut.nn.unet import UNet
from cxrtut.randomness import seeded


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's values with their section; † where the paper is silent and we had to choose."""

    size: int = 128  # 3.3: "image size (128 x 128)"
    channels: int = 3  # 3.1: colour photographs; radiographs have 1
    base: int = 64  # † channels of the U-Net's first level
    depth: int = 4  # † halvings of the U-Net
    stem: int = 1  # † pixels to channels before the U-Net; 2 on a CPU
    critic_base: int = 64  # † channels of the critic's first layer
    classifier_layers: int = 18  # 3.1: ResNet-18; 10 on a CPU
    classifier_width: int = 16  # † of the classifier with 10 layers
    residual: bool = False  # 3.1: the U-Net's Tanh is the output; True is not the paper's
    input_scale: float = 0.9  # † see `Generator`
    lambda_1: float = 0.4  # 3.1
    lambda_2: float = 10.0  # 3.1
    eta: float = 10.0  # 3.1
    critic_steps: int = 5  # † of D for one of G and C, as in Gulrajani et al. 2017
    learning_rate: float = 2e-4  # 3.1
    beta_1: float = 0.5  # †
    beta_2: float = 0.999  # †
    batch_size: int = 32  # 3.1
    pretraining_steps: int = 2000  # † of the direct generator; the residual one begins as a copy
    warm_up_steps: int = 300  # † see `WarmUp`
    comparator_steps: int = 400  # † of the classifiers of Section 3.3
    decay_from: float = 1.0  # † share of the steps before learning rates fall to 0; 1 is constant
    steps: int = 130_000  # † of D, a batch each; 26,000 of G and C

    def __post_init__(self) -> None:
        if self.classifier_layers not in (10, 18):
            raise ValueError(f"classifier_layers: expected 10 or 18, got {self.classifier_layers}")
        if self.critic_steps < 1:
            raise ValueError(f"critic_steps: expected 1 or more, got {self.critic_steps}")
        if self.batch_size % 2:
            raise ValueError(f"batch_size: expected an even number, got {self.batch_size}")
        if not 0 <= self.decay_from <= 1:
            raise ValueError(f"decay_from: expected one in [0, 1], got {self.decay_from}")
        if not 0 < self.input_scale <= 1:
            raise ValueError(f"input_scale: expected one in (0, 1], got {self.input_scale}")


PAPER = Config()
# One T4, about half an hour: the paper's networks, fewer steps.
COLAB = replace(PAPER, channels=1, critic_steps=2, pretraining_steps=500, steps=6000)
# Two CPU cores, about three minutes, on the `easy` simulated radiographs. Small networks, and a
# generator that gives the difference rather than the image: the paper's direct one first has to
# learn to copy, for which this is too short.
SMOKE = Config(
    size=64, channels=1, base=24, depth=2, stem=2, critic_base=16, classifier_layers=10,
    residual=True, critic_steps=1, learning_rate=1e-3, batch_size=16, pretraining_steps=500,
    warm_up_steps=200, steps=700,
)  # fmt: skip
# One CPU core, about five minutes an arm and seed: the same networks, a critic that moves on three
# batches for one of G and C, and rates that fall. Twice as long is no better.
CPU = replace(
    SMOKE, critic_steps=3, steps=2400, decay_from=0.5, pretraining_steps=1500, comparator_steps=1500
)


class Generator(nn.Module):
    """The encoder-decoder G of Fig. 1: "a modified UNet with Tanh activation function".

    Reading (network, the range of Tanh): A "Tanh activation function" keeps the output within the
        range of the input, [-1, 1].
        Here: G sees images scaled to [-0.9, 0.9] (`Config.input_scale`), and its output is scaled
            back, to [-1 / 0.9, 1 / 0.9].
        Why: Tanh reaches -1 and 1 only at infinity, so black borders would keep a difference for
            ever.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.scale = config.input_scale
        self.unet = UNet(config.channels, config.base, config.depth, stem=config.stem)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return torch.tanh(self.unet(self.scale * image)) / self.scale


class ResidualGenerator(nn.Module):
    """x + U(x): not the paper's generator, but one that a CPU can train in minutes.

    Its last convolution starts near zero, so that it begins as the identity. Exactly zero would be
    a trap: without a difference, C and D send no gradient that says where one should be.

    Reading (network, the residual generator): The output of G is the image, through Tanh
        (Section 3.1).
        Here: With `Config.residual`, as in `SMOKE`, it is $x + U(x)$ without Tanh, and there is no
            pre-training. The arm "G-D-C, direct" has the paper's own.
        Why: The direct generator first has to learn to copy, for which minutes on a CPU are too
            short. The residual one begins as a copy.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.unet = UNet(config.channels, config.base, config.depth, stem=config.stem)
        nn.init.normal_(self.unet.output.weight, std=0.02)
        assert self.unet.output.bias is not None
        nn.init.zeros_(self.unet.output.bias)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return image + self.unet(image)


def make_generator(config: Config) -> nn.Module:
    """The paper's generator, or with `Config.residual` the residual one."""
    return ResidualGenerator(config) if config.residual else Generator(config)


def make_classifier(config: Config) -> nn.Module:
    """C: ResNet-18 with two logits (Section 3.1), or ten layers at the CPU's size; it sees
    differences, of the images' channels.
    """
    if config.classifier_layers == 18:
        return ResNet18(config.channels)
    return ResNet10(config.channels, config.classifier_width)


def make_networks(config: Config, seed: int) -> dict[str, nn.Module]:
    """G, C and D with the initial weights of a seed."""
    with seeded("biomarker", seed):
        return {
            "generator": make_generator(config),
            "classifier": make_classifier(config),
            "discriminator": Critic(config.channels, config.critic_base, config.size),
        }


def ed_loss(image: Float[Tensor, "B C H W"], output: Float[Tensor, "B C H W"]) -> Tensor:
    r"""L_ED(G) = mean |x - G(x)|, over all images, channels and pixels.

    Reading (loss, mean or sum): "L1 loss" (Section 2) does not say whether pixels are added or
        averaged.
        Here: We take the mean.
        Why: A sum would drown the other losses, and $\lambda_2 = 10$ would depend on the size of
            the image.
    """
    return (image - output).abs().mean()


def ce_loss(
    classifier: nn.Module,
    difference: Float[Tensor, "B C H W"],
    label_vector: Float[Tensor, "B K"],
) -> Tensor:
    """L_CE(C, G) = -mean log softmax(C(x - G(x)))[label], label 1 where any disease is there.

    Reading (loss, the sign of the difference): C sees "the subtraction of the encoder-decoder's
        output from its input".
        Here: We take $x - G(x)$ with its sign.
        Why: The paper names no absolute value.
    """
    return F.cross_entropy(classifier(difference).float(), label_vector.amax(1).long())


class Biomarker:
    r"""G, C and D of Fig. 1, trained by turns on Eqs. (2) and (3).

    Reading (training, who moves when): "An alternating strategy" leaves the order and the numbers
        open.
        Here: D moves in every step, each time on a batch of its own. In every step that is a
            multiple of `critic_steps`, G and C then move on Eq. (2) and G on Eq. (3). One Adam
            state serves G in both.
        Why: Algorithm 1 of Gulrajani et al. (2017) trains the critic in this way. G feels
            $\lambda_2 L_{ED}$ twice, because both equations contain it.

    Reading (loss, which Wasserstein GAN): The paper cites WGAN, but gives a "gradient penalty
        coefficient".
        Here: We train WGAN-GP.
        Why: The original WGAN has no such coefficient.
    """

    n_uniforms = 1  # where between a real and a generated image the penalty is taken

    def __init__(
        self,
        config: Config,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        networks: dict[str, nn.Module] | None = None,
    ) -> None:
        """
        Args:
            config: sizes and coefficients.
            seed: of the initial weights.
            device: where the networks are.
            networks: those of a stage before, to go on with; new ones by default.
        """
        self.config = config
        self.networks = make_networks(config, seed) if networks is None else networks
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, network in self.networks.items():
            network.to(device)
            self.optimizers[name] = torch.optim.Adam(
                network.parameters(), config.learning_rate, betas=(config.beta_1, config.beta_2)
            )

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("discriminator",), self.critic_loss)
        if (step + 1) % self.config.critic_steps == 0:
            yield Phase("GC", ("generator", "classifier"), self.loss_1)
            yield Phase("G", ("generator",), self.loss_2)

    def schedule(self, step: int) -> dict[str, float]:
        """The factor of all learning rates.

        Reading (training, decay): A decay of the learning rate is not mentioned.
            Here: With `Config.decay_from` below 1, rates are constant at first and fall to 0 on a
                straight line from there on, as in `CPU`. The other presets keep them constant.
            Why: The game of G, C and D has no fixed point at a constant rate: with small networks
                the generator that is best is not the last one.
        """
        start = int(self.config.decay_from * self.config.steps)
        if start >= self.config.steps:
            return {}
        rate = linear_decay(step, steps=self.config.steps, start=start)
        return dict.fromkeys(self.networks, rate)

    def loss_1(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (2): L1 = λ1 L_CE(C, G) + λ2 L_ED(G)."""
        G, C = self.networks["generator"], self.networks["classifier"]
        x, c = batch.image, self.config
        output = G(x)
        ce, ed = ce_loss(C, x - output, batch.label_vector), ed_loss(x, output)
        return c.lambda_1 * ce + c.lambda_2 * ed, {"CE": ce, "ED": ed}

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """max_D of Eq. (3), as a loss: E[D(G(x))] - E[D(y)] + η E[(||∇D|| - 1)^2].

        y are normal images, x abnormal ones; D is high for what looks normal.

        Reading (loss, generated normal images): D compares "real and generated normal images".
            Here: A generated one is $G(x)$ of an abnormal image only, as in VA-GAN. G still sees
                the whole batch.
            Why: Batch norm would treat abnormal images alone differently than Eq. (2) does.
        """
        G, D = self.networks["generator"], self.networks["discriminator"]
        with torch.no_grad():
            fake = abnormal(G(batch.image))
        real = normal(batch.image)
        distance = wasserstein_critic_loss(D(real), D(fake))
        assert batch.uniforms is not None, "a batch for training has uniform numbers"
        penalty = gradient_penalty(D, real, fake, normal_uniforms(batch.uniforms))
        loss = distance + self.config.eta * penalty
        return loss, {"distance": -distance, "penalty": penalty}

    def loss_2(self, batch: Batch) -> tuple[Tensor, Terms]:
        """min_G of Eq. (3): L2 = -E[D(G(x))] + λ2 L_ED(G), the L1 over all images."""
        G, D = self.networks["generator"], self.networks["discriminator"]
        output = G(batch.image)
        adversarial = wasserstein_generator_loss(D(abnormal(output)))
        ed = ed_loss(batch.image, output)
        return adversarial + self.config.lambda_2 * ed, {"adversarial": adversarial, "ED": ed}


def normal_uniforms(uniforms: Float[Tensor, "B D"]) -> Float[Tensor, " b"]:
    """One uniform number for each pair of a normal and a generated image."""
    return uniforms[0::2, 0]


class WithoutClassifier(Biomarker):
    """G-D of Fig. 3: Eq. (3) alone."""

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("discriminator",), self.critic_loss)
        if (step + 1) % self.config.critic_steps == 0:
            yield Phase("G", ("generator",), self.loss_2)


class WithoutCritic(Biomarker):
    """G-C of Fig. 3: Eq. (2) alone."""

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("GC", ("generator", "classifier"), self.loss_1)


class Pretraining(Biomarker):
    """G alone on L_ED: the pre-training of Section 3.1, and the arm "only encoder-decoder" of
    Section 3.2.

    Reading (training, the loss of the pre-training): The UNet is "pre-trained with all images". The
        loss is not given.
        Here: We take $L_{ED}$.
        Why: It needs neither C nor D. With a U-Net's skips G learns to copy, so this arm can only
            show what a copy leaves behind.
    """

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("ED", ("generator",), self.reconstruction_loss)

    def schedule(self, step: int) -> dict[str, float]:
        """Constant: the stage has its own number of steps."""
        return {}

    def reconstruction_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """λ2 L_ED(G)."""
        ed = ed_loss(batch.image, self.networks["generator"](batch.image))
        return self.config.lambda_2 * ed, {"ED": ed}


class WarmUp(Biomarker):
    """C alone on Eq. (2), between the pre-training and the arms that have C.

    Reading (training, C before the rest): The paper never trains C alone.
        Here: C alone moves for a few hundred steps.
        Why: After the pre-training $x - G(x)$ is nearly nothing. $L_{ED}$ would make it nothing
            before C has learnt to read it, and G-C would stay there for ever.
    """

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss_1)

    schedule = Pretraining.schedule


@torch.no_grad()
def to_healthy(generator: nn.Module, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """The pseudo-healthy images G(x), clipped to the range of images, in evaluation mode; the modes
    are put back.
    """
    with evaluating(generator):
        outputs = [generator(part).clamp(-1, 1) for part in in_parts(images) if len(part)]
    return torch.cat(outputs) if outputs else images.clone()


class BiomarkerLocaliser:
    """A trained generator as a system: the pseudo-healthy image, and |x - G(x)| as the heat map,
    "any biomarkers can be easily localized by subtracting" (Section 2).

    Networks: `generator`.

    Attributes:
        reader: what C says of the differences, where it was trained in the same run; not in a file
            of weights.
    """

    def __init__(self, config: Config, classes: tuple[str, ...], generator: nn.Module) -> None:
        """
        Args:
            config: of the generator; its size and channels are those of the images.
            classes: the diseases that it removes; they share one heat map.
            generator: trained, or about to be.
        """
        self.classes = classes if len(classes) == 1 else ("any of " + ", ".join(classes),)
        self.size, self.channels = config.size, config.channels
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self.reader: System | None = None

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """See `to_healthy`; the heat map has one channel, in [0, 2]."""
        healthy = to_healthy(self.networks["generator"], images)
        return Prediction(heatmap=residual_heatmap(images, healthy)[:, None], image=healthy)
