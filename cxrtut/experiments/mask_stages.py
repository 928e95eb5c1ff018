"""The stages of the disease-masks paper, in the order in which one needs another."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.engine.loop import train
from cxrtut.engine.progress import JsonLines
from cxrtut.engine.task import Data, Report, Task
from cxrtut.experiments.alignment import AlignedLoader
from cxrtut.experiments.label_study import LabelStudy, row_parts
from cxrtut.nn.backbones import mean_stages
from cxrtut.papers.disease_masks import (
    ASYMMETRIC,
    MASKED,
    Alignment,
    Classification,
    Config,
    MaskAttention,
    align,
    anchor_image,
    disease_mask,
    select_confident,
    make_classifier,
    read,
    smooth,
    steps_of,
)

Tell = Callable[[Report], None]


@dataclass(frozen=True)
class Method:
    """A trained system.

    Attributes:
        network: what was trained.
        read: images, aligned if there is an aligner, to maps (N, K, h, w) and logits (N, K).
        aligner: what aligns the images, if anything does.
        classifies: whether its logits mean anything.
    """

    network: nn.Module
    read: Callable[[Tensor], tuple[Tensor, Tensor]]
    aligner: nn.Module | None = None
    classifies: bool = True

    def on(
        self, images: Float[Tensor, "N C H W"]
    ) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K"], Float[Tensor, "N 2 3"] | None]:
        """Maps and logits of images as they are, and the matrices of their alignment, if any."""
        if self.aligner is None:
            return *self.read(images), None
        aligned, matrix = align(self.aligner, images)
        return *self.read(aligned), matrix


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
        sure_maps: N_c of Eq. (3) by class, once `disease_masks` is there.
    """

    config: Config
    study: LabelStudy
    seed: int = 0
    device: torch.device | str = "cpu"
    out: Path | None = None
    resume: bool = False
    watch: Callable[[str], Tell] | None = None
    settings: Mapping[str, Any] | None = None
    sure_maps: dict[str, int] = field(default_factory=dict, init=False)

    def fit(self, stage: str, task: Task, feed: Data, epochs: float, batch_size: int) -> None:
        """Trains one stage."""
        train(
            task, feed, steps=steps_of(epochs, len(self.study.train), batch_size),
            batch_size=batch_size, seed=self.seed, device=self.device,
            checkpoint_dir=None if self.out is None else self.out / "checkpoints" / stage,
            resume=self.resume, callbacks=self._told(stage),
            configuration={
                "stage": stage, "config": asdict(self.config),
                "data": self.study.store.fingerprint,
            },
            **(self.settings or {}),
        )  # fmt: skip

    def _told(self, stage: str) -> list[Tell]:
        told: list[Tell] = [self.watch(stage)] if self.watch else []
        return told if self.out is None else [*told, JsonLines(self.out / f"{stage}.jsonl")]

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

    @property
    def normal(self) -> Float[Tensor, "N C H W"]:
        """Some normal images to learn from, always the same."""
        rows = self.study.some_normal(self.config.anchor_images, self.seed)
        return self.study.store.batch(rows, self.device).image

    @cached_property
    def anchor(self) -> Float[Tensor, "1 C H W"]:
        """The mean of normal images."""
        return anchor_image(self.normal)

    @cached_property
    def aligner(self) -> nn.Module:
        """Trained on the features of `plain`."""
        c = self.config
        mean = (
            mean_stages(self.plain.features, smooth(self.normal, c.cells))
            if c.anchor_features == "mean"
            else None
        )
        task = Alignment(
            c, self.plain, self.anchor, anchor_features=mean, seed=self.seed, device=self.device
        )
        self.fit(
            "aligner", task, self.study.feed(), c.alignment_epochs, c.alignment_batch_size
        )  # fmt: skip
        return task.networks["aligner"]

    @property
    def aligned_feed(self) -> AlignedLoader:
        """Aligned images to learn from."""
        return AlignedLoader(self.study.feed(), self.aligner)

    @cached_property
    def aligned(self) -> MaskAttention:
        """The classifier of aligned images."""
        return self.classify("aligned", self.classifier(), self.aligned_feed)

    def masks(
        self,
        network: MaskAttention,
        aligner: nn.Module | None,
        *,
        flip: bool = True,
        counted: dict[str, int] | None = None,
    ) -> Float[Tensor, "K h w"]:
        """Eq. (3), from the maps of a classifier on the images it has learnt from.

        Classes that are not `MASKED` get empty masks; so does one without a positive image. That,
        and a class with too few maps of P_c >= 0.8, is warned of.

        Args:
            network: gives maps and probabilities.
            aligner: of the images, if any.
            flip: whether symmetric diseases are averaged with their mirror images.
            counted: gets N_c of each class, how many maps of P_c >= 0.8 there were.
        """
        c, store, rows = self.config, self.study.store, self.study.train
        method = masked(network, aligner)
        logits = [method.on(store.batch(r, self.device).image)[1] for r in row_parts(rows)]
        probability = torch.cat(logits).sigmoid().cpu()
        labels = torch.from_numpy(store.labels[rows].astype(np.float32))
        masks = []
        for k, name in enumerate(store.classes):
            if name not in MASKED:
                masks.append(torch.zeros_like(network.masks[k]))
                continue
            chosen = select_confident(
                probability[:, k], labels[:, k], min_probability=c.min_probability, fewest=c.fewest
            )
            n_sure = int((probability[chosen, k] >= c.min_probability).sum())
            if counted is not None:
                counted[name] = n_sure
            if not len(chosen):
                warnings.warn(f"{name}: no positive image to learn from, no mask", stacklevel=2)
            elif n_sure < len(chosen):
                warnings.warn(
                    f"{name}: {n_sure} maps of P >= {c.min_probability}; "
                    f"the mask is of the {len(chosen)} with the highest P",
                    stacklevel=2,
                )
            maps = [network.masks.new_zeros(0, *network.masks.shape[1:])]
            for part in row_parts(rows[chosen.numpy()]):
                maps.append(method.on(store.batch(part, self.device).image)[0][:, k])
            symmetric = flip and name != ASYMMETRIC
            masks.append(
                disease_mask(torch.cat(maps), symmetric=symmetric, threshold=c.mask_threshold)
            )
        return torch.stack(masks)

    @cached_property
    def disease_masks(self) -> Float[Tensor, "K h w"]:
        """The masks of the paper, from aligned images."""
        return self.masks(self.aligned, self.aligner, counted=self.sure_maps)

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
        return masked(network, self.aligner if aligned else None)

    def baseline(self, stage: str, task: Any, feed: Data, *, aligned: bool = False) -> Method:
        """A system of another paper, trained as long as `plain` (one that begins with `plain`, as
        long again).
        """
        self.fit(stage, task, feed, self.config.epochs, self.config.batch_size)
        return Method(
            task.networks["classifier"], task.read, self.aligner if aligned else None
        )  # fmt: skip


def masked(network: MaskAttention, aligner: nn.Module | None) -> Method:
    """A classifier, whatever its masks, as a method."""
    return Method(network, lambda images: read(network, images), aligner)
