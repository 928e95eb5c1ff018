"""What the arms of the Pix2Pix paper add to the annotated images: nothing, the same images again,
further patients, or images that Pix2Pix or StarGAN has made.

Reading (data, augmentation of the generator): "Rotations, reflections and cropping" are applied to
    the images that the generator learns from; how much is not said.
    Here: They are rotated by up to 10 degrees, mirrored with a probability of one half, scaled by
        up to 10 % and moved by up to 5 % of their width.
    Why: It is about as much as pix2pix, which enlarges by 12 % and cuts, and no chest stands on its
        head.

Reading (data, which annotations): 688 synthetic images are made from 573 annotations; which ones
    serve twice is not said.
    Here: All serve once and then, in a random order, some a second time.
    Why: 688 is 1.2 times 573, and no annotation is named before others.

Reading (training, equal steps of the generators): How long Pix2Pix and Pix2Pix-N learn is not said.
    Here: Both take equally many steps, although Pix2Pix-N has more images.
    Why: What the healthy images are worth is then not the worth of a longer training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.stargan import StarGAN, translate
from cxrtut.data.annotated import (
    boxed,
    one_box_each,
    together,
    with_all_boxes,
    with_boxes_drawn,
)
from cxrtut.data.augment import Augmentation
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch
from cxrtut.data.split import Rows, Split
from cxrtut.data.store import StoreError
from cxrtut.evaluation_mode import evaluating
from cxrtut.experiments.run import Run
from cxrtut.losses.domain_translation import domain_vector
from cxrtut.nn.stargan import StarGANDiscriminator, StarGANGenerator
from cxrtut.papers.pix2pix import Config, Pix2Pix, made_from, make_networks, synthesise
from cxrtut.randomness import generator, seeded, shuffled

# "Rotations, reflections and cropping", Section 3, for the generator
GENERATORS = Augmentation(rotation=10.0, flip=0.5, scale=0.1, translation=0.05)
Extra = Callable[[Config, Split, Run], DeviceStore | None]


def learnt(config: Config, split: Split, seed: int) -> tuple[Rows, Rows]:
    """The rows with boxes that are learnt from, at most as many as the paper has, at random; and
    those that are left, of other images.

    Raises:
        StoreError: there is none.
    """
    rows = boxed(split)
    order = torch.randperm(len(rows), generator=generator("annotated", seed)).numpy()
    return rows[order[: config.annotated]], rows[order[config.annotated :]]


def nothing(config: Config, split: Split, run: Run) -> None:
    """The annotated images alone."""


def again(config: Config, split: Split, run: Run) -> DeviceStore:
    """The annotated images once more, as often as there would be synthetic ones."""
    rows, _ = learnt(config, split, run.seed)
    return with_all_boxes(split, np.resize(rows, config.synthetic), run.device)


def further(config: Config, split: Split, run: Run) -> DeviceStore:
    """Images with boxes that nobody else has seen, as many as there would be synthetic ones, or as
    many as there are.

    Raises:
        StoreError: nobody is left.
    """
    _, rows = learnt(config, split, run.seed)
    if not len(rows):
        raise StoreError(
            f"{split.name}: expected more than {config.annotated} training images with boxes, so "
            "that some are left as further patients: take fewer (--set annotated=N), or leave the "
            "arm out (--arm)"
        )
    return with_all_boxes(split, rows[: config.synthetic], run.device)


@dataclass(frozen=True)
class Maker:
    """Synthetic images, and the generator that makes them.

    Attributes:
        build: configuration, number of diseases and seed to the generator before training.
        train: trains it, once for a run.
        images: of the trained generator, once for a run.
    """

    build: Callable[[Config, int, int], nn.Module]
    train: Callable[[Config, Split, Run], nn.Module]
    images: Callable[[Config, Split, Run], DeviceStore]


def train_pix2pix(healthy: bool, config: Config, split: Split, run: Run) -> nn.Module:
    """Pix2Pix, or Pix2Pix-N, which learns from healthy images, too."""
    name = _name(healthy)

    def trained() -> nn.Module:
        task = Pix2Pix(config, seed=run.seed, device=run.device)
        images = pairs_of(config, split, run)
        if healthy:
            images = together(images, healthy_images(config, split, run))
        loader = Loader(images, shuffled(torch.arange(len(images))), GENERATORS)
        run.fit(name, task, loader, steps=config.steps, batch_size=config.batch_size)
        return task.networks["generator"]

    return run.once(name, trained)


def images_of_pix2pix(healthy: bool, config: Config, split: Split, run: Run) -> DeviceStore:
    """Images around the annotations, by Pix2Pix or Pix2Pix-N."""
    network, pairs = train_pix2pix(healthy, config, split, run), pairs_of(config, split, run)
    return run.once(
        f"images of {_name(healthy)}",
        lambda: synthesise(
            network, pairs, config.synthetic, seed=run.seed, batch_size=config.batch_size
        ),
    )


def _name(healthy: bool) -> str:
    return "Pix2Pix-N" if healthy else "Pix2Pix"


def pix2pix(healthy: bool) -> Maker:
    """Pix2Pix, or Pix2Pix-N."""
    return Maker(
        lambda config, diseases, seed: make_networks(config, seed)["generator"],
        partial(train_pix2pix, healthy), partial(images_of_pix2pix, healthy),
    )  # fmt: skip


def train_stargan(config: Config, split: Split, run: Run) -> nn.Module:
    """A StarGAN whose domains are "healthy" and each disease."""
    diseases = len(split.classes)

    def trained() -> nn.Module:
        generator, discriminator = (
            network.to(run.device) for network in make_stargan(config, diseases, run.seed)
        )
        task = StarGAN(
            generator, discriminator, domains=diseases + 1,
            learning_rate=config.stargan_learning_rate, critic_steps=config.stargan_critic_steps,
        )  # fmt: skip
        images = together(pairs_of(config, split, run), healthy_images(config, split, run))
        loader = Loader(images, shuffled(torch.arange(len(images))), GENERATORS, with_targets=True)
        run.fit(
            "StarGAN", task, loader, steps=config.stargan_steps,
            batch_size=config.stargan_batch_size,
        )  # fmt: skip
        return generator

    return run.once("StarGAN", trained)


def images_of_stargan(config: Config, split: Split, run: Run) -> DeviceStore:
    """Annotated images that StarGAN has made anew.

    Reading (data, images of StarGAN): The paper shows readers what StarGAN makes, and trains no
        detector on it: nothing would say where the disease is.
        Here: An annotated image is translated into the domain that it has, that of its own disease,
            and keeps its box.
        Why: Of all translations this one leaves the disease where the box is, if any does. How much
            of it is left in the box is measured. In the paper StarGAN translates healthy images
            into diseased ones, which is a harder task.
    """
    network, pairs = train_stargan(config, split, run), pairs_of(config, split, run)
    return run.once(
        "images of StarGAN",
        lambda: made_from(
            pairs, config.synthetic, partial(in_own_domain, network), seed=run.seed,
            batch_size=config.stargan_batch_size,
        ),
    )  # fmt: skip


STARGAN = Maker(
    lambda config, diseases, seed: make_stargan(config, diseases, seed)[0],
    train_stargan, images_of_stargan,
)  # fmt: skip


def make_stargan(config: Config, diseases: int, seed: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of "healthy" and so many diseases, with the initial weights of a
    seed.
    """
    domains = diseases + 1
    with seeded("stargan", seed):
        return (
            StarGANGenerator(config.channels, domains, config.stargan_base, config.stargan_blocks),
            StarGANDiscriminator(
                config.channels, domains, config.stargan_base, config.size, config.stargan_halvings
            ),
        )


def in_own_domain(network: nn.Module, batch: Batch) -> Float[Tensor, "B C H W"]:
    """Images translated into the domains that they have."""
    own = domain_vector(batch.label_vector, batch.label_vector.shape[1] + 1)
    with evaluating(network):
        return translate(network, batch.image, own)


def healthy_images(config: Config, split: Split, run: Run) -> DeviceStore:
    """Normal images, with boxes drawn at random as large as those of the annotations."""
    rows = split.some_normal(config.healthy, run.seed)
    boxes = pairs_of(config, split, run).boxes[:, 0].cpu()
    return with_boxes_drawn(split, rows, boxes, seed=run.seed, device=run.device)


def pairs_of(config: Config, split: Split, run: Run) -> DeviceStore:
    """The annotations of the images that are learnt from, one by one."""
    rows, _ = learnt(config, split, run.seed)
    every = one_box_each(split, "train", run.device)
    chosen = torch.isin(every.index, torch.from_numpy(rows).to(every.device)).nonzero()[:, 0]
    return every.moved(lambda tensor: tensor.index_select(0, chosen))
