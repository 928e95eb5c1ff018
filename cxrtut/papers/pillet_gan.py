r"""PILLET-GAN: pixel-level lesion traversal for the localisation of pneumonia.

H. Kim, H. Ko and J. Kim, PILLET-GAN: Pixel-Level Lesion Traversal Generative Adversarial Network
for Pneumonia Localization, MIDL 2022.

Equations
    (1)  $SAB(G') = U(\sigma(ConvNet(F_{avg}^{4 \times 4/4}(G'))))$    `SpatialAttention`
    (2)  $ConvNet = f_{conv}^{3 \times 3/1}(\delta(IN(f_{conv}^{3 \times 3/1}(\cdot))))$
         `SpatialAttention`
    (3)  $L = \tanh(f_{conv}^{1 \times 1/1}((SAB(G') + 1) \cdot G'))$
         `LesionGenerator.lesion_map`
    (4)  $x_{fake} = x + L$    `LesionGenerator.forward`
    (5)  $L_{adv}^G$    `losses.adversarial.wasserstein_generator_loss`
    (6)  $L_{adv}^D$    `losses.adversarial.wasserstein_critic_loss` and
         `losses.gradient_penalty.gradient_penalty`
    (7)  $L_{recon} = E \| G(G(x, t), o) - x \|_1$    `PilletGAN.generator_loss`
    (8)  $L_{id} = E \| G(x, t) - x \|_1 + E \| G(x, o) - x \|_1$    `PilletGAN.generator_loss`
    (9)  $L_{cls}^{real} = E[-\log D_{cls}(o | x)]$
         `losses.domain_translation.domain_loss`
    (10)  $L_{cls}^{fake} = E[-\log D_{cls}(t | G(x, t))]$
         `losses.domain_translation.domain_loss`
    (11)  $L_D = -L_{adv}^D + \lambda_{cls} L_{cls}^{real}$    `PilletGAN.discriminator_loss`
    (12)  $L_G = L_{adv}^G + \lambda_{cls} L_{cls}^{fake} + \lambda_{recon} L_{recon} +
         \lambda_{id} L_{id}$
         `PilletGAN.generator_loss`
    (13)  $\sum_{ij} d_{ij}(x) / (W H)$, the pixel change rate
         `metrics.counterfactual.pixel_change_rate`
Steps
    Section 4.2.1, one update of G for five of D                 `PilletGAN.phases`
    Section 4.2.2, "the target domain is fixed to the 'health' class"    `LesionLocaliser`

Reading (data, impossible counts): Section 4.1 counts 14,862 images, 13,386 of them for training
    (5,443 with pneumonia), and 1,487 for validation (579 with pneumonia).
    Here: We take all of RSNA's `Normal` and `Lung Opacity` images: 8,851 + 6,012 = 14,863.
    Why: 14,863 - 1,487 = 13,376 and 6,012 - 579 = 5,433, so three of the numbers are slips. Those
        of validation are right, because they reproduce the pooled rows of both tables.

Reading (evaluation, two impossible shares): Table 1 gives VA-GAN 75.34 % of the images with
    pneumonia and 86.82 % of all.
    Here: Both are shown as they are printed.
    Why: No number of the 579 images is 75.34 %, and 86.82 % is neither the pooled share of both
        kinds (89.5 %) nor their mean. All other shares are whole numbers of images and pool as they
        should.

Reading (data, what is neither): RSNA has a third kind of images, "No Lung Opacity / Not Normal".
    Here: It is in neither of the two domains.
    Why: 8,851 and 6,012 leave no room for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.losses.domain_translation import (
    discriminator_loss,
    healthy_domain,
    origin_and_target,
    translation_loss,
)
from cxrtut.nn.instance_norm import InstanceNorm2d
from cxrtut.nn.stargan import StarGANDiscriminator, StarGANTrunk
from cxrtut.randomness import seeded

ATTENTIONS = ("residual", "plain", "none")
OUTPUTS = ("sum", "tanh")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's values with their section; † where the paper is silent and we had to choose."""

    size: int = 256  # † not stated
    channels: int = 1  # † radiographs are grey
    base: int = 64  # 4.2.2: "built upon the baseline StarGAN model"
    residual_blocks: int = 6  # 4.2.2, StarGAN's
    discriminator_base: int = 64  # 4.2.2, StarGAN's
    halvings: int = 6  # 4.2.2, StarGAN's; of the discriminator
    attention: str = "residual"  # Eq. (3); `plain` is A * G', `none` the arm w/o SAB
    output: str = "sum"  # Eq. (4); `tanh` is tanh(x + .), as in VA-GAN and Fixed-Point GAN
    lambda_cls: float = 1.0  # 4.2.1
    lambda_recon: float = 10.0  # 4.2.1
    lambda_target: float = 10.0  # 4.2.1, lambda_id of the first term of Eq. (8)
    lambda_origin: float = 10.0  # 4.2.1, lambda_id of its second term
    lambda_gp: float = 10.0  # 4.2.1
    critic_steps: int = 5  # 4.2.1: "by the ratio of 1:5"
    learning_rate: float = 1e-4  # 4.2.1
    beta_1: float = 0.5  # † StarGAN's
    beta_2: float = 0.999  # † StarGAN's
    batch_size: int = 8  # 4.2.1
    steps: int = 100_000  # 4.2.1: "about 100K iterations", of D: 20,000 of G
    # Of the systems it is compared with, about which the paper says nothing †
    classifier_layers: int = 121  # CheXNet is DenseNet-121; 21 on a CPU
    classifier_stride: int = 32  # pixels of the image for a cell of its map
    classifier_learning_rate: float = 3e-4
    classifier_steps: int = 20_000
    vagan_base: int = 16  # filters of the map generator and the critic
    vagan_learning_rate: float = 1e-4
    vagan_lambda: float = 100.0
    vagan_critic_steps: int = 5  # for a step of the map generator
    vagan_long: int = 100  # critic steps for the first map steps, and now and then
    vagan_first: int = 25  # how many first map steps
    vagan_every: int = 100  # how often

    def __post_init__(self) -> None:
        for name, value, known in (
            ("attention", self.attention, ATTENTIONS), ("output", self.output, OUTPUTS),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        if self.size % 16:
            raise ValueError(
                f"size: expected a multiple of 16 (4 by strides, 4 by pooling), got {self.size}"
            )
        if self.critic_steps < 1:
            raise ValueError(f"critic_steps: expected 1 or more, got {self.critic_steps}")
        if self.classifier_layers not in (21, 121):
            raise ValueError(f"classifier_layers: expected 21 or 121, got {self.classifier_layers}")


PAPER = Config()
# One T4, about half an hour for the paper's own method: its networks at 128 px, fewer steps.
COLAB = replace(
    PAPER, size=128, classifier_stride=16, steps=15_000, classifier_steps=2_000, vagan_first=10,
    vagan_long=50,
)  # fmt: skip
# One CPU core, about five minutes an arm and seed. The trunk has a quarter of the paper's width:
# one half as wide often finds no feature to begin from, and changes nothing in any image. G moves
# on every second batch: on every fifth it has too few steps to find the lesions.
CPU = replace(
    PAPER, size=64, base=16, residual_blocks=2, discriminator_base=24, halvings=4,
    learning_rate=5e-4, critic_steps=2, steps=2400, classifier_layers=21, classifier_stride=8,
    classifier_learning_rate=1e-3, classifier_steps=1200, vagan_learning_rate=1e-3, vagan_first=5,
    vagan_long=50,
)  # fmt: skip
# Two CPU cores, less than a minute: a narrow trunk, which has just begun to learn.
SMOKE = replace(CPU, base=8, steps=250, classifier_steps=60, vagan_first=2, vagan_long=10)


class SpatialAttention(nn.Module):
    r"""Eqs. (1) and (2): a map A of probabilities, one for each pixel.

    The feature maps are averaged over 4 x 4 pixels; two 3 x 3 convolutions with an instance norm
    and a ReLU between them make one number of each cell, and the sigmoid a probability.

    Reading (network, width of the block): The number of channels between the convolutions of Eq.
        (2), and behind the second, is not given.
        Here: There are as many between them as $G'$ has, and one behind.
        Why: "A spatial attention map" and "a probability map" are singular, so all channels of $G'$
            share it.

    Reading (network, the up-sampling): "U is the up-sampling operation" names no kind.
        Here: It is bilinear.
        Why: Repeated pixels would give lesions the edges of 4 x 4 blocks.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm = InstanceNorm2d(channels)  # without weights: "to eliminate style variations"
        self.second = nn.Conv2d(channels, 1, 3, 1, 1)

    def forward(self, features: Float[Tensor, "B c H W"]) -> Float[Tensor, "B 1 H W"]:
        cells = F.avg_pool2d(features, kernel_size=4, stride=4)
        attention = torch.sigmoid(self.second(F.relu(self.norm(self.first(cells)))))
        return F.interpolate(attention, scale_factor=4.0, mode="bilinear", align_corners=False)


class LesionGenerator(nn.Module):
    r"""StarGAN's trunk, the spatial attention block and the mixing block: what is to be added to an
    image to bring it into another domain.

    Reading (network, the range of the fake image): $x$ and $L$ lie in $[-1, 1]$, so $x + L$ can lie
        anywhere in $[-2, 2]$, and Eq. (4) clips nothing.
        Here: The losses see $x + L$ as it is. What is shown, judged and measured is clipped to
            $[-1, 1]$.
        Why: The discriminator learns to reject values that no image has. A clip in the losses would
            stop the gradient where it is needed.
    """

    def __init__(self, config: Config, domains: int = 2) -> None:
        super().__init__()
        self.kind, self.output = config.attention, config.output
        self.trunk = StarGANTrunk(config.channels, domains, config.base, config.residual_blocks)
        if self.kind != "none":
            self.attention = SpatialAttention(config.base)
        self.mixing = nn.Conv2d(config.base, config.channels, 1)

    def mixed(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B K"]
    ) -> Float[Tensor, "B C H W"]:
        """The 1x1 convolution of (A + 1) * G', before the tanh of Eq. (3)."""
        features = self.trunk(image, target)
        if self.kind == "none":
            return self.mixing(features)
        attention = self.attention(features)
        return self.mixing((attention + 1 if self.kind == "residual" else attention) * features)

    def lesion_map(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B K"]
    ) -> Float[Tensor, "B C H W"]:
        """Eq. (3): L, in [-1, 1]; with `Config.output` "tanh", tanh(x + .) - x."""
        mixed = self.mixed(image, target)
        return torch.tanh(mixed) if self.output == "sum" else torch.tanh(image + mixed) - image

    def attention_map(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B K"]
    ) -> Float[Tensor, "B 1 H W"]:
        """Eq. (1): A, in [0, 1].

        Raises:
            ValueError: a generator without the block.
        """
        if self.kind == "none":
            raise ValueError("expected a generator with spatial attention, got one without")
        return self.attention(self.trunk(image, target))

    def forward(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B K"]
    ) -> Float[Tensor, "B C H W"]:
        """Eq. (4): x + L, in [-2, 2]."""
        return image + self.lesion_map(image, target)


def make_networks(config: Config, seed: int) -> dict[str, nn.Module]:
    """G and D with the initial weights of a seed."""
    with seeded("pillet_gan", seed):
        return {
            "generator": LesionGenerator(config),
            "discriminator": StarGANDiscriminator(
                config.channels, 2, config.discriminator_base, config.size, config.halvings
            ),
        }


class PilletGAN:
    r"""G and D, trained by turns on Eqs. (12) and (11).

    A batch brings its target domains: `Loader.with_targets`.

    Reading (training, target domains): "Randomly setting the target domain" (Section 4.2.2) gives
        no distribution.
        Here: The targets of a batch are the labels of its images in a random order.
        Why: StarGAN's public code does the same. As many targets are healthy as images are, and
            about half of all images are asked for the domain they already have.

    Reading (training, five to one): "We balance the learning of generators and discriminators by
        the ratio of 1:5" and "100K iterations" do not say what one iteration is.
        Here: One iteration is one batch. D moves on each, G on every fifth.
        Why: The number of iterations counts like that in StarGAN's public code, on which the method
            is built: 100,000 steps of D, and 20,000 of G.

    Reading (training, decay): A decay of the learning rate is not mentioned.
        Here: The rate is constant.
        Why: StarGAN's paper describes a decay, but its public code ends at 99.9 % of the initial
            rate: without one, too.
    """

    n_uniforms = 1  # where between a real and a fake image the penalty is taken

    def __init__(
        self, config: Config, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """
        Args:
            config: sizes and coefficients.
            seed: of the initial weights.
            device: where the networks are.
        """
        self.config = config
        self.networks = make_networks(config, seed)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, network in self.networks.items():
            network.to(device)
            self.optimizers[name] = torch.optim.Adam(
                network.parameters(), config.learning_rate, betas=(config.beta_1, config.beta_2)
            )

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("discriminator",), self.discriminator_loss)
        if (step + 1) % self.config.critic_steps == 0:
            yield Phase("G", ("generator",), self.generator_loss)

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        r"""Eq. (11): L_D = -L_adv^D + λ_cls L_cls^real.

        Reading (loss, signs): Eq. (6) prints $L_{adv}^D$ as something that D makes large, Eq. (5)
            $L_{adv}^G$ as something that G makes small.
            Here: Both are written as losses, which are made small.
            Why: The minus of Eq. (11) turns Eq. (6) round. Who minimises Eq. (6) as it stands,
                or drops that minus, trains D backwards.
        """
        G, D, c = self.networks["generator"], self.networks["discriminator"], self.config
        x, o, t = batch.image, *origin_and_target(batch.label_vector, batch.target_vector)
        with torch.no_grad():
            fake = G(x, t)
        assert batch.uniforms is not None, "a batch for training has uniform numbers"
        return discriminator_loss(
            D, x, fake, o, batch.uniforms[:, 0], lambda_gp=c.lambda_gp, lambda_cls=c.lambda_cls
        )

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        r"""Eq. (12): L_G = L_adv^G + λ_cls L_cls^fake + λ_recon L_recon + λ_id L_id.

        Reading (loss, mean or sum): $\| \cdot \|_1$ is a sum over pixels.
            Here: All three are means over pixels and images.
            Why: StarGAN's public code takes means, and $\lambda = 10$ would otherwise depend on
                the size of the image.

        Reading (loss, the first identity term): $\| G(x, t) - x \|_1$ is $\| L \|_1$, for any
            target $t$.
            Here: It stays whatever the target is, and pulls at every change, needed or not.
            Why: Eq. (8) prints it so. It is what makes the lesion map sparse.
        """
        G, D, c = self.networks["generator"], self.networks["discriminator"], self.config
        x, o, t = batch.image, *origin_and_target(batch.label_vector, batch.target_vector)
        fake = G(x, t)
        loss, terms = translation_loss(D, fake, t, lambda_cls=c.lambda_cls)
        recon = (G(fake, o) - x).abs().mean()
        target, origin = (fake - x).abs().mean(), (G(x, o) - x).abs().mean()
        loss = loss + c.lambda_recon * recon + c.lambda_target * target + c.lambda_origin * origin
        return loss, {**terms, "recon": recon, "target": target, "origin": origin}


class LesionLocaliser:
    """A trained generator as a system: x + L with the target domain "healthy", clipped to the range
    of images, and |L| as the heat map, the mean over channels.

    Networks: `generator`.

    Reading (evaluation, the map that is scored): Section 4.3.1 scores "the normalized difference
        map between a synthesized image and the input", Section 4.2.2 "the lesion map".
        Here: The heat map is $|L|$, before anything is clipped. `normalise` is left to the measure.
        Why: The two are the same but for the clip, which would hide a change at the borders of the
            range.
    """

    def __init__(
        self, config: Config, classes: tuple[str, ...], generator: LesionGenerator
    ) -> None:
        """
        Args:
            config: of the generator; its size and channels are those of the images.
            classes: the diseases that it removes; they share one heat map.
            generator: trained, or about to be.
        """
        self.classes = classes if len(classes) == 1 else ("any of " + ", ".join(classes),)
        self.size, self.channels = config.size, config.channels
        self.networks: dict[str, nn.Module] = {"generator": generator}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The pseudo-healthy images, and a heat map of one channel."""
        lesion = self.lesion_map(images)
        heat = lesion.abs().mean(1, keepdim=True)
        return Prediction(heatmap=heat, image=(images + lesion).clamp(-1, 1))

    @torch.no_grad()
    def lesion_map(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """L of Eq. (3), target "healthy", in evaluation mode; the mode is put back."""
        generator = self.networks["generator"]
        assert isinstance(generator, LesionGenerator)
        if not len(images):  # an instance norm wants one at least
            return torch.zeros_like(images)
        with evaluating(generator):
            parts = [generator.lesion_map(x, healthy_domain(x)) for x in in_parts(images)]
        return torch.cat(parts)
