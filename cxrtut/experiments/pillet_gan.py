"""The tables of the PILLET-GAN paper: Tables 1 and 2 and Fig. 3, and our ablations.

The paper's own arms are those of its tables; `no target identity`, `no origin identity`, `A * G'`
and `tanh of the sum` are ours. All generators see the same batches, as many of them, and are judged
by the same frozen CheXNet, which is also the arm of that name.

Reading (evaluation, the judge): Images are judged by "the pretrained CheXNet-CAM network", which is
    also the arm it is compared with. Nothing is said of its own accuracy.
    Here: It is trained on the same training images as the others and frozen. Its accuracy on the
        test images as they are stands beside that on translated ones.
    Why: A judge that calls everything healthy would let every translation pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from cxrtut.baselines import fixed_point_gan, stargan, vagan
from cxrtut.baselines.chexnet import CheXNet, class_weights
from cxrtut.baselines.classifier import ActivationMaps
from cxrtut.baselines.pseudo_healthy import PseudoHealthy, Translate
from cxrtut.data.split import Split
from cxrtut.data.store import StoreError
from cxrtut.evaluation.classification import normal_or_not_measure
from cxrtut.evaluation.counterfactual import removal_measure, twin_measure
from cxrtut.evaluation.pixels import pixel_measure
from cxrtut.evaluation.roc import roc_measure
from cxrtut.evaluation.translation import pixel_change_measure, translation_measure
from cxrtut.evaluation.watched import watched_measure
from cxrtut.experiments.comparison import Arm, Comparison, Timed
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.nn.backbones import DenseNet
from cxrtut.nn.stargan import StarGANDiscriminator, StarGANGenerator
from cxrtut.papers.pillet_gan import (
    COLAB,
    CPU,
    PAPER,
    SMOKE,
    Config,
    LesionGenerator,
    LesionLocaliser,
    PilletGAN,
    make_networks,
)
from cxrtut.randomness import seeded

IMAGES = 2048  # simulated ones, unless the source says another number
SCORED = 512  # images of each kind that are measured at most
WATCHED = 64  # images with pneumonia whose pixels are ranked during training
VARIANTS: dict[str, dict[str, str | float]] = {
    "PILLET-GAN": {},
    "w/o SAB": {"attention": "none"},
    "no target identity": {"lambda_target": 0.0},
    "no origin identity": {"lambda_origin": 0.0},
    "A * G'": {"attention": "plain"},
    "tanh of the sum": {"output": "tanh"},
}


def split_of(source: Source, config: Config, seed: int) -> Split:
    """One disease and normal images."""
    return source.one_disease(config.size, seed, IMAGES)


def check(split: Split) -> None:
    """Raises StoreError where no test image is outlined."""
    if not len(split.with_truth("test")):
        raise StoreError(f"{split.name}: expected masks or boxes on test images, got none")


def _variant(config: Config, arm: str) -> Config:
    return replace(config, **VARIANTS[arm])  # type: ignore[arg-type]


def build_pillet(arm: str, config: Config, classes: tuple[str, ...], seed: int) -> LesionLocaliser:
    """A PILLET-GAN, or a variant of it, that was not trained."""
    changed = _variant(config, arm)
    generator = make_networks(changed, seed)["generator"]
    assert isinstance(generator, LesionGenerator)
    return LesionLocaliser(changed, classes, generator)


def train_pillet(arm: str, config: Config, split: Split, run: Run) -> LesionLocaliser:
    """Trains PILLET-GAN, or a variant of it."""
    changed = _variant(config, arm)
    task = PilletGAN(changed, seed=run.seed, device=run.device)
    generator = task.networks["generator"]
    assert isinstance(generator, LesionGenerator)
    system = LesionLocaliser(changed, split.classes, generator)
    run.fit(
        "main", task, split.loader(with_targets=True), steps=config.steps,
        batch_size=config.batch_size, watched=system,
    )  # fmt: skip
    return system


def make_stargan(config: Config, seed: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of StarGAN and Fixed-Point GAN."""
    with seeded("stargan", seed):
        generator = StarGANGenerator(config.channels, 2, config.base, config.residual_blocks)
        discriminator = StarGANDiscriminator(
            config.channels, 2, config.discriminator_base, config.size, config.halvings
        )
    return generator, discriminator


def make_vagan(config: Config, seed: int) -> tuple[nn.Module, nn.Module]:
    """Map generator and critic of VA-GAN."""
    with seeded("vagan", seed):
        return (
            vagan.MapGenerator(config.channels, config.vagan_base),
            vagan.VAGANCritic(config.channels, config.vagan_base),
        )


Make = Callable[[Config, int], tuple[nn.Module, nn.Module]]
MADE: dict[str, tuple[Make, Translate]] = {
    "StarGAN": (make_stargan, stargan.to_healthy),
    "Fixed-Point GAN": (make_stargan, fixed_point_gan.to_healthy),
    "VA-GAN": (make_vagan, vagan.to_healthy),
}


def _system(
    arm: str, generator: nn.Module, config: Config, classes: tuple[str, ...]
) -> PseudoHealthy:
    return PseudoHealthy(
        generator, MADE[arm][1], classes, size=config.size, channels=config.channels
    )


def build_other(arm: str, config: Config, classes: tuple[str, ...], seed: int) -> PseudoHealthy:
    """One of the generators it is compared with, not trained."""
    return _system(arm, MADE[arm][0](config, seed)[0], config, classes)


def train_star(
    task_of: type[stargan.StarGAN], arm: str, config: Config, split: Split, run: Run
) -> PseudoHealthy:
    """Trains StarGAN or Fixed-Point GAN."""
    generator, discriminator = (
        network.to(run.device) for network in make_stargan(config, run.seed)
    )
    task = task_of(
        generator, discriminator, learning_rate=config.learning_rate,
        betas=(config.beta_1, config.beta_2), critic_steps=config.critic_steps,
        lambda_cls=config.lambda_cls, lambda_rec=config.lambda_recon, lambda_gp=config.lambda_gp,
    )  # fmt: skip
    system = _system(arm, generator, config, split.classes)
    run.fit(
        "main", task, split.loader(with_targets=True), steps=config.steps,
        batch_size=config.batch_size, watched=system,
    )  # fmt: skip
    return system


def train_vagan(arm: str, config: Config, split: Split, run: Run) -> PseudoHealthy:
    """Trains VA-GAN, on as many batches as the others."""
    generator, critic = (network.to(run.device) for network in make_vagan(config, run.seed))
    task = vagan.VAGAN(
        generator, critic, learning_rate=config.vagan_learning_rate,
        critic_steps=config.vagan_critic_steps, long=config.vagan_long, first=config.vagan_first,
        every=config.vagan_every, lambda_reg=config.vagan_lambda, lambda_gp=config.lambda_gp,
    )  # fmt: skip
    system = _system(arm, generator, config, split.classes)
    run.fit(
        "main", task, split.loader("balanced"), steps=config.steps, batch_size=config.batch_size,
        watched=system,
    )  # fmt: skip
    return system


def build_chexnet(config: Config, classes: tuple[str, ...], seed: int) -> ActivationMaps:
    """CheXNet that was not trained, looked into by CAM."""
    with seeded("chexnet", seed):
        network = DenseNet(
            config.channels, layers=config.classifier_layers, stride=config.classifier_stride
        )
    return ActivationMaps(network, classes, size=config.size, channels=config.channels)


def train_chexnet(config: Config, split: Split, run: Run) -> ActivationMaps:
    """Trains CheXNet, once for a run: the arm is also the judge of the others."""

    def trained() -> ActivationMaps:
        system = build_chexnet(config, split.classes, run.seed)
        network = system.networks["classifier"].to(run.device)
        weights = class_weights(len(split.train) - len(split.abnormal()), len(split.abnormal()))
        task = CheXNet(network, weights, learning_rate=config.classifier_learning_rate)
        run.fit(
            "CheXNet", task, split.loader(), steps=config.classifier_steps,
            batch_size=config.batch_size, watched=system,
        )  # fmt: skip
        network.eval().requires_grad_(False)
        return system

    return run.once("CheXNet", trained)


def _pillet(arm: str) -> Arm[Config]:
    return Arm(partial(build_pillet, arm), partial(train_pillet, arm))


def _star(arm: str, task_of: type[stargan.StarGAN]) -> Arm[Config]:
    return Arm(partial(build_other, arm), partial(train_star, task_of, arm))


# VA-GAN's rounds of 100 map steps are too long to be timed: here each has five critic steps
_SHORT = replace(PAPER, vagan_long=PAPER.vagan_critic_steps)
TIMED = Timed(
    arms=("PILLET-GAN", "StarGAN", "Fixed-Point GAN", "VA-GAN"),
    configurations={
        "128 px, batch 4": replace(_SHORT, size=128, batch_size=4),
        "256 px, batch 8": _SHORT,
    },
    published_steps=PAPER.steps,
)
COMPARISON = Comparison(
    paper="pillet_gan",
    presets={"paper": PAPER, "colab": COLAB, "cpu": CPU, "smoke": SMOKE},
    own="PILLET-GAN",
    split=split_of,
    arms={
        "CheXNet": Arm(build_chexnet, train_chexnet),
        "VA-GAN": Arm(partial(build_other, "VA-GAN"), partial(train_vagan, "VA-GAN")),
        "StarGAN": _star("StarGAN", stargan.StarGAN),
        "Fixed-Point GAN": _star("Fixed-Point GAN", fixed_point_gan.FixedPointGAN),
        **{arm: _pillet(arm) for arm in VARIANTS},
    },
    measures=(
        pixel_change_measure("test", SCORED),
        roc_measure("test", SCORED),
        pixel_measure("test", SCORED),
        removal_measure("test", SCORED),
        twin_measure("test", SCORED),
        normal_or_not_measure("test", SCORED),
    ),
    judge=train_chexnet,
    judged=(translation_measure("test", SCORED),),
    learning_curve=watched_measure("pixel_auroc", "train", WATCHED),
    timed=TIMED,
    faithful=frozenset({"paper"}),
    sources=frozenset({"RSNA Pneumonia Detection Challenge"}),
    check=check,
)
