"""The tables of the Biomarker paper: Fig. 3 (arms), Figs. 4 and 5 (class activation maps).

The paper trains and evaluates on the same images "on purpose": the numbers of `train`. Those of
`test` are, from the same training, of patients never seen.

Reading (data, annotated photographs): 40 photographs of the retina were "annotated at pixel level
    by two practising ophthalmologists". They were not published.
    Here: IDRiD stands in for them (`prepare_retina`); its photographs have a mask of each kind of
        lesion.
    Why: It is public, and drawn by experts to the pixel. Its cameras, lesions and readers are
        others, so that its numbers are not the paper's.

Reading (data, patches of skin): The second set is of 2,920 "normal images (actually image
    patches)" of skin, with pasted thumbnails. It is not said where a patch is cut.
    Here: One patch is cut from each image, as far from the lesion as possible (`prepare_skin`), and
        every other one gets thumbnails (`--data pasted`).
    Why: It shows skin and nothing else, so that all that is abnormal in it was pasted.

Reading (evaluation, layers of Grad-CAM): Grad-CAM-1 is of "the intermediate convolutional layer",
    Grad-CAM-2 of the last.
    Here: They are conv3_4 and conv5_4 of VGG-19. In the small VGG of a CPU, which has eight
        convolutions and norms, they are what leaves the norms behind the fourth and the last.
    Why: The paper does not name the first; conv3_4 is the eighth of sixteen convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from cxrtut.baselines.classifier import ActivationMaps, BinaryClassifierTask
from cxrtut.baselines.difference_classifier import DifferenceClassifier
from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, evenly
from cxrtut.data.store import StoreError
from cxrtut.engine.progress import SampleGrid
from cxrtut.evaluation.classification import normal_or_not, normal_or_not_measure
from cxrtut.evaluation.controls import controls_measure
from cxrtut.evaluation.counterfactual import removal_measure, twin_measure
from cxrtut.evaluation.measure import Measure, Numbers
from cxrtut.evaluation.pixels import pixel_measure
from cxrtut.evaluation.randomisation import randomisation_measure
from cxrtut.evaluation.watched import watched_measure
from cxrtut.experiments.comparison import Arm, Comparison
from cxrtut.experiments.run import Callback, Run
from cxrtut.experiments.source import Source
from cxrtut.nn.backbones import VGG19, ResNet10, ResNet18
from cxrtut.nn.small_vgg import SmallVGG
from cxrtut.papers.biomarker import (
    COLAB,
    CPU,
    PAPER,
    SMOKE,
    Biomarker,
    BiomarkerLocaliser,
    Config,
    Pretraining,
    WarmUp,
    WithoutClassifier,
    WithoutCritic,
    make_networks,
    to_healthy,
)
from cxrtut.randomness import seeded

IMAGES = 2048  # simulated ones, unless the source says another number
SCORED = 512  # images of each kind that are measured at most
SHOWN = 6  # images in a sample grid
WATCHED = 64  # abnormal images whose pixels are scored during training
RANDOMISED = 64  # abnormal images whose maps are compared with those of shuffled parameters
MEASURED = 32  # batches whose differences C's batch norms are measured on
# Of VGG-19, and of the small VGG; see the Reading of the module.
LAYERS = {"Grad-CAM-1": ("conv3_4", "norm2_2"), "Grad-CAM-2": ("conv5_4", "norm4_2")}


def split_of(source: Source, config: Config, seed: int) -> Split:
    """One disease (or pasted biomarkers) and normal images."""
    return source.one_disease(config.size, seed, IMAGES)


def check(split: Split) -> None:
    """Raises StoreError where nothing is outlined that could be scored against."""
    if not len(split.with_truth("train")):
        raise StoreError(f"{split.name}: expected masks or boxes to score against, got none")


def direct(config: Config) -> Config:
    """The configuration with the paper's own generator, pre-trained."""
    return replace(config, residual=False)


def build_localiser(config: Config, classes: tuple[str, ...], seed: int) -> BiomarkerLocaliser:
    """A generator that was not trained."""
    return BiomarkerLocaliser(config, classes, make_networks(config, seed)["generator"])


def train_localiser(
    task_of: type[Biomarker], config: Config, split: Split, run: Run, *, warm_up: bool
) -> BiomarkerLocaliser:
    """Pre-trains G on all images unless it is residual, warms C up where the arm has one, and
    trains the arm.
    """
    task = task_of(config, seed=run.seed, device=run.device)
    loader, n = split.loader("balanced"), config.batch_size
    pretrains = task_of is not Pretraining and not config.residual
    pretrained = config.pretraining_steps if pretrains else 0
    for stage, before, steps in (
        ("pre-training", Pretraining, pretrained),
        ("warm-up", WarmUp, config.warm_up_steps if warm_up else 0),
    ):
        if steps:
            first = before(config, device=run.device, networks=task.networks)
            run.fit(stage, first, loader, steps=steps, batch_size=n)
    system = BiomarkerLocaliser(config, split.classes, task.networks["generator"])
    run.fit(
        "main", task, loader, steps=config.steps, batch_size=n,
        callbacks=_samples(task, split, run), watched=system,
    )  # fmt: skip
    if not warm_up:
        return system
    reader = DifferenceClassifier(system, task.networks["classifier"])
    batches = loader.batches(batch_size=n, seed=run.seed, device=run.device)
    reader.measure_differences(batch.image for batch in islice(batches, MEASURED))
    system.reader = reader
    return system


def _samples(task: Biomarker, split: Split, run: Run) -> Sequence[Callback]:
    """Pictures of x, G(x), their difference and, where it is known, the healthy twin; where a run
    has a folder.
    """
    if run.folder is None or not run.ranks.first:
        return ()
    rows = split.with_truth("test")
    rows = rows if len(rows) else split.abnormal()
    batch = split.batch(evenly(rows, SCORED)[:SHOWN], run.device)

    def draw() -> Tensor:
        x = batch.image
        output = to_healthy(task.networks["generator"], x)
        columns = [x, output, ((output - x) / 2).clamp(-1, 1)]
        return torch.stack(columns + ([] if batch.healthy is None else [batch.healthy]), 1)

    return (SampleGrid(draw, run.folder / "samples"),)


def make_classifiers(config: Config, seed: int) -> tuple[nn.Module, nn.Module]:
    """The classifiers of Section 3.3: ResNet-18 for CAM, VGG-19 for Grad-CAM; at the CPU's size a
    residual network of ten layers, and a VGG of eight convolutions.
    """
    with seeded("comparators", seed):
        if config.classifier_layers == 10:
            width = config.classifier_width
            return ResNet10(config.channels, width), SmallVGG(config.channels, width)
        return ResNet18(config.channels), VGG19(config.channels)


def build_maps(arm: str, config: Config, classes: tuple[str, ...], seed: int) -> ActivationMaps:
    """A classifier that was not trained, looked into by CAM or Grad-CAM."""
    for_cam, for_grad_cam = make_classifiers(config, seed)
    return _maps(arm, config, classes, for_cam if arm == "CAM" else for_grad_cam)


def _maps(arm: str, config: Config, classes: tuple[str, ...], network: nn.Module) -> ActivationMaps:
    layers = LAYERS.get(arm, (None, None))
    return ActivationMaps(
        network, classes, size=config.size, channels=config.channels,
        layer=layers[0] if isinstance(network, VGG19) else layers[1],
    )  # fmt: skip


def train_maps(arm: str, config: Config, split: Split, run: Run) -> ActivationMaps:
    """Trains the classifier behind an arm on the images that the others see, once for all arms that
    share it.
    """
    networks = run.once("classifiers", lambda: make_classifiers(config, run.seed))
    network = networks[0 if arm == "CAM" else 1]
    # Without norms VGG-19 needs a smaller rate
    rate = 1e-3 if isinstance(network, ResNet10 | SmallVGG) else config.learning_rate
    rate = 2e-5 if isinstance(network, VGG19) else rate

    def trained() -> nn.Module:
        task = BinaryClassifierTask(network.to(run.device), learning_rate=rate)
        run.fit(
            f"classifier {type(network).__name__}", task, split.loader("balanced"),
            steps=config.comparator_steps, batch_size=config.batch_size,
        )  # fmt: skip
        return network.eval()

    return _maps(arm, config, split.classes, run.once(type(network).__name__, trained))


def read_from_differences(system: System, split: Split, side: Side) -> Numbers:
    """`accuracy` of C, which reads the differences that a generator makes; nothing of other systems
    and of one from a file of weights.
    """
    reader = getattr(system, "reader", None)
    return {} if reader is None else normal_or_not(reader, split, side, at_most=SCORED)


COMPARISON = Comparison(
    paper="biomarker",
    presets={"paper": PAPER, "colab": COLAB, "cpu": CPU, "smoke": SMOKE},
    own="G-D-C",
    split=split_of,
    arms={
        "G-D-C": Arm(build_localiser, partial(train_localiser, Biomarker, warm_up=True)),
        "G-D": Arm(build_localiser, partial(train_localiser, WithoutClassifier, warm_up=False)),
        "G-C": Arm(build_localiser, partial(train_localiser, WithoutCritic, warm_up=True)),
        "ED": Arm(build_localiser, partial(train_localiser, Pretraining, warm_up=False)),
        "G-D-C, direct": Arm(
            lambda config, *rest: build_localiser(direct(config), *rest),
            lambda config, *rest: train_localiser(Biomarker, direct(config), *rest, warm_up=True),
        ),
        **{
            arm: Arm(partial(build_maps, arm), partial(train_maps, arm)) for arm in ("CAM", *LAYERS)
        },
    },
    measures=(
        pixel_measure("train", SCORED),
        controls_measure("train", SCORED),
        removal_measure("train", SCORED),
        normal_or_not_measure("train", SCORED),
        Measure("train", read_from_differences, {"accuracy": "higher"}),
        pixel_measure("test", SCORED),
        controls_measure("test", SCORED),
        removal_measure("test", SCORED),
        twin_measure("test", SCORED),
        normal_or_not_measure("test", SCORED),
        Measure("test", read_from_differences, {"accuracy": "higher"}),
        randomisation_measure("test", RANDOMISED),
    ),
    learning_curve=watched_measure("pixel_ap", "train", WATCHED),
    faithful=frozenset({"paper"}),
    sources=frozenset(
        {"IDRiD", "Kaggle Diabetic Retinopathy Detection", "pasted: HAM10000 / ISIC"}
    ),
    check=check,
)
