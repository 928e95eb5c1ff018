"""The tables of the GRANet paper: Tables 1 and 2 (detectors), Table 3 (turns) and Fig. 3
(generators), and our controls.

All detectors of a run learn from the same images, with the same augmentation, half of each batch
normal. By turns a detector moves on about as many batches as alone: turns are whole epochs, and the
last one may be cut off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cxrtut.baselines import cyclegan, dgm, munit
from cxrtut.baselines.aligned import Aligned
from cxrtut.baselines.box_detector import BoxDetector, DetectionTask
from cxrtut.baselines.pseudo_healthy import PseudoHealthy, Translate
from cxrtut.baselines.yolov3 import YOLOv3
from cxrtut.data.anchor_shapes import fitted_in_two_levels, fitted_shapes
from cxrtut.data.annotated import boxed, together, with_all_boxes, with_twins
from cxrtut.data.boxed_split import split_boxed
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import identity, in_memory
from cxrtut.data.sample import System
from cxrtut.data.split import Split
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.validation_split import with_validation
from cxrtut.engine.task import Task
from cxrtut.evaluation.challenge import challenge_measure
from cxrtut.evaluation.counterfactual import removal_measure, twin_measure
from cxrtut.evaluation.pixels import pixel_measure
from cxrtut.experiments.comparison import Arm, Comparison
from cxrtut.experiments.granet_detectors import FIRST, make_detector
from cxrtut.experiments.granet_stages import (
    DETECTORS,
    GENERATORS,
    Stages,
    in_turn,
    make_aligner,
    stages_of,
)
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.nn.dgm import DisentangledGenerator, PatchScores
from cxrtut.nn.initialisation import initialise_normal
from cxrtut.nn.instance_norm import InstanceNorm2d
from cxrtut.nn.munit import MunitDiscriminator, MunitGenerator
from cxrtut.nn.patchgan import PatchGAN
from cxrtut.nn.resnet_generator import ResNetGenerator
from cxrtut.papers.granet import COLAB, CPU, PAPER, SMOKE, Config, GRANet, make_networks
from cxrtut.randomness import generator, seeded

IMAGES = 2048  # simulated ones, unless the source says another number
VALIDATION = 0.5  # of the held-out patients: a score is chosen on them
TURNS = {"1:1": (1, 1), "1:2": (1, 2), "1:3": (1, 3), "2:1": (2, 1), "3:3": (3, 3), "5:1": (5, 1)}


def unchanged(config: Config) -> Config:
    """The configuration as it is."""
    return config


@dataclass(frozen=True)
class Row:
    """A line of Tables 1 to 3.

    Attributes:
        detector: its name in `granet_detectors`.
        aligned: whether images are aligned first.
        attention: `none`, `trained` by turns with the detector, or `untrained`; or `DGM`, whose
            answers are channels of the image.
        more: what is added to the images: `none`, `synthetic` abnormal ones, or the annotated ones
            `again`, as many.
        change: of the configuration.
    """

    detector: str
    aligned: bool = False
    attention: str = "none"
    more: str = "none"
    change: Callable[[Config], Config] = unchanged


def split_of(source: Source, config: Config, seed: int) -> Split:
    """One disease with boxes, and normal images, by patient; half of the held-out patients choose
    scores.

    Raises:
        StoreError: pasted biomarkers, or a store without such boxes.
    """
    if source.data == "pasted":
        raise StoreError("--data pasted: expected phantom or store, where there are diseases")
    classes = (source.disease,)
    if source.data == "store":
        split = split_boxed(
            ArrayStore.open(str(source.root)), config.size, classes=classes, seed=seed
        )
    else:
        n = source.images or IMAGES
        phantom = ChestPhantom(config.size, source.phantom_preset, seed=seed, classes=classes)
        split = split_boxed(
            in_memory(phantom, n), classes=classes, seed=seed,
            name=f"{source.disease} on simulated radiographs ({source.phantom_preset})",
            identity=identity(phantom, n),
        )  # fmt: skip
    return with_validation(split, VALIDATION)


def build_row(row: Row, config: Config, classes: tuple[str, ...], seed: int) -> System:
    """A detector that was not trained, with the generator that it attends by, behind an alignment
    or not.
    """
    config = row.change(config)
    generator = None
    if row.attention == "DGM":
        generator = make_generators("DGM", config, seed)["generator"]
    elif row.attention != "none":
        generator = make_networks(config, seed, "abnormal to normal")["generator"]
    system = _detector(row, config, classes, seed, generator)
    if not row.aligned:
        return system
    reference = torch.zeros(1, config.channels, config.size, config.size)
    return Aligned(system, make_aligner(config, seed), reference, grid_size=config.size)


def _detector(
    row: Row, config: Config, classes: tuple[str, ...], seed: int, generator: nn.Module | None
) -> BoxDetector:
    network = make_detector(row.detector, config, len(classes), seed, generator)
    system = BoxDetector(
        network, classes, size=config.size, channels=config.channels, first=FIRST[row.detector]
    )
    if generator is not None:
        system.networks["generator"] = generator
    return system


def train_row(row: Row, config: Config, split: Split, run: Run) -> System:
    """Trains whatever stages a line needs, and its detector."""
    config, stages = row.change(config), stages_of(config, split, run)
    networks = _generators_of(row, config, stages)
    generator = None if networks is None else networks["generator"]
    system = _detector(row, config, split.classes, run.seed, generator)
    detector = system.networks["detector"].to(run.device)
    if isinstance(detector, YOLOv3):
        detector.anchors.copy_(_anchors(row, stages).to(run.device))
    images, steps = _images(row, stages), config.detector_steps
    task: Task
    if row.attention == "trained":
        assert networks is not None
        task = GRANet(
            config, detector, networks=networks, device=run.device, first=FIRST[row.detector]
        )
        n, m = config.detector_epochs, config.generator_epochs
        steps = steps if config.joint else steps * (n + m) // n
    else:
        if generator is not None:
            generator.eval().requires_grad_(False)
        task = DetectionTask(
            detector, learning_rate=config.detector_learning_rate, weight_decay=0.0,
            max_norm=config.detector_max_norm, first=FIRST[row.detector],
        )  # fmt: skip
    run.fit(
        "main", task, in_turn(images, DETECTORS), steps=steps,
        batch_size=config.detector_batch_size, watched=system,
    )  # fmt: skip
    if not row.aligned:
        return system
    return Aligned(system, stages.aligner, stages.reference, grid_size=config.size)


def _generators_of(row: Row, config: Config, stages: Stages) -> dict[str, nn.Module] | None:
    """A copy of the generator that a line needs, and of its discriminator."""
    if row.attention == "none":
        return None
    if row.attention == "trained":
        return copy.deepcopy(stages.abnormal_to_normal(aligned=row.aligned))
    if row.attention == "untrained":
        return stages.untrained()
    name = row.attention
    made = stages.run.once(name, lambda: _trained_generators(name, config, stages))
    return copy.deepcopy(made)


def _images(row: Row, stages: Stages) -> DeviceStore:
    """What the detector learns from; with pseudo-normal twins where a generator learns, too."""
    training, device = stages.training(aligned=row.aligned), stages.run.device
    if row.attention == "trained":
        pairs = stages.realistic(aligned=row.aligned)
        if row.more == "synthetic":
            return with_twins(pairs, stages.pseudo_abnormal(aligned=row.aligned))
        return pairs
    images = with_all_boxes(training, training.train, device)
    if row.more == "synthetic":
        return together(images, stages.pseudo_abnormal(aligned=row.aligned))
    if row.more == "again":
        rows = np.resize(boxed(training), len(training.normal()))
        return together(images, with_all_boxes(training, rows, device))
    return images


def _anchors(row: Row, stages: Stages) -> Tensor:
    """Nine shapes that fit the boxes that are learnt from."""
    training = stages.training(aligned=row.aligned)
    table = training.store.boxes
    corners = torch.from_numpy(table.xyxy[np.isin(table.row, training.train)]).float()
    sides, seed = corners[:, 2:] - corners[:, :2], stages.run.seed
    if row.detector == "PYolo":
        return fitted_in_two_levels(sides, seed=seed)
    return fitted_shapes(sides, 9, seed=seed)


# Fig. 3


def build_generator(name: str, config: Config, classes: tuple[str, ...], seed: int) -> System:
    """A generator of normal images that was not trained."""
    return _pseudo_healthy(name, make_generators(name, config, seed)["generator"], config, classes)


def make_generators(name: str, config: Config, seed: int) -> dict[str, nn.Module]:
    """The networks of a generator of Fig. 3; `generator` is what the system keeps."""
    c = config
    with seeded("granet", name, seed):
        if name == "CycleGAN":
            made: dict[str, nn.Module] = {
                k: ResNetGenerator(c.channels, c.base, c.residual_blocks)
                for k in ("generator", "back")
            }
            for k in ("normal_discriminator", "abnormal_discriminator"):
                made[k] = PatchGAN(c.channels, c.base, c.patch_halvings, InstanceNorm2d)
            draw = generator("granet", name, seed)
            for network in made.values():
                initialise_normal(network, 0.02, draw)  # as in CycleGAN's public code
            return made
        if name == "MUNIT":
            pair = [MunitGenerator(c.channels, c.base) for _ in range(2)]
            scales = 3 if c.size >= 64 else 2
            judges = [MunitDiscriminator(c.channels, c.base, scales) for _ in range(2)]
            return {
                "generator": munit.MunitTranslator(*pair), "abnormal_discriminator": judges[0],
                "normal_discriminator": judges[1],
            }  # fmt: skip
        halvings = {64: 3, 128: 4}.get(c.size, 5 if c.size > 128 else 2)
        return {
            "generator": DisentangledGenerator(c.channels, c.base, halvings),
            "discriminator": PatchScores(c.channels, c.base, min(4, halvings)),
        }


def _pseudo_healthy(
    name: str, generator: nn.Module, config: Config, classes: tuple[str, ...]
) -> PseudoHealthy:
    how: dict[str, Translate] = {
        "CycleGAN": cyclegan.to_healthy, "MUNIT": munit.to_healthy, "DGM": dgm.to_healthy,
    }  # fmt: skip
    return PseudoHealthy(generator, how[name], classes, size=config.size, channels=config.channels)


def train_generator(name: str, config: Config, split: Split, run: Run) -> System:
    """Trains a generator on the same images, without pairs and without boxes."""
    stages = stages_of(config, split, run)
    networks = run.once(name, lambda: _trained_generators(name, config, stages))
    return _pseudo_healthy(name, networks["generator"], config, split.classes)


def _trained_generators(name: str, config: Config, stages: Stages) -> dict[str, nn.Module]:
    run, training = stages.run, stages.split
    networks = {k: n.to(run.device) for k, n in make_generators(name, config, run.seed).items()}
    generator = networks["generator"]
    task: Task
    if name == "CycleGAN":
        task = cyclegan.CycleGAN(
            generator, networks["back"], networks["normal_discriminator"],
            networks["abnormal_discriminator"], size=config.size, channels=config.channels,
        )  # fmt: skip
    elif name == "MUNIT":
        assert isinstance(generator, munit.MunitTranslator)
        judges = (networks["abnormal_discriminator"], networks["normal_discriminator"])
        assert all(isinstance(judge, MunitDiscriminator) for judge in judges)
        task = munit.MUNIT(generator.abnormal, generator.normal, *judges)  # type: ignore[arg-type]
    else:
        assert isinstance(generator, DisentangledGenerator)
        task = dgm.DGM(generator, networks["discriminator"])
    loader = in_turn(with_all_boxes(training, training.train, run.device), GENERATORS)
    run.fit(name, task, loader, steps=config.steps, batch_size=config.batch_size)
    return networks


def build_own(config: Config, classes: tuple[str, ...], seed: int) -> System:
    """The generator of Eq. (3), untrained."""
    generator = make_networks(config, seed, "abnormal to normal")["generator"]
    return PseudoHealthy(
        generator, cyclegan.to_healthy, classes, size=config.size, channels=config.channels
    )


def train_own(config: Config, split: Split, run: Run) -> System:
    """The generator of Eq. (3), before the detector is there; of images as they are."""
    networks = stages_of(config, split, run).abnormal_to_normal(aligned=False)
    return PseudoHealthy(
        networks["generator"], cyclegan.to_healthy, split.classes, size=config.size,
        channels=config.channels,
    )  # fmt: skip


OURS = Row("RetinaNet-dagger", aligned=True, attention="trained")
ROWS = {
    "RetinaNet": Row("RetinaNet"),
    "RetinaNet + DGM": Row("RetinaNet + DGM", attention="DGM"),
    "RetinaNet-dagger": Row("RetinaNet-dagger"),
    "+ align": Row("RetinaNet-dagger", aligned=True),
    "+ align, attn.": OURS,
    "+ align, syn.": Row("RetinaNet-dagger", aligned=True, more="synthetic"),
    "+ align, attn., syn.": replace(OURS, more="synthetic"),
    "Faster R-CNN": Row("Faster R-CNN"),
    "SSD": Row("SSD"),
    "YOLOv3": Row("YOLOv3"),
    "PYolo": Row("PYolo"),
    "Mask R-CNN": Row("Mask R-CNN"),
    "Mask R-CNN + align": Row("Mask R-CNN", aligned=True),
    "Mask R-CNN + align, attn.": Row("Mask R-CNN", aligned=True, attention="trained"),
    "joint": replace(OURS, change=partial(replace, joint=True)),
    **{
        name: replace(OURS, change=partial(replace, detector_epochs=n, generator_epochs=m))
        for name, (n, m) in TURNS.items()
    },
    "attn. of an untrained G": replace(OURS, attention="untrained"),
    "attn., F * A": replace(OURS, change=partial(replace, attention="product")),
    "attn., G deaf to the detector": replace(OURS, change=partial(replace, lambda_detection=0.0)),
    "+ align, oversampled": Row("RetinaNet-dagger", aligned=True, more="again"),
}
COMPARISON = Comparison(
    paper="granet",
    presets={"paper": PAPER, "colab": COLAB, "cpu": CPU, "smoke": SMOKE},
    own="+ align, attn., syn.",
    split=split_of,
    arms={
        **{
            name: Arm(partial(build_row, row), partial(train_row, row))
            for name, row in ROWS.items()
        },
        "abnormal to normal": Arm(build_own, train_own),
        **{
            name: Arm(partial(build_generator, name), partial(train_generator, name))
            for name in ("CycleGAN", "MUNIT", "DGM")
        },
    },
    measures=(
        challenge_measure("test"),
        pixel_measure("test"),
        removal_measure("test"),
        twin_measure("test"),
    ),
    faithful=frozenset({"paper"}),
    sources=frozenset({"RSNA Pneumonia Detection Challenge"}),
)
