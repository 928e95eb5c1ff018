"""The comparisons of the disease-masks paper: Tables 1 and 2 (localisation), 3 and 4 (AUROC).

An arm is what its name says, in the order in which the paper trains: the classifier on images as
they are; on aligned images; and again with masks. Not in the paper: `longer`, which trains as long
as the arms with masks and has none; the variants of Eq. (3); the prior for the centre; and the loss
without weights.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.attention_mining import AttentionMining
from cxrtut.baselines.chestxray8 import ChestXray8
from cxrtut.baselines.classifier import DiseaseClassifier
from cxrtut.baselines.contrast_attention import ContrastAttention
from cxrtut.baselines.limited_supervision import LimitedSupervision
from cxrtut.data.store import StoreError
from cxrtut.engine.loop import train
from cxrtut.engine.records import run_record
from cxrtut.engine.task import Data, Report, Task
from cxrtut.experiments.alignment import AlignedFeed, score_alignment
from cxrtut.experiments.label_study import LabelStudy, row_parts
from cxrtut.experiments.localisation import score_classification, score_localisation
from cxrtut.localize.location_priors import centre_prior, pseudo_masks
from cxrtut.papers.disease_masks import (
    ASYMMETRIC,
    COLAB,
    PAPER,
    SMOKE,
    Alignment,
    Classification,
    Config,
    MaskAttention,
    align,
    anchor_image,
    binary,
    disease_mask,
    good_maps,
    make_classifier,
    read,
    shared,
    steps_of,
)

PRESETS = {"paper": PAPER, "colab": COLAB, "smoke": SMOKE}
KNOWN_BOXES = 0.2  # share of the training images whose boxes limited supervision sees
Tell = Callable[[Report], None]


@dataclass(frozen=True)
class Method:
    """A trained system.

    Attributes:
        network: what was trained.
        read: images, aligned if there is an aligner, to maps (N, K, h, w) and logits (N, K).
        aligner: what aligns the images, if anything does.
    """

    network: nn.Module
    read: Callable[[Tensor], tuple[Tensor, Tensor]]
    aligner: nn.Module | None = None


@dataclass(eq=False)
class Stages:
    """One run of the paper with one seed: each stage is trained once, when it is first asked for.

    Attributes:
        config: of the run.
        study: what to learn from.
        seed: of weights and order.
        device: where.
        out: folder with a folder of checkpoints for each stage; none are kept without.
        resume: go on from what is in `out`.
        watch: the name of a stage to a callback for its reports.
        settings: further arguments of `engine.loop.train`.
    """

    config: Config
    study: LabelStudy
    seed: int = 0
    device: torch.device | str = "cpu"
    out: Path | None = None
    resume: bool = False
    watch: Callable[[str], Tell] | None = None
    settings: Mapping[str, Any] | None = None

    def fit(self, stage: str, task: Task, feed: Data, epochs: float, batch_size: int) -> None:
        """Trains one stage."""
        train(
            task, feed, steps=steps_of(epochs, len(self.study.train), batch_size),
            batch_size=batch_size, seed=self.seed, device=self.device,
            checkpoint_dir=None if self.out is None else self.out / "checkpoints" / stage,
            resume=self.resume, callbacks=[self.watch(stage)] if self.watch else [],
            configuration={
                "stage": stage, "config": asdict(self.config),
                "data": self.study.store.fingerprint,
            },
            **(self.settings or {}),
        )  # fmt: skip

    def classifier(self) -> MaskAttention:
        """A new one."""
        n_classes = len(self.study.store.classes)
        return make_classifier(self.config, n_classes, self.seed).to(self.device)

    def classify(self, stage: str, network: MaskAttention, feed: Data) -> MaskAttention:
        """Trains a classifier on Eq. (10)."""
        task = Classification(self.config, network)
        self.fit(stage, task, feed, self.config.epochs, self.config.batch_size)
        return network

    @cached_property
    def plain(self) -> MaskAttention:
        """The classifier of images as they are."""
        return self.classify("plain", self.classifier(), self.study.feed())

    @cached_property
    def anchor(self) -> Float[Tensor, "1 C H W"]:
        """The mean of normal images."""
        rows = self.study.some_normal(self.config.anchor_images, self.seed)
        return anchor_image(self.study.store.batch(rows, self.device).image)

    @cached_property
    def aligner(self) -> nn.Module:
        """Trained on the features of `plain`."""
        task = Alignment(
            self.config, self.plain, self.anchor, seed=self.seed, device=self.device
        )  # fmt: skip
        c = self.config
        self.fit(
            "aligner", task, self.study.feed(), c.alignment_epochs, c.alignment_batch_size
        )  # fmt: skip
        return task.networks["aligner"]

    @property
    def aligned_feed(self) -> AlignedFeed:
        """Aligned images to learn from."""
        return AlignedFeed(self.study.feed(), self.aligner)

    @cached_property
    def aligned(self) -> MaskAttention:
        """The classifier of aligned images."""
        return self.classify("aligned", self.classifier(), self.aligned_feed)

    def masks(
        self, network: MaskAttention, aligner: nn.Module | None, *, flip: bool = True
    ) -> Float[Tensor, "K h w"]:
        """Eq. (3) for every class, from the maps of a classifier on the images it has learnt from.

        A class without a positive image gets an empty mask, with a warning.
        """
        c, store, rows = self.config, self.study.store, self.study.train
        logits = []
        for part in row_parts(rows):
            images = store.batch(part, self.device).image
            logits.append(
                read(network, images if aligner is None else align(aligner, images)[0])[1]
            )
        probability = torch.cat(logits).sigmoid().cpu()
        labels = torch.from_numpy(store.labels[rows].astype(np.float32))
        masks = []
        for k, name in enumerate(store.classes):
            chosen = good_maps(
                probability[:, k], labels[:, k], min_probability=c.min_probability, fewest=c.fewest
            )
            if not len(chosen):
                warnings.warn(f"{name}: no positive image to learn from, no mask", stacklevel=2)
            maps = [network.masks.new_zeros(0, *network.masks.shape[1:])]
            for part in row_parts(rows[chosen.numpy()]):
                images = store.batch(part, self.device).image
                images = images if aligner is None else align(aligner, images)[0]
                maps.append(read(network, images)[0][:, k])
            symmetric = flip and name != ASYMMETRIC
            masks.append(
                disease_mask(torch.cat(maps), symmetric=symmetric, threshold=c.mask_threshold)
            )
        return torch.stack(masks)

    @cached_property
    def disease_masks(self) -> Float[Tensor, "K h w"]:
        """The masks of the paper, from aligned images."""
        return self.masks(self.aligned, self.aligner)

    def retrained(
        self, stage: str, masks: Float[Tensor, "K h w"] | None, *, aligned: bool = True
    ) -> Method:
        """As long again, with masks or without.

        Reading: "then retrained it for five more epochs" says nothing of the optimiser; it starts
        anew.
        """
        before = self.aligned if aligned else self.plain
        network = copy.deepcopy(before)
        if masks is not None:
            network.masks.copy_(masks)
        feed = self.aligned_feed if aligned else self.study.feed()
        self.classify(stage, network, feed)
        return _method(network, self.aligner if aligned else None)

    def baseline(self, stage: str, task: Any, feed: Data, *, aligned: bool = False) -> Method:
        """A system of another paper, as long as the classifier."""
        self.fit(stage, task, feed, self.config.epochs, self.config.batch_size)
        return Method(
            task.networks["classifier"], task.read, self.aligner if aligned else None
        )  # fmt: skip


def _method(network: MaskAttention, aligner: nn.Module | None) -> Method:
    return Method(network, lambda images: read(network, images), aligner)


def _without_weights(s: Stages) -> Method:
    network = s.classifier()
    task = DiseaseClassifier(network, learning_rate=s.config.learning_rate, weight_decay=0.0)
    s.fit("plain, BCE", task, s.study.feed(), s.config.epochs, s.config.batch_size)
    return _method(network, None)


def _wang(s: Stages) -> Method:
    task = ChestXray8(s.classifier(), learning_rate=s.config.learning_rate)
    return s.baseline("Wang", task, s.study.feed())


def _cai(s: Stages) -> Method:
    task = AttentionMining(copy.deepcopy(s.plain), learning_rate=s.config.learning_rate)
    return s.baseline("Cai", task, s.study.feed())


def _liu(s: Stages) -> Method:
    task = ContrastAttention(s.classifier(), learning_rate=s.config.learning_rate)
    method = s.baseline("Liu", task, s.aligned_feed, aligned=True)
    rows = s.study.some_normal(s.config.anchor_images, s.seed)
    task.set_reference(align(s.aligner, s.study.store.batch(rows, s.device).image)[0])
    return method


def _li(s: Stages) -> Method:
    task = LimitedSupervision(s.classifier(), learning_rate=s.config.learning_rate)
    return s.baseline("Li", task, s.study.feed_with_boxes(KNOWN_BOXES, s.seed))


def _pseudo(s: Stages) -> Float[Tensor, "K h w"]:
    masks = pseudo_masks(s.study.store.classes, s.config.size // s.config.stride)
    return masks.to(s.device)


def _centre(s: Stages) -> Float[Tensor, "K h w"]:
    c = s.config
    return centre_prior(len(s.study.store.classes), c.size // c.stride).to(s.device)


ARMS: dict[str, Callable[[Stages], Method]] = {
    "aligned + DM": lambda s: s.retrained("aligned + DM", s.disease_masks),
    "plain": lambda s: _method(s.plain, None),
    "aligned": lambda s: _method(s.aligned, s.aligner),
    "aligned, longer": lambda s: s.retrained("aligned, longer", None),
    "aligned + PDM": lambda s: s.retrained("aligned + PDM", _pseudo(s)),
    "plain + DM": lambda s: s.retrained("plain + DM", s.masks(s.plain, None), aligned=False),
    "DM, no flip": lambda s: s.retrained(
        "DM, no flip", s.masks(s.aligned, s.aligner, flip=False)
    ),
    "DM, binary": lambda s: s.retrained("DM, binary", binary(s.disease_masks)),
    "DM, shared": lambda s: s.retrained("DM, shared", shared(s.disease_masks)),
    "centre prior": lambda s: s.retrained("centre prior", _centre(s)),
    "plain, BCE": _without_weights,
    "Wang": _wang,
    "Cai": _cai,
    "Liu": _liu,
    "Li (boxes)": _li,
}  # fmt: skip


def score(method: Method, study: LabelStudy, config: Config, device: Any) -> dict[str, Any]:
    """A trained method on the test images: localisation and AUROC; see `localisation`."""
    maps, logits, matrices = [], [], []
    for part in row_parts(study.test):
        images = study.store.batch(part, device).image
        if method.aligner is not None:
            images, matrix = align(method.aligner, images)
            matrices.append(matrix)
        part_maps, part_logits = method.read(images)
        maps.append(part_maps)
        logits.append(part_logits)
    whole = torch.cat(maps), torch.cat(logits)
    moved = torch.cat(matrices) if matrices else None
    where = score_localisation(*whole, moved, study, cut=config.cut)
    whether = score_classification(whole[1], study)
    return where | whether | {"by class": where["by class"] | whether["by class"]}


def compare(
    config: Config,
    make_study: Callable[[int], LabelStudy],
    *,
    seeds: int,
    arms: Sequence[str] = tuple(ARMS),
    device: torch.device | str = "cpu",
    command: str = "",
    progress: Callable[[str], Tell] | None = None,
    keep: Callable[[str, nn.Module], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Tables 1 to 4: every arm and comparator, each seed with its own data and weights.

    Args:
        config: of the arms.
        make_study: the data of a seed.
        seeds: how many.
        arms: of `ARMS`.
        device: where.
        command: what makes the record again.
        progress: a name to a callback for its reports.
        keep: told the name and the network of each method, of the first seed.
        **settings: further arguments of `engine.loop.train`.

    Raises:
        StoreError: a study has no boxes; said before anything is trained.

    Returns:
        A run record; `results` has for each method, and for "alignment", a list with the scores of
        every seed.
    """
    start = time.perf_counter()
    results: dict[str, list[dict[str, Any]]] = {}
    data: dict[str, str] = {}
    for seed in range(seeds):
        study = make_study(seed)
        check_boxes(study)
        data = {"name": study.name, f"fingerprint, seed {seed}": study.store.fingerprint} | data
        watch = _of_seed(progress, seed)
        stages = Stages(config, study, seed, device, watch=watch, settings=settings)
        for arm in arms:
            began = time.perf_counter()
            method = ARMS[arm](stages)
            scores = score(method, study, config, device)
            seconds = round(time.perf_counter() - began, 1)
            results.setdefault(arm, []).append({"held out": scores, "seconds": seconds})
            if keep and seed == 0:
                keep(arm, method.network)
        if "aligner" in stages.__dict__:
            found = score_alignment(stages.aligner, stages.anchor, study, config, device)
            results.setdefault("alignment", []).append({"held out": found})
            if keep and seed == 0:
                keep("aligner", stages.aligner)
    return run_record(
        what="localisation accuracy and AUROC of each method, per seed", command=command,
        configuration=asdict(config), data=data, seeds=list(range(seeds)), device=device,
        seconds=time.perf_counter() - start, results=results,
    )  # fmt: skip


def check_boxes(study: LabelStudy) -> None:
    """Raises StoreError where a study has no boxes on its test images."""
    if not len(study.pairs[0]):
        raise StoreError(f"{study.name}: expected boxes on the test images, got none")


def _of_seed(progress: Callable[[str], Tell] | None, seed: int) -> Callable[[str], Tell] | None:
    if progress is None:
        return None
    return lambda stage: progress(f"{stage}, seed {seed}")


def comparison_table(
    record: Mapping[str, Any], measures: Sequence[str] = ("T .3", "T .5", "T .7", "AUROC")
) -> list[dict[str, str | int | float | None]]:
    """A record of `compare` as rows for a page: the mean over seeds of each measure, and the range
    of the first.
    """
    rows: list[dict[str, str | int | float | None]] = []
    for method, runs in record["results"].items():
        if method == "alignment":
            continue
        values = {name: [run["held out"][name] for run in runs] for name in measures}
        first = values[measures[0]]
        row: dict[str, str | int | float | None] = {"method": method}
        row |= {name: float(np.mean(found)) for name, found in values.items()}
        rows.append(row | {"seeds": f"{min(first):.3f}–{max(first):.3f}"})
    return rows


def class_table(
    record: Mapping[str, Any], measure: str, methods: Sequence[str]
) -> list[dict[str, str | int | float | None]]:
    """One measure by class, as in the paper's Tables 1 to 4: a row for each method, the mean over
    seeds.
    """
    rows: list[dict[str, str | int | float | None]] = []
    for method in methods:
        runs = [run["held out"]["by class"][measure] for run in record["results"][method]]
        row: dict[str, str | int | float | None] = {"method": method}
        for name in runs[0]:
            known = [run[name] for run in runs if run[name] is not None]
            row[name] = float(np.mean(known)) if known else None
        rows.append(row)
    return rows
