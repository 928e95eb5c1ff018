"""The tables of the disease-masks paper: Tables 1 and 2 (localisation), 3 and 4 (AUROC).

An arm is what its name says, in the order in which the paper trains: the classifier on images as
they are; on aligned images; and again with masks. Not in the paper: `longer`, which trains as long
as the arms with masks and has none; the variants of Eq. (3); the prior for the centre; the loss
without weights; contrast-induced attention with another pooling; and the average box of a class,
which needs no image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.baselines.attention_mining import AttentionMining
from cxrtut.baselines.average_boxes import AverageBoxes
from cxrtut.baselines.chestxray8 import ChestXray8
from cxrtut.baselines.classifier import MultiLabelTask
from cxrtut.baselines.contrast_attention import ContrastAttention
from cxrtut.baselines.limited_supervision import LimitedSupervision
from cxrtut.baselines.supervised_maps import SupervisedMaps
from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.loader import Loader
from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split
from cxrtut.data.store import StoreError
from cxrtut.data.validation_split import with_validation
from cxrtut.evaluation.alignment import BETTER, alignment_numbers
from cxrtut.evaluation.box_protocols import box_protocol_measures
from cxrtut.evaluation.classification import auroc_measure
from cxrtut.evaluation.localisation import localisation_measure
from cxrtut.evaluation.measure import Measure, Numbers, device_of
from cxrtut.evaluation.randomisation import randomisation_measure
from cxrtut.evaluation.region_rule import region_measure
from cxrtut.experiments.comparison import Arm, Comparison
from cxrtut.experiments.mask_stages import Stages, stages_of
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.localize.location_priors import centre_prior, pseudo_masks
from cxrtut.nn.spatial_transformer import align
from cxrtut.papers.disease_masks import (
    COLAB,
    MASKED,
    PAPER,
    SMOKE,
    Config,
    MaskedClassifier,
    binary,
    make_aligner,
    make_classifier,
    shared,
    smooth,
)
from cxrtut.randomness import shuffled

IMAGES = 8192  # simulated ones, unless the source says another number
TEMPERATURE = 1.5  # of the attention of the arm "Liu, softmax"; the other one of the group is 5
SIDES: tuple[Side, ...] = ("validation", "test")  # who needs boxes
VALIDATION = 0.25  # share of the held-out patients
RANDOMISED = 64  # images with a disease whose maps are compared with those of shuffled parameters
KNOWN_BOXES = 0.2  # share of the training images whose boxes limited supervision sees
AVERAGE_GRID = 64  # cells of the maps of average boxes: fine enough, and small enough to be kept


def split_of(source: Source, config: Config, seed: int) -> Split:
    """Images with any number of diseases; some of the held-out patients choose thresholds."""
    return with_validation(source.all_diseases(config.size, seed, IMAGES), VALIDATION)


def check(split: Split) -> None:
    """Raises StoreError where no validation image or no test image has a box."""
    for side in SIDES:
        if not len(split.pairs(side)[0]):
            raise StoreError(f"{split.name}: expected boxes on the {side} images, got none")


# What each arm is before it is trained


def build_masked(
    config: Config, classes: tuple[str, ...], seed: int, *, aligned: bool = True
) -> System:
    """A classifier with empty masks, behind an alignment or not."""
    network = make_classifier(config, len(classes), seed)
    return _behind(MaskedClassifier(config, classes, network), config, seed, aligned)


def build_baseline(
    make: Callable[..., System],
    config: Config,
    classes: tuple[str, ...],
    seed: int,
    *,
    aligned: bool = False,
) -> System:
    """A system of another paper, with the classifier of all."""
    network = make_classifier(config, len(classes), seed)
    system = make(
        network, classes=classes, size=config.size, channels=config.channels,
        learning_rate=config.learning_rate,
    )  # fmt: skip
    return _behind(system, config, seed, aligned)


def build_boxes(config: Config, classes: tuple[str, ...], seed: int) -> AverageBoxes:
    """A system that has learnt no boxes yet."""
    return AverageBoxes(
        torch.zeros(len(classes), 0, 0), classes=classes, size=config.size, channels=config.channels
    )


def _behind(system: System, config: Config, seed: int, aligned: bool) -> System:
    if not aligned:
        return system
    anchor = torch.zeros(1, config.channels, config.size, config.size)
    return Aligned(system, make_aligner(config, seed), anchor, grid_size=config.grid_size)


# How each arm is trained


def _new(s: Stages, make: Callable[..., Any], network: nn.Module | None = None) -> Any:
    return make(
        s.classifier() if network is None else network, classes=s.split.classes,
        size=s.config.size, channels=s.config.channels, learning_rate=s.config.learning_rate,
    )  # fmt: skip


def _with_disease_masks(s: Stages) -> System:
    system = s.retrained("aligned + DM", s.disease_masks)
    assert isinstance(system, Aligned)
    system.n_confident = dict(s.n_confident)
    return system


def _without_weights(s: Stages) -> System:
    network = s.classifier()
    task = MultiLabelTask(network, learning_rate=s.config.learning_rate, weight_decay=0.0)
    s.fit("plain, BCE", task, s.split.loader(), s.config.epochs, s.config.batch_size)
    return s.system(network, aligned=False)


def _cai(s: Stages) -> System:
    task = _new(s, AttentionMining, copy.deepcopy(s.plain))
    system: System = s.baseline("Cai", task, s.split.loader(), rounds=1)
    return system


def _liu(s: Stages, stage: str = "Liu", **how: Any) -> System:
    task, normal = _new(s, partial(ContrastAttention, **how)), s.normal
    task.set_normal_images(align(s.aligner, normal.image)[0], normal.index)
    s.baseline(stage, task, s.aligned_loader)
    return s.behind_alignment(task)


def _supervised(s: Stages) -> System:
    rows, n = s.split.validation, s.config.batch_size
    rows = np.resize(rows, max(n, len(rows)))  # a batch at least
    loader = Loader(s.split.store, shuffled(torch.from_numpy(rows)))
    task = _new(s, SupervisedMaps, copy.deepcopy(s.plain))
    system: System = s.baseline("supervised", task, loader, rounds=1)
    return system


def _average_box(s: Stages) -> System:
    cells = min(s.config.size, AVERAGE_GRID)
    boxes = s.split.average_boxes().to(s.run.device) * (cells / s.config.size)
    maps = torch.stack([boxes_to_mask(box[None], cells, cells) for box in boxes]).float()
    return AverageBoxes(
        maps, classes=s.split.classes, size=s.config.size, channels=s.config.channels
    )


def _pseudo(s: Stages) -> Float[Tensor, "K h w"]:
    masks = pseudo_masks(s.split.classes, s.config.size // s.config.stride)
    return masks.to(s.run.device)


def _centre(s: Stages) -> Float[Tensor, "K h w"]:
    classes, grid_size = s.split.classes, s.config.size // s.config.stride
    allowed = torch.tensor([name in MASKED for name in classes])[:, None, None]
    return (centre_prior(len(classes), grid_size) * allowed).to(s.run.device)


def _arm(
    train: Callable[[Stages], System],
    build: Callable[..., System] = build_masked,
    *,
    needs_boxes: bool = False,
    **how: Any,
) -> Arm[Config]:
    def train_arm(config: Config, split: Split, run: Run) -> System:
        return train(stages_of(config, split, run))

    return Arm(partial(build, **how), train_arm, needs_boxes)


ARMS = {
    "plain": _arm(lambda s: s.system(s.plain, aligned=False), aligned=False),
    "aligned": _arm(lambda s: s.system(s.aligned, aligned=True)),
    "aligned, longer": _arm(lambda s: s.retrained("aligned, longer", None)),
    "aligned + DM": _arm(_with_disease_masks),
    "aligned + PDM": _arm(lambda s: s.retrained("aligned + PDM", _pseudo(s))),
    "plain + DM": _arm(
        lambda s: s.retrained("plain + DM", s.masks(s.plain, aligned=False)[0], aligned=False),
        aligned=False,
    ),
    "DM, no flip": _arm(
        lambda s: s.retrained("DM, no flip", s.masks(s.aligned, aligned=True, flip=False)[0])
    ),
    "DM, binary": _arm(lambda s: s.retrained("DM, binary", binary(s.disease_masks))),
    "DM, shared": _arm(lambda s: s.retrained("DM, shared", shared(s.disease_masks))),
    "centre prior": _arm(lambda s: s.retrained("centre prior", _centre(s))),
    "plain, BCE": _arm(_without_weights, aligned=False),
    "Wang": _arm(
        lambda s: s.baseline("Wang", _new(s, ChestXray8), s.split.loader()),
        partial(build_baseline, ChestXray8),
    ),
    "Cai": _arm(_cai, partial(build_baseline, AttentionMining)),
    "Liu": _arm(_liu, partial(build_baseline, ContrastAttention), aligned=True),
    "Liu, noisy-or": _arm(
        lambda s: _liu(s, "Liu, noisy-or", pooling="noisy-or"),
        partial(build_baseline, partial(ContrastAttention, pooling="noisy-or")),
        aligned=True,
    ),
    "Liu, softmax": _arm(
        lambda s: _liu(s, "Liu, softmax", temperature=TEMPERATURE),
        partial(build_baseline, partial(ContrastAttention, temperature=TEMPERATURE)),
        aligned=True,
    ),
    "Li (boxes)": _arm(
        lambda s: s.baseline(
            "Li", _new(s, LimitedSupervision),
            s.split.showing_boxes(KNOWN_BOXES, s.run.seed).loader(),
        ),
        partial(build_baseline, LimitedSupervision),
        needs_boxes=True,
    ),
    "supervised (boxes)": _arm(_supervised, partial(build_baseline, SupervisedMaps)),
    "average box (boxes)": _arm(_average_box, build_boxes, needs_boxes=True),
}  # fmt: skip


def alignment(system: System, split: Split, side: Side) -> Numbers:
    """How well the images of a side are aligned, of a system with an aligner; see
    `evaluation.alignment`.
    """
    if not isinstance(system, Aligned):
        return {}
    anchor = system.networks["anchor"].get_buffer("image")

    def distance(images: Tensor) -> Float[Tensor, " n"]:
        return (anchor - smooth(images, system.grid_size)).abs().mean((1, 2, 3))

    return alignment_numbers(
        lambda images: align(system.aligner, images), distance, split, side, device_of(system)
    )


def confident_maps(system: System, split: Split, side: Side) -> Numbers:
    """`n_confident/<class>`: of how many maps of P_c >= 0.8 its mask was made."""
    if not isinstance(system, Aligned):
        return {}
    return {f"n_confident/{name}": float(n) for name, n in system.n_confident.items()}


COMPARISON = Comparison(
    paper="disease_masks",
    presets={"paper": PAPER, "colab": COLAB, "smoke": SMOKE},
    own="aligned + DM",
    split=split_of,
    arms=ARMS,
    measures=(
        localisation_measure("test"),
        *box_protocol_measures("test"),
        region_measure("test"),
        auroc_measure("test"),
        randomisation_measure("test", RANDOMISED),
        Measure("test", alignment, BETTER),
        Measure("train", confident_maps, {"n_confident": "neither"}),
    ),
    faithful=frozenset({"paper"}),
    sources=frozenset({"NIH ChestX-ray14"}),
    check=check,
)
