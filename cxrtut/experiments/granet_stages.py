"""The stages of GRANet, each trained once for all arms that begin with it: alignment, pseudo-pairs,
generators, and pseudo-abnormal images.

Reading (training, the reference): "We manually select a standard high-quality image".
    Here: It is the normal training image that is least far from all others, by pixels.
    Why: No hand selects the same image twice.

Reading (training, features of an alignment): Neither the network nor the layers of the perceptual
    loss are named.
    Here: They are the stages of a small classifier of the same training images.
    Why: A network that has learnt photographs sees little in radiographs of 64 pixels.

Reading (data, pseudo-abnormal images): "All images without pneumonia" become abnormal: normal ones,
    and those that are not normal for another reason.
    Here: Only normal ones do.
    Why: Whether something else of an abnormal image is in the way of the box, nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.classifier import BinaryClassifierTask
from cxrtut.data.annotated import boxed, with_all_boxes
from cxrtut.data.augment import Augmentation
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.loader import Loader
from cxrtut.data.pseudo_pairs import pseudo_abnormal_images, pseudo_normal_pairs
from cxrtut.data.split import Rows, Split, row_parts
from cxrtut.engine.task import Task
from cxrtut.experiments.aligned_split import aligned_training
from cxrtut.experiments.run import Run
from cxrtut.nn.backbones import ResNet10, ResNet18
from cxrtut.nn.spatial_transformer import SpatialTransformer
from cxrtut.papers.granet import (
    AbnormalToNormal,
    Alignment,
    Config,
    Realistic,
    made_realistic,
    make_networks,
)
from cxrtut.randomness import balanced, generator, seeded

T = TypeVar("T")
CLOSEST = 256  # normal images among which the reference is looked for
# Section 3.2 follows [6]; its affine changes and shades, for chests that stand upright
DETECTORS = Augmentation(
    rotation=6.0, flip=0.5, scale=0.1, translation=0.03, brightness=0.05, contrast=0.1
)
GENERATORS = Augmentation(flip=0.5, translation=0.03)


def make_aligner(config: Config, seed: int) -> SpatialTransformer:
    """The alignment module: ResNet-18, or ten layers at the CPU's size, and six numbers; at first
    the identity.
    """
    with seeded("granet, aligner", seed):
        width = config.features_width
        network = (
            ResNet18(config.channels)
            if config.detector == "dagger"
            else ResNet10(config.channels, width)
        )
        channels = network.classifier.in_features
        return SpatialTransformer(network.features, channels, parameters=6)


class SmallSplit:
    """The rows that are learnt from: some with boxes, and some normal ones."""

    def __init__(self, config: Config, split: Split, seed: int) -> None:
        rows = []
        for name, found, n in (
            ("annotated", boxed(split), config.annotated),
            ("healthy", split.normal(), config.healthy),
        ):
            order = torch.randperm(len(found), generator=generator(name, seed)).numpy()
            rows.append(np.sort(found[order[:n]]))
        self.rows: Rows = np.sort(np.concatenate(rows))

    def of(self, split: Split) -> Split:
        """The split with these rows to learn from."""
        return replace(split, train=self.rows)


@dataclass(eq=False)
class Stages:
    """One run with one seed.

    Attributes:
        config: of the run.
        split: what to learn from: `config.annotated` images with boxes and `config.healthy` normal
            ones at most.
        run: where and how.
    """

    config: Config
    split: Split
    run: Run

    def training(self, *, aligned: bool) -> Split:
        """The training images, aligned or as they are."""
        return self.aligned if aligned else self.split

    @cached_property
    def reference(self) -> Float[Tensor, "1 C H W"]:
        """R of Eq. (1)."""
        rows = self.split.some_normal(CLOSEST, self.run.seed)
        images = torch.cat([self.split.batch(part).image for part in row_parts(rows)])
        flat = images.flatten(1)
        return images[[int(torch.cdist(flat, flat).mean(1).argmin())]].to(self.run.device)

    @cached_property
    def features(self) -> nn.Module:
        """A classifier of normal and abnormal images, for Eq. (1)."""
        c = self.config
        with seeded("granet, features", self.run.seed):
            network = ResNet10(c.channels, c.features_width).to(self.run.device)
        task = BinaryClassifierTask(network, learning_rate=1e-3)
        self._fit("features", task, self.split.loader("balanced"), c.features_steps)
        return network.features

    @cached_property
    def aligner(self) -> nn.Module:
        """Trained on Eq. (1)."""
        aligner = make_aligner(self.config, self.run.seed).to(self.run.device)
        task = Alignment(self.config, aligner, self.features, self.reference)
        self._fit("aligner", task, self.split.loader(), self.config.alignment_steps)
        return aligner

    @cached_property
    def aligned(self) -> Split:
        """The training images, aligned."""
        return aligned_training(self.split, self.aligner, self.run.device)

    def pairs(self, *, aligned: bool) -> DeviceStore:
        """Pseudo-pairs: blended images, and normal ones."""
        return self._once(
            "pairs", aligned,
            lambda: pseudo_normal_pairs(
                self.training(aligned=aligned), self.config.neighbours, self.run.device
            ),
        )  # fmt: skip

    def realistic(self, *, aligned: bool) -> DeviceStore:
        """Pseudo-pairs of which the blended image looks real, by Eq. (2)."""

        def made() -> DeviceStore:
            pairs = self.pairs(aligned=aligned)
            task = Realistic(self.config, seed=self.run.seed, device=self.run.device)
            loader = in_turn(pairs, GENERATORS)
            self._fit("realistic", task, loader, self.config.realistic_steps)
            return made_realistic(task.networks["generator"], pairs)

        return self._once("realistic pairs", aligned, made)

    def abnormal_to_normal(self, *, aligned: bool) -> dict[str, nn.Module]:
        """G and D of Eq. (3), before the detector is there."""

        def made() -> dict[str, nn.Module]:
            task = AbnormalToNormal(self.config, seed=self.run.seed, device=self.run.device)
            loader = in_turn(self.realistic(aligned=aligned), GENERATORS)
            self._fit("abnormal to normal", task, loader, self.config.steps)
            return task.networks

        return self._once("abnormal to normal", aligned, made)

    def untrained(self) -> dict[str, nn.Module]:
        """G and D with their first weights."""
        made = make_networks(self.config, self.run.seed, AbnormalToNormal.name)
        return {name: network.to(self.run.device) for name, network in made.items()}

    def pseudo_abnormal(self, *, aligned: bool) -> DeviceStore:
        """Normal images with the boxes, and what is in them, of abnormal ones, made to look real by
        Eq. (2) with the kinds of images exchanged; the image as it was is the `healthy` of each.
        """

        def made() -> DeviceStore:
            training = self.training(aligned=aligned)
            blended = pseudo_abnormal_images(training, self.config.neighbours, self.run.device)
            real = with_all_boxes(training, boxed(training), self.run.device)
            # To `Realistic` the real images are the first of a pair, the blended ones the second
            asked = DeviceStore.joined([
                replace(of, healthy=of.images, boxes=of.boxes[:, :0], box_label=of.box_label[:, :0])
                for of in (real, blended)
            ])  # fmt: skip
            n = len(real)
            rows = torch.arange(len(asked))
            loader = Loader(asked, balanced(rows[:n], rows[n:]), GENERATORS)
            task = Realistic(self.config, seed=self.run.seed, device=self.run.device)
            self._fit("realistic abnormal", task, loader, self.config.realistic_steps)
            done = made_realistic(task.networks["generator"], asked).healthy
            assert done is not None, "pairs stay pairs"
            return replace(blended, images=done[n:])

        return self._once("pseudo-abnormal", aligned, made)

    def _once(self, name: str, aligned: bool, make: Callable[[], T]) -> T:
        return self.run.once(f"{name}{', aligned' if aligned else ''}", make)

    def _fit(self, stage: str, task: Task, loader: Loader, steps: int) -> None:
        self.run.fit(stage, task, loader, steps=steps, batch_size=self.config.batch_size)


def in_turn(images: DeviceStore, augmentation: Augmentation | None) -> Loader:
    """Normal and abnormal images in turn."""
    ill = images.label_vector.amax(1).cpu() > 0
    rows = torch.arange(len(images))
    return Loader(images, balanced(rows[~ill], rows[ill], largest=True), augmentation)


def stages_of(config: Config, split: Split, run: Run) -> Stages:
    """The stages of a run, which its arms share."""
    return run.once(
        "stages",
        lambda: Stages(config, SmallSplit(config, split, run.seed).of(split), run),
    )
