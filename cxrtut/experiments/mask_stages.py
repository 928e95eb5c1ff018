"""The stages of the disease-masks paper, each trained once for all arms that begin with it."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.data.sample import Batch, System
from cxrtut.data.split import Split, row_parts
from cxrtut.engine.task import Data, Task
from cxrtut.experiments.aligned_loader import AlignedLoader
from cxrtut.experiments.run import Run
from cxrtut.nn.backbones import mean_stages
from cxrtut.nn.spatial_transformer import align
from cxrtut.papers.disease_masks import (
    ASYMMETRIC,
    MASKED,
    Alignment,
    Classification,
    Config,
    MaskAttention,
    MaskedClassifier,
    anchor_image,
    disease_mask,
    make_classifier,
    maps_and_logits,
    select_confident,
    smooth,
    steps_of,
)


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
    def normal(self) -> Batch:
        """Some normal images to learn from, always the same."""
        rows = self.split.some_normal(self.config.anchor_images, self.run.seed)
        return self.split.batch(rows, self.run.device)

    @cached_property
    def anchor(self) -> Float[Tensor, "1 C H W"]:
        """The mean of normal images."""
        return anchor_image(self.normal.image)

    @cached_property
    def aligner(self) -> nn.Module:
        """Trained on the features of `plain`."""
        c = self.config
        mean = (
            mean_stages(self.plain.features, smooth(self.normal.image, c.grid_size))
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

    def baseline(self, stage: str, task: Any, loader: Data, rounds: int = 2) -> Any:
        """A system of another paper, trained as long as the arms that it is compared with: those
        with masks are classifiers that are trained twice, without and with them.

        Args:
            stage: its name.
            task: the system.
            loader: of its images.
            rounds: one for a system that goes on from `plain`.
        """
        epochs = rounds * self.config.epochs
        self.fit(stage, task, loader, epochs, self.config.batch_size)
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
