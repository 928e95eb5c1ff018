"""The tables of the Pix2Pix paper: Table 2, and our controls.

`Ori`, `Ori + Pix2Pix` and `Ori + Pix2Pix-N` are the paper's. The others are ours: the same images
again instead of synthetic ones, the usual augmentation, as many further patients, and the average
box of each disease. All detectors take equally many steps of equally many images.

Reading (evaluation, the checkpoint): Table 2 has for each disease the best number of all
    checkpoints within 500 steps of the one that is named.
    Here: The network after the last step is tested, once.
    Why: Who takes the best of several numbers on test images measures the choice, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from cxrtut.baselines.box_detector import BoxDetector, DetectionTask
from cxrtut.baselines.same_boxes import SameBoxes
from cxrtut.data.annotated import one_box_each, together, with_all_boxes, with_boxes_drawn
from cxrtut.data.augment import Augmentation
from cxrtut.data.boxed_split import split_boxed
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.loader import Loader
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import identity, in_memory
from cxrtut.data.split import Rows, Split
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.validation_split import with_validation
from cxrtut.engine.schedules import constant, cosine_decay
from cxrtut.evaluation.detection import detection_measure
from cxrtut.experiments.comparison import Arm, Comparison
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.nn.detectors import SmallPyramid, faster_rcnn
from cxrtut.nn.inception_rcnn import inception_rcnn
from cxrtut.papers.pix2pix import COLAB, CPU, PAPER, SMOKE, Config, Pix2Pix, synthesise
from cxrtut.randomness import generator, seeded, shuffled

# Section 3: of the eight diseases with boxes, two are left out
DISEASES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Pneumonia", "Pneumothorax",
)  # fmt: skip
IMAGES = 4096  # simulated ones, unless the source says another number
VALIDATION = 0.25  # of the held-out patients
ANCHORS = (1 / 8, 5 / 24, 1 / 3, 23 / 48)  # of the small detector, shares of the image's side
# "Rotations, reflections and cropping", Section 3, for the generator
GENERATORS = Augmentation(rotation=10.0, flip=0.5, scale=0.1, translation=0.05)
CLASSICAL = Augmentation(flip=0.5, translation=0.06, scale=0.05, brightness=0.05, contrast=0.1)
Extra = Callable[[Config, Split, Run], DeviceStore | None]


def split_of(source: Source, config: Config, seed: int) -> Split:
    """Images with boxes of the six diseases, and normal ones, by patient.

    Raises:
        StoreError: pasted biomarkers, or a store without such boxes.
    """
    if source.data == "pasted":
        raise StoreError("--data pasted: expected phantom or store, where there are diseases")
    if source.data == "store":
        store = ArrayStore.open(str(source.root))
        known = tuple(name for name in DISEASES if name in store.classes)
        split = split_boxed(store, config.size, classes=known, seed=seed)
    else:
        n = source.images or IMAGES
        phantom = ChestPhantom(config.size, source.phantom_preset, seed=seed, classes=DISEASES)
        split = split_boxed(
            in_memory(phantom, n), classes=DISEASES, seed=seed,
            name=f"six diseases on simulated radiographs ({source.phantom_preset})",
            identity=identity(phantom, n),
        )  # fmt: skip
    return with_validation(split, VALIDATION)


def learnt(config: Config, split: Split, seed: int) -> tuple[Rows, Rows]:
    """The rows with boxes that are learnt from, at most as many as the paper has, at random; and
    those that are left, of other images.
    """
    rows = split.train[np.isin(split.train, split.store.boxes.row)]
    order = torch.randperm(len(rows), generator=generator("annotated", seed)).numpy()
    return rows[order[: config.annotated]], rows[order[config.annotated :]]


def make_detector(config: Config, classes: int, seed: int) -> nn.Module:
    """A detector with the initial weights of a seed."""
    with seeded("detector", seed):
        if config.detector == "inception":
            return inception_rcnn(classes, config.size, config.channels)
        backbone = SmallPyramid(config.channels, 16, 32, strides=(8,))
        sizes = [[share * config.size for share in ANCHORS]]
        return faster_rcnn(backbone, classes, config.size, config.channels, sizes=sizes)


def build_detector(config: Config, classes: tuple[str, ...], seed: int) -> BoxDetector:
    """A detector that was not trained."""
    network = make_detector(config, len(classes), seed)
    return BoxDetector(network, classes, size=config.size, channels=config.channels)


def train_detector(
    extra: Extra, augmentation: Augmentation | None, config: Config, split: Split, run: Run
) -> BoxDetector:
    """Trains a detector on the annotated images, and on others that an arm adds."""
    rows, _ = learnt(config, split, run.seed)
    images, more = with_all_boxes(split, rows, run.device), extra(config, split, run)
    images = images if more is None else together(images, more)
    system = build_detector(config, split.classes, run.seed)
    steps = config.detector_steps
    task = DetectionTask(
        system.networks["detector"].to(run.device), optimizer=config.detector_optimizer,
        learning_rate=config.detector_learning_rate, max_norm=config.detector_max_norm,
        rate=partial(cosine_decay, steps=steps, warm_up=steps // 4)
        if config.detector_decays else constant,
    )  # fmt: skip
    loader = Loader(images, shuffled(torch.arange(len(images))), augmentation)
    run.fit("main", task, loader, steps=steps, batch_size=config.detector_batch_size)
    return system


def nothing(config: Config, split: Split, run: Run) -> None:
    """The annotated images alone."""


def again(config: Config, split: Split, run: Run) -> DeviceStore:
    """The annotated images once more, as often as there would be synthetic ones."""
    rows, _ = learnt(config, split, run.seed)
    return with_all_boxes(split, np.resize(rows, config.synthetic), run.device)


def further(config: Config, split: Split, run: Run) -> DeviceStore:
    """Images with boxes that nobody else has seen, as many as there would be synthetic ones, or as
    many as there are.
    """
    _, rows = learnt(config, split, run.seed)
    return with_all_boxes(split, rows[: config.synthetic], run.device)


def made(healthy: bool, config: Config, split: Split, run: Run) -> DeviceStore:
    """Synthetic images of Pix2Pix, or of Pix2Pix-N, which has learnt from healthy images, too."""
    name = "Pix2Pix-N" if healthy else "Pix2Pix"
    pairs = pairs_of(config, split, run)

    def trained() -> nn.Module:
        task = Pix2Pix(config, seed=run.seed, device=run.device)
        images = pairs
        if healthy:
            rows = split.some_normal(config.healthy, run.seed)
            drawn = with_boxes_drawn(
                split, rows, pairs.boxes[:, 0].cpu(), seed=run.seed, device=run.device
            )
            images = together(pairs, drawn)
        loader = Loader(images, shuffled(torch.arange(len(images))), GENERATORS)
        run.fit(name, task, loader, steps=config.steps, batch_size=config.batch_size)
        return task.networks["generator"]

    network = run.once(name, trained)
    return run.once(
        f"images of {name}",
        lambda: synthesise(
            network, pairs, config.synthetic, seed=run.seed, batch_size=config.batch_size
        ),
    )


def pairs_of(config: Config, split: Split, run: Run) -> DeviceStore:
    """The annotations of the images that are learnt from, one by one."""
    rows, _ = learnt(config, split, run.seed)
    every = one_box_each(split, "train", run.device)
    chosen = torch.isin(every.index, torch.from_numpy(rows).to(every.device)).nonzero()[:, 0]
    return every.moved(lambda tensor: tensor.index_select(0, chosen))


def build_same(config: Config, classes: tuple[str, ...], seed: int) -> SameBoxes:
    """Average boxes that nobody has measured."""
    boxes = torch.zeros(len(classes), 4)
    return SameBoxes(boxes, classes, size=config.size, channels=config.channels)


def train_same(config: Config, split: Split, run: Run) -> SameBoxes:
    """The mean box of each disease among the annotations."""
    pairs = pairs_of(config, split, run)
    total = torch.zeros(len(split.classes), 4, device=pairs.device)
    total.index_add_(0, pairs.box_label[:, 0], pairs.boxes[:, 0])
    n = torch.bincount(pairs.box_label[:, 0], minlength=len(total)).clamp_min(1)
    boxes = total / n[:, None]
    return SameBoxes(boxes, split.classes, size=config.size, channels=config.channels)


def _arm(extra: Extra, augmentation: Augmentation | None = None) -> Arm[Config]:
    return Arm(build_detector, partial(train_detector, extra, augmentation))


COMPARISON = Comparison(
    paper="pix2pix",
    presets={"paper": PAPER, "colab": COLAB, "cpu": CPU, "smoke": SMOKE},
    own="Ori + Pix2Pix-N",
    split=split_of,
    arms={
        "Ori": _arm(nothing),
        "Ori + Pix2Pix": _arm(partial(made, False)),
        "Ori + Pix2Pix-N": _arm(partial(made, True)),
        "Ori, oversampled": _arm(again),
        "Ori, augmented": _arm(nothing, CLASSICAL),
        "Ori + further patients": _arm(further),
        "average box": Arm(build_same, train_same),
    },
    measures=(detection_measure("test"),),
    faithful=frozenset({"paper"}),
    sources=frozenset({"NIH ChestX-ray14"}),
)
