r"""Pix2Pix augmentation: images made around a lesion that stays as it is.

Y. Xing, Z. Ge, R. Zeng, D. Mahapatra, J. Seah, M. Law and T. Drummond, Adversarial Pulmonary
Pathology Translation for Pairwise Chest X-ray Data Augmentation, MICCAI 2019.

Equations
    (1)  $L_{GAN}(G, D) = E[\log D(x, y)] + E[\log(1 - D(x, \tilde x))]$
         `losses.adversarial.non_saturating_discriminator_loss`
    (2)  $L_{L1}(G) = E \| y - \tilde x \|_1$    `Pix2Pix.generator_loss`
    (3)  $\min_G \max_D L_{GAN}(G, D) + \lambda L_{L1}(G)$
         `Pix2Pix.generator_loss` and `Pix2Pix.discriminator_loss`
Algorithm 1
    lines 3 and 4, images with boxes, and their masks    `data.annotated.one_box_each`, `box_mask`
    line 5, $x = y \odot m$                              `pathology_only`
    line 7, $\tilde x = x + G(x) \odot (1 - m)$          `composite`
    lines 8 and 9, gradients and updates                 `Pix2Pix.phases`
Section 2.2
    "Adding Unannotated Healthy Samples", Pix2Pix-N      `data.annotated.with_boxes_drawn`
Section 3.2
    688 synthetic images                                 `synthesise`, `made_from`

Reading (data, how many test boxes): Section 3.2 tests 247 images, Table 2 gives shares for each of
    six diseases.
    Here: The numbers of test boxes are 54, 44, 46, 37, 36 and 30, in the order of the table.
    Why: They are 30 % of the boxes of each disease. Of numbers that add up to 247 they are the only
        ones of which all shares of the table but one, cut off and not rounded, can be parts.

Reading (loss, mean or sum): $\| \cdot \|_1$ of Eq. (2) is a sum over pixels.
    Here: It is the mean over pixels, channels and images.
    Why: The $\lambda$ of 100, which we take from pix2pix, belongs to the mean.

Reading (evaluation, an impossible share): Pneumothorax at 5,000 steps has .031.
    Here: It is shown as it is printed.
    Why: One of 30 boxes is .033.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch, to_uint8
from cxrtut.engine.schedules import linear_decay
from cxrtut.engine.task import Phase, Terms
from cxrtut.losses.adversarial import (
    non_saturating_discriminator_loss,
    non_saturating_generator_loss,
)
from cxrtut.nn.initialisation import initialise_normal
from cxrtut.nn.patchgan import PatchGAN
from cxrtut.nn.pix2pix_unet import Pix2PixUNet
from cxrtut.randomness import generator as random_numbers
from cxrtut.randomness import seeded

DETECTORS = ("inception", "small")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's values with their section; † where the paper is silent and we had to choose."""

    size: int = 256  # 3: "downsize the original images from 1024×1024 to 256×256"
    channels: int = 1  # † radiographs are grey
    base: int = 64  # † pix2pix's; of generator and discriminator
    halvings: int = 8  # † pix2pix's U-Net of 256 px
    patch_halvings: int = 3  # † pix2pix's discriminator of 70 x 70 pixels
    dropout: float = 0.5  # † pix2pix's
    lambda_l1: float = 100.0  # † pix2pix's
    learning_rate: float = 2e-4  # † pix2pix's
    beta_1: float = 0.5  # † pix2pix's
    beta_2: float = 0.999  # † pix2pix's
    batch_size: int = 1  # † pix2pix's
    steps: int = 114_600  # † 200 passes over 573 annotations, pix2pix's 100 + 100
    decay_from: float = 0.5  # † share of the steps before the rate falls to 0, pix2pix's
    healthy: int = 2000  # 2.2: "an extra 2,000 healthy lung X-ray images", of Pix2Pix-N
    annotated: int = 573  # 3, there annotations; here images that are learnt from, at most
    synthetic: int = 688  # 3.2
    # The detector, Section 3.2
    detector: str = "inception"  # "A Faster-RCNN ... built on InceptionV2-ResNet"; `small` on a CPU
    detector_steps: int = 15_000  # the last of Table 2
    detector_batch_size: int = 2
    detector_learning_rate: float = 3e-4
    detector_optimizer: str = "sgd"  # † TensorFlow's; with a momentum of .9
    detector_max_norm: float = 10.0  # † TensorFlow's; of gradients
    detector_decays: bool = False  # † TensorFlow's falls after 900,000 steps
    # StarGAN, the comparator of Table 1, about which the paper says nothing †
    stargan_base: int = 64
    stargan_blocks: int = 6
    stargan_halvings: int = 6
    stargan_critic_steps: int = 5
    stargan_learning_rate: float = 1e-4
    stargan_batch_size: int = 16
    stargan_steps: int = 200_000
    # The networks that look at synthetic images in our controls
    reader_steps: int = 2000

    def __post_init__(self) -> None:
        if self.size % 2**self.halvings:
            raise ValueError(
                f"size: expected a multiple of 2^halvings = {2**self.halvings}, got {self.size}"
            )
        if self.size % 2**self.stargan_halvings:
            raise ValueError(
                "size: expected a multiple of 2^stargan_halvings = "
                f"{2**self.stargan_halvings}, got {self.size}"
            )
        if min(self.batch_size, self.annotated) < 1 or min(self.synthetic, self.healthy) < 0:
            raise ValueError(
                "expected a batch_size of 1 or more, annotated images and no negative numbers of "
                f"others, got {self.batch_size}, {self.annotated}, {self.synthetic} and "
                f"{self.healthy}"
            )
        if self.detector not in DETECTORS:
            raise ValueError(
                f"detector: expected one of {', '.join(DETECTORS)}, got {self.detector!r}"
            )
        if not 0 <= self.decay_from <= 1:
            raise ValueError(f"decay_from: expected one in [0, 1], got {self.decay_from}")


PAPER = Config()
# One T4, planned for half an hour, not run yet: the paper's generator at 128 px, and a small
# detector.
COLAB = replace(
    PAPER, size=128, halvings=7, batch_size=4, steps=10_000, stargan_steps=10_000, detector="small",
    detector_steps=2000, detector_batch_size=8, detector_optimizer="adamw",
    detector_learning_rate=2e-3, detector_max_norm=1.0, detector_decays=True,
)  # fmt: skip
# Two CPU cores, not run yet: small networks on images of 96 px.
CPU = replace(
    COLAB, size=96, base=16, halvings=5, patch_halvings=2, batch_size=8, steps=2000,
    learning_rate=5e-4, detector_steps=400, stargan_base=16, stargan_blocks=2, stargan_halvings=5,
    stargan_critic_steps=2, stargan_learning_rate=5e-4, stargan_batch_size=8, stargan_steps=2000,
    reader_steps=200,
)  # fmt: skip
# Two CPU cores, less than a minute an arm: the same networks, which have just begun to learn.
SMOKE = replace(
    CPU, steps=100, detector_steps=60, annotated=120, healthy=120, synthetic=120,
    stargan_steps=100, reader_steps=40,
)  # fmt: skip


def box_mask(batch: Batch) -> Float[Tensor, "B 1 H W"]:
    """m: 1 in the boxes of each image (a pixel is inside when its centre is), 0 elsewhere."""
    height, width = batch.image.shape[-2:]
    y, x = (torch.arange(n, device=batch.boxes.device) + 0.5 for n in (height, width))
    left, top, right, bottom = batch.boxes[..., None].unbind(-2)
    inside_x, inside_y = (left <= x) & (x < right), (top <= y) & (y < bottom)
    inside = inside_y[..., :, None] & inside_x[..., None, :]
    return inside.any(1, keepdim=True).to(batch.image.dtype)


def pathology_only(
    target: Float[Tensor, "B C H W"], mask: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B C H W"]:
    r"""Line 5: $x = y \odot m$.

    Reading (data, zero): The mask "replaces the area outside the bounding box with zero values".
        Here: Images are in $[-1, 1]$ when they are masked, so that zero is a mid grey.
        Why: In files zero is black. Who blacks out the file gets -1 outside, and then line 7 adds
            -1 to whatever G makes there.
    """
    return target * mask


def composite(
    target: Float[Tensor, "B C H W"],
    made: Float[Tensor, "B C H W"],
    mask: Float[Tensor, "B 1 H W"],
) -> Float[Tensor, "B C H W"]:
    r"""Line 7: $\tilde x = x + G(x) \odot (1 - m)$, with $x = y \odot m$ written out.

    Inside the box it is $y$ to the bit, outside it is what was made, in whatever range the values
    are.
    """
    return torch.where(mask > 0, target, made)


def make_networks(config: Config, seed: int) -> dict[str, nn.Module]:
    """G and D with the initial weights of a seed: N(0, .02), as in pix2pix."""
    draw = random_numbers("pix2pix", seed)
    networks: dict[str, nn.Module] = {
        "generator": Pix2PixUNet(
            config.channels, config.base, config.halvings, dropout=config.dropout
        ),
        "discriminator": PatchGAN(2 * config.channels, config.base, config.patch_halvings),
    }
    for network in networks.values():
        initialise_normal(network, 0.02, draw)
    return networks


class Pix2Pix:
    r"""G and D, trained on Eq. (3) with pairs (x, y): Algorithm 1.

    A batch has one box for each image; see `data.annotated`.

    Reading (training, who moves first): Line 8 calculates the gradients of G and D, line 9 updates
        both. The text says that they are stepped "alternatively".
        Here: G moves first. D then learns from what G, as it is now, makes of the same pairs.
        Why: In pix2pix's public code one moves after the other, too, there D first.

    Reading (loss, what D and L1 see): Eqs. (1) and (2) have $G(x)$, Section 2.2 and Algorithm 1
        have $\tilde x$.
        Here: Both losses take $\tilde x$.
        Why: It is the image that is used. What G says inside the box is thrown away.

    Reading (loss, the adversarial loss of G): By Eq. (1) G makes $\log(1 - D)$ small.
        Here: It makes $-\log D$ small, and D's loss is halved.
        Why: The authors of pix2pix do both (Section 3.3). The printed gradient vanishes where D is
            sure.
    """

    n_uniforms = 0

    def __init__(
        self, config: Config, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        """
        Args:
            config: sizes and coefficients.
            seed: of the initial weights.
            device: where the networks are.
        """
        self.config = config
        self.networks = make_networks(config, seed)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, network in self.networks.items():
            network.to(device)
            self.optimizers[name] = torch.optim.Adam(
                network.parameters(), config.learning_rate, betas=(config.beta_1, config.beta_2)
            )

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("G", ("generator",), self.generator_loss)
        yield Phase("D", ("discriminator",), self.discriminator_loss)

    def schedule(self, step: int) -> dict[str, float]:
        """pix2pix's: the rate is constant, then falls in a straight line to 0."""
        start = round(self.config.decay_from * self.config.steps)
        if step < start:
            return dict.fromkeys(self.networks, 1.0)
        rate = linear_decay(step, steps=self.config.steps, start=start)
        return dict.fromkeys(self.networks, rate)

    def made(self, batch: Batch) -> tuple[Tensor, Tensor]:
        r"""x and $\tilde x$ of a batch: lines 4 to 7."""
        mask = box_mask(batch)
        x = pathology_only(batch.image, mask)
        return x, composite(batch.image, self.networks["generator"](x), mask)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        r"""G's side of Eq. (3): $L_{GAN} + \lambda L_{L1}$, the mean over pixels and images."""
        D, c = self.networks["discriminator"], self.config
        x, fake = self.made(batch)
        adversarial = non_saturating_generator_loss(D(torch.cat((x, fake), dim=1)))
        l1 = (batch.image - fake).abs().mean()
        return adversarial + c.lambda_l1 * l1, {"adversarial": adversarial, "L1": l1}

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        r"""D's side of Eq. (3), turned round and halved: cross-entropy of (x, y) as real and
        $(x, \tilde x)$ as made.
        """
        D = self.networks["discriminator"]
        with torch.no_grad():
            x, fake = self.made(batch)
        real = D(torch.cat((x, batch.image), dim=1))
        loss = 0.5 * non_saturating_discriminator_loss(real, D(torch.cat((x, fake), dim=1)))
        return loss, {}


def synthesise(
    generator: nn.Module, pairs: DeviceStore, n: int, *, seed: int, batch_size: int = 1
) -> DeviceStore:
    """n images around the annotations of others: each has the pixels of one box, to the grey level,
    and what G makes around them; and that box alone, with its class.

    Args:
        generator: trained; nothing of it changes.
        pairs: annotations, see `data.annotated.one_box_each`; on the generator's device.
        n: how many images.
        seed: of dropout, order and mirroring.
        batch_size: of the norms; that of the training.

    Raises:
        ValueError: no annotations.
    """
    maker = copy.deepcopy(generator).train()

    def around(batch: Batch) -> Tensor:
        mask = box_mask(batch)
        return composite(batch.image, maker(pathology_only(batch.image, mask)), mask)

    return made_from(pairs, n, around, seed=seed, batch_size=batch_size)


@torch.no_grad()
def made_from(
    pairs: DeviceStore,
    n: int,
    make: Callable[[Batch], Float[Tensor, "B C H W"]],
    *,
    seed: int,
    batch_size: int,
) -> DeviceStore:
    """n images made from annotations, each with the box and the class of its own.

    Reading (training, variation): Each iteration is to give images "with variations in the
        surrounding area". Where the variations come from is not said.
        Here: Dropout is on, norms take the numbers of their batch, as in training, and each image
            is mirrored with a probability of one half. Boxes serve in random order, and none a
            second time before all have served once.
        Why: The first two are pix2pix's sources. Mirroring moves whole pixels, so that no pixel of
            the lesion changes.

    Args:
        pairs: annotations, see `data.annotated.one_box_each`.
        n: how many images.
        make: a batch of them to images, in [-1, 1].
        seed: of order, mirroring, and whatever `make` draws.
        batch_size: images that are made at once.

    Raises:
        ValueError: no annotations.
    """
    if not len(pairs):
        raise ValueError("pairs: expected annotations to make images from, got none")
    draw = random_numbers("synthetic images", seed)
    rounds = [torch.randperm(len(pairs), generator=draw) for _ in range(-(-n // len(pairs)))]
    if not rounds:
        return pairs.moved(lambda tensor: tensor[:0])
    order = torch.cat(rounds)[:n]
    mirrored = torch.rand(n, generator=draw) < 0.5
    pieces = []
    with seeded("synthetic images", seed):
        for rows, turned in zip(order.split(batch_size), mirrored.split(batch_size), strict=True):
            batch = _mirrored(pairs.batch(rows), turned.to(pairs.device))
            pieces.append(
                DeviceStore(
                    images=to_uint8(make(batch)),
                    label_vector=batch.label_vector, boxes=batch.boxes,
                    box_label=batch.box_label, index=batch.index,
                )
            )  # fmt: skip
    return DeviceStore.joined(pieces)


def _mirrored(batch: Batch, turned: Tensor) -> Batch:
    """Some images of a batch from left to right, their boxes too, pixel by pixel."""
    width = batch.image.shape[-1]
    left, top, right, bottom = batch.boxes.unbind(-1)
    boxes = torch.stack((width - right, top, width - left, bottom), dim=-1)
    return replace(
        batch,
        image=torch.where(turned[:, None, None, None], batch.image.flip(-1), batch.image),
        boxes=torch.where(turned[:, None, None], boxes, batch.boxes),
    )
