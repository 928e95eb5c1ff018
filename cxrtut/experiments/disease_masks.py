"""The tables of the disease-masks paper: Tables 1 and 2 (localisation), 3 and 4 (AUROC).

An arm is what its name says, in the order in which the paper trains: the classifier on images as
they are; on aligned images; and again with masks. Not in the paper: `longer`, which trains as long
as the arms with masks and has none; the variants of Eq. (3); the prior for the centre; the loss
without weights; contrast-induced attention with another pooling; and the average box of a class,
which needs no image.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
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
from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, row_parts
from cxrtut.data.store import StoreError
from cxrtut.engine.task import Data, Task
from cxrtut.evaluation.alignment import BETTER, alignment_numbers
from cxrtut.evaluation.classification import auroc_measure
from cxrtut.evaluation.localisation import localisation_measure
from cxrtut.evaluation.measure import Measure, Numbers, device_of
from cxrtut.experiments.aligned_loader import AlignedLoader
from cxrtut.experiments.comparison import Arm, Comparison
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.localize.location_priors import centre_prior, pseudo_masks
from cxrtut.nn.backbones import mean_stages
from cxrtut.nn.spatial_transformer import align
from cxrtut.papers.disease_masks import (
    ASYMMETRIC,
    COLAB,
    MASKED,
    PAPER,
    SMOKE,
    Alignment,
    Classification,
    Config,
    MaskAttention,
    MaskedClassifier,
    anchor_image,
    binary,
    disease_mask,
    make_aligner,
    make_classifier,
    maps_and_logits,
    select_confident,
    shared,
    smooth,
    steps_of,
)

IMAGES = 8192  # simulated ones, unless the source says another number
KNOWN_BOXES = 0.2  # share of the training images whose boxes limited supervision sees
AVERAGE_GRID = 64  # cells of the maps of average boxes: fine enough, and small enough to be kept


def split_of(source: Source, config: Config, seed: int) -> Split:
    """Images with any number of diseases."""
    return source.all_diseases(config.size, seed, IMAGES)


def check(split: Split) -> None:
    """Raises StoreError where no test image has a box."""
    if not len(split.pairs()[0]):
        raise StoreError(f"{split.name}: expected boxes on the test images, got none")


@dataclass(eq=False)
class Stages:
    """One run of the paper with one seed: each stage is trained once, when it is first asked for.

    Attributes:
        config: of the run.
        split: what to learn from.
        run: where and how.
        n_confident: N_c of Eq. (3) by class, once `disease_masks` is there.
    """

    config: Config
    split: Split
    run: Run
    n_confident: dict[str, int] = field(default_factory=dict, init=False)

    def fit(self, stage: str, task: Task, loader: Data, epochs: float, batch_size: int) -> None:
        """Trains one stage for some epochs."""
        steps = steps_of(epochs, len(self.split.train), batch_size)
        self.run.fit(stage, task, loader, steps=steps, batch_size=batch_size)

    def classifier(self) -> MaskAttention:
        """A new classifier, on the device of the run."""
        network = make_classifier(self.config, len(self.split.classes), self.run.seed)
        return network.to(self.run.device)

    def classify(self, stage: str, network: MaskAttention, loader: Data) -> MaskAttention:
        """Trains a classifier on Eq. (10)."""
        task = Classification(self.config, network)
        self.fit(stage, task, loader, self.config.epochs, self.config.batch_size)
        return network

    def system(self, network: MaskAttention, *, aligned: bool) -> System:
        """A classifier, whatever its masks, as a system."""
        masked = MaskedClassifier(self.config, self.split.classes, network)
        return self.behind_alignment(masked) if aligned else masked

    def behind_alignment(self, system: System) -> Aligned:
        """A system that was trained on aligned images, for images as they are."""
        return Aligned(system, self.aligner, self.anchor, grid_size=self.config.grid_size)

    @cached_property
    def plain(self) -> MaskAttention:
        """The classifier of images as they are."""
        return self.classify("plain", self.classifier(), self.split.loader())

    @property
    def normal(self) -> Float[Tensor, "N C H W"]:
        """Some normal images to learn from, always the same."""
        rows = self.split.some_normal(self.config.anchor_images, self.run.seed)
        return self.split.batch(rows, self.run.device).image

    @cached_property
    def anchor(self) -> Float[Tensor, "1 C H W"]:
        """The mean of normal images."""
        return anchor_image(self.normal)

    @cached_property
    def aligner(self) -> nn.Module:
        """Trained on the features of `plain`."""
        c = self.config
        mean = (
            mean_stages(self.plain.features, smooth(self.normal, c.grid_size))
            if c.anchor_features == "mean"
            else None
        )
        task = Alignment(
            c, self.plain, self.anchor, anchor_features=mean, seed=self.run.seed,
            device=self.run.device,
        )  # fmt: skip
        self.fit(
            "aligner", task, self.split.loader(), c.alignment_epochs, c.alignment_batch_size
        )  # fmt: skip
        return task.networks["aligner"]

    @property
    def aligned_loader(self) -> AlignedLoader:
        """Aligned images to learn from."""
        return AlignedLoader(self.split.loader(), self.aligner)

    @cached_property
    def aligned(self) -> MaskAttention:
        """The classifier of aligned images."""
        return self.classify("aligned", self.classifier(), self.aligned_loader)

    def masks(
        self, network: MaskAttention, *, aligned: bool, flip: bool = True
    ) -> tuple[Float[Tensor, "K h w"], dict[str, int]]:
        """Eq. (3), from the maps of a classifier on the images it has learnt from.

        Classes that are not `MASKED` get empty masks; so does one without a positive image. That,
        and a class with too few maps of P_c >= 0.8, is warned of.

        Args:
            network: gives maps and probabilities.
            aligned: whether it sees aligned images.
            flip: whether symmetric diseases are averaged with their mirror images.

        Returns:
            The masks, and N_c of each class: how many maps of P_c >= 0.8 there were.
        """
        c, split, rows = self.config, self.split, self.split.train

        def maps_of(part: np.ndarray) -> tuple[Tensor, Tensor]:
            images = split.batch(part, self.run.device).image
            return maps_and_logits(network, align(self.aligner, images)[0] if aligned else images)

        logits = [maps_of(part)[1] for part in row_parts(rows)]
        probability = torch.cat(logits).sigmoid().cpu()
        labels = torch.from_numpy(split.store.labels[rows].astype(np.float32))
        masks, counts = [], {}
        for k, name in enumerate(split.classes):
            if name not in MASKED:
                masks.append(torch.zeros_like(network.masks[k]))
                continue
            chosen = select_confident(
                probability[:, k], labels[:, k], min_probability=c.min_probability, fewest=c.fewest
            )
            counts[name] = int((probability[chosen, k] >= c.min_probability).sum())
            _warn_of_few(name, counts[name], len(chosen), c.min_probability)
            maps = [network.masks.new_zeros(0, *network.masks.shape[1:])]
            for part in row_parts(rows[chosen.numpy()]):
                maps.append(maps_of(part)[0][:, k])
            symmetric = flip and name != ASYMMETRIC
            masks.append(
                disease_mask(torch.cat(maps), symmetric=symmetric, threshold=c.mask_threshold)
            )
        return torch.stack(masks), counts

    @cached_property
    def disease_masks(self) -> Float[Tensor, "K h w"]:
        """The masks of the paper, from aligned images."""
        masks, counts = self.masks(self.aligned, aligned=True)
        self.n_confident.update(counts)
        return masks

    def retrained(
        self, stage: str, masks: Float[Tensor, "K h w"] | None, *, aligned: bool = True
    ) -> System:
        """As long again, with masks or without.

        Reading (training, retraining): "Then retrained it for five more epochs" names no optimiser.
            Here: Adam starts anew.
            Why: The retraining reads as a training of its own.
        """
        network = copy.deepcopy(self.aligned if aligned else self.plain)
        if masks is not None:
            network.masks.copy_(masks)
        self.classify(stage, network, self.aligned_loader if aligned else self.split.loader())
        return self.system(network, aligned=aligned)

    def baseline(self, stage: str, task: Any, loader: Data) -> Any:
        """A system of another paper, trained as long as `plain`."""
        self.fit(stage, task, loader, self.config.epochs, self.config.batch_size)
        return task


def _warn_of_few(name: str, n_confident: int, n_chosen: int, min_probability: float) -> None:
    if not n_chosen:
        warnings.warn(f"{name}: no positive image to learn from, no mask", stacklevel=3)
    elif n_confident < n_chosen:
        warnings.warn(
            f"{name}: {n_confident} maps of P >= {min_probability}; "
            f"the mask is of the {n_chosen} with the highest P",
            stacklevel=3,
        )


def stages_of(config: Config, split: Split, run: Run) -> Stages:
    """The stages of a run, which its arms share."""
    return run.once("stages", lambda: Stages(config, split, run))


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
    system: System = s.baseline("Cai", task, s.split.loader())
    return system


def _liu(s: Stages, stage: str = "Liu", pooling: str = "mean") -> System:
    task = _new(s, partial(ContrastAttention, pooling=pooling))
    s.baseline(stage, task, s.aligned_loader)
    task.set_reference(align(s.aligner, s.normal)[0])
    return s.behind_alignment(task)


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
        lambda s: _liu(s, "Liu, noisy-or", "noisy-or"),
        partial(build_baseline, partial(ContrastAttention, pooling="noisy-or")),
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
        auroc_measure("test"),
        Measure("test", alignment, BETTER),
        Measure("train", confident_maps, {"n_confident": "neither"}),
    ),
    faithful=frozenset({"paper"}),
    sources=frozenset({"NIH ChestX-ray14"}),
    check=check,
)
