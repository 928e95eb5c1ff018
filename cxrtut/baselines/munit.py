r"""MUNIT: the same content in another style; a generator of Fig. 3 of GRANet.

X. Huang, M.-Y. Liu, S. Belongie and J. Kautz, Multimodal Unsupervised Image-to-Image Translation,
ECCV 2018.

Equations
    (1)  $L_{recon}^{x_1} = E \| G_1(E_1^c(x_1), E_1^s(x_1)) - x_1 \|_1$    `MUNIT.generator_loss`
    (2)  $L_{recon}^{c_1} = E \| E_2^c(G_2(c_1, s_2)) - c_1 \|_1$    `MUNIT.generator_loss`
    (3)  $L_{recon}^{s_2} = E \| E_2^s(G_2(c_1, s_2)) - s_2 \|_1$    `MUNIT.generator_loss`
    (4)  $L_{GAN}^{x_2}$, of least squares    `MUNIT.generator_loss`, `MUNIT.discriminator_loss`
    (5)  $L_{GAN} + 10 L_{recon}^x + L_{recon}^c + L_{recon}^s$    `MUNIT.generator_loss`
    Section 5.1, the networks    `nn.munit.MunitGenerator`, `nn.munit.MunitDiscriminator`
    Appendix, the style-augmented cycle    `MUNIT.generator_loss`

Here 1 are abnormal images and 2 normal ones. A style is eight numbers, drawn from $N(0, I)$.

Reading (training, the style-augmented cycle): It is for data sets of little variation, and most of
    the public configurations leave it out.
    Here: Its weight is 0; it can be set.
    Why: So it is in most of them.

Reading (evaluation, the style of a healthy image): Any style makes a normal image.
    Here: It is the mean style, 0.
    Why: One answer is asked for, and a style at random would make noise of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, abnormal, normal
from cxrtut.engine.task import Phase, Terms
from cxrtut.losses.adversarial import (
    least_squares_discriminator_loss,
    least_squares_generator_loss,
)
from cxrtut.nn.munit import STYLE, MunitDiscriminator, MunitGenerator, drawn_style

HALF = 100_000  # steps after which the learning rate is halved, again and again


class MUNIT:
    """Trained on Eq. (5). A batch has normal and abnormal images in turn, which belong together in
    nothing else.

    Networks: `abnormal` and `normal`, each an encoder of contents and styles with a decoder, and
    `abnormal_discriminator` and `normal_discriminator`.
    """

    n_uniforms = 2 * STYLE

    def __init__(
        self,
        abnormal_generator: MunitGenerator,
        normal_generator: MunitGenerator,
        abnormal_discriminator: MunitDiscriminator,
        normal_discriminator: MunitDiscriminator,
        *,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-4,
        lambda_image: float = 10.0,
        lambda_content: float = 1.0,
        lambda_style: float = 1.0,
        lambda_cycle: float = 0.0,
    ) -> None:
        """
        Args:
            abnormal_generator, normal_generator: of each domain; on their device.
            abnormal_discriminator, normal_discriminator: of each domain.
            learning_rate: of Adam (betas .5 and .999), halved every 100,000 steps.
            weight_decay: of Adam, added to the gradients.
            lambda_image, lambda_content, lambda_style: of Eqs. (1), (2) and (3).
            lambda_cycle: of the style-augmented cycle, see the module.
        """
        self.networks: dict[str, nn.Module] = {
            "abnormal": abnormal_generator, "normal": normal_generator,
            "abnormal_discriminator": abnormal_discriminator,
            "normal_discriminator": normal_discriminator,
        }  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(
                network.parameters(), learning_rate, betas=(0.5, 0.999), weight_decay=weight_decay
            )
            for name, network in self.networks.items()
        }
        self.lambda_image, self.lambda_content = lambda_image, lambda_content
        self.lambda_style, self.lambda_cycle = lambda_style, lambda_cycle

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase(
            "D", ("abnormal_discriminator", "normal_discriminator"), self.discriminator_loss
        )
        yield Phase("G", ("abnormal", "normal"), self.generator_loss)

    def schedule(self, step: int) -> dict[str, float]:
        """The rate is halved every 100,000 steps."""
        return dict.fromkeys(self.networks, 0.5 ** (step // HALF))

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (4) for both discriminators: sums over resolutions, means over patches."""
        drawn = _styles(batch)
        ours, theirs = self.networks["abnormal"], self.networks["normal"]
        assert isinstance(ours, MunitGenerator) and isinstance(theirs, MunitGenerator)
        x, y = abnormal(batch.image), normal(batch.image)
        with torch.no_grad():
            to_normal = theirs.image(ours.content(x), drawn[1::2])
            to_abnormal = ours.image(theirs.content(y), drawn[0::2])
        loss = x.new_zeros(())
        for name, real, fake in (("normal", y, to_normal), ("abnormal", x, to_abnormal)):
            D = self.networks[f"{name}_discriminator"]
            for of_real, of_fake in zip(D(real), D(fake), strict=True):
                loss = loss + least_squares_discriminator_loss(of_real, of_fake)
        return loss, {}

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (5); every norm is a mean over what it is of."""
        drawn = _styles(batch)
        images = {"abnormal": abnormal(batch.image), "normal": normal(batch.image)}
        style = {"normal": drawn[1::2], "abnormal": drawn[0::2]}  # of what each is made into
        terms = dict.fromkeys(("adversarial", "image", "content", "style"), drawn.new_zeros(()))
        cycle = drawn.new_zeros(())
        for name, other in (("abnormal", "normal"), ("normal", "abnormal")):
            ours, theirs = self.networks[name], self.networks[other]
            assert isinstance(ours, MunitGenerator) and isinstance(theirs, MunitGenerator)
            x = images[name]
            content, own = ours.content(x), ours.style(x)
            fake = theirs.image(content, style[other])
            again = theirs.content(fake)
            for scores in self.networks[f"{other}_discriminator"](fake):
                terms["adversarial"] = terms["adversarial"] + least_squares_generator_loss(scores)
            terms["image"] = terms["image"] + (ours.image(content, own) - x).abs().mean()
            terms["content"] = terms["content"] + (again - content).abs().mean()
            terms["style"] = terms["style"] + (theirs.style(fake) - style[other]).abs().mean()
            if self.lambda_cycle:
                cycle = cycle + (ours.image(again, own) - x).abs().mean()
        loss = (
            terms["adversarial"] + self.lambda_image * terms["image"]
            + self.lambda_content * terms["content"] + self.lambda_style * terms["style"]
        )  # fmt: skip
        if not self.lambda_cycle:
            return loss, terms
        return loss + self.lambda_cycle * cycle, {**terms, "cycle": cycle}


def _styles(batch: Batch) -> Float[Tensor, "B 8"]:
    assert batch.uniforms is not None, "a batch for training has uniform numbers"
    return drawn_style(batch.uniforms)


class MunitTranslator(nn.Module):
    """Both generators as one, for `baselines.pseudo_healthy.PseudoHealthy`."""

    def __init__(self, abnormal_generator: MunitGenerator, normal_generator: MunitGenerator):
        super().__init__()
        self.abnormal, self.normal = abnormal_generator, normal_generator

    def forward(
        self, x: Float[Tensor, "B C H W"], style: Float[Tensor, "B 8"]
    ) -> Float[Tensor, "B C H W"]:
        """Abnormal images as normal ones of some styles."""
        return self.normal.image(self.abnormal.content(x), style)


def to_healthy(translator: nn.Module, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Normal images of the mean style."""
    return translator(x, x.new_zeros(len(x), STYLE))
