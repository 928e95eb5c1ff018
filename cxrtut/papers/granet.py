r"""GRANet: a detector that attends to what a generator would change.

E. Kim, S. Lee and K. M. Lee, Generative Residual Attention Network for Disease Detection, 2020.

Equations
    (1)  $L_\theta = f(T_\theta(I), R) + \| T_\theta(I) - R \|_2$
         `Alignment.loss`, `nn.spatial_transformer.SpatialTransformer`
    (2)  $L_{realistic} = E[\log D(y)] + E[\log(1 - D(G(I_b(x))))] + \| I_b(x) - G(I_b(x)) \|_1$
         `Realistic.generator_loss` and `Realistic.discriminator_loss`
    (3)  $L_{Abn2Nor} = E[\log D(y)] + E[\log(1 - D(G(x)))] + \| G_{realistic}(I_b(x)) - G(x) \|_1$
         `AbnormalToNormal.generator_loss` and `Realistic.discriminator_loss`
    (4)  $\frac{1}{|t|} \sum_t \frac{TP(t)}{TP(t) + FP(t) + FN(t)}$    `metrics.rsna_map.rsna_map`
Sections
    2.1  $I_r = |x - G(x)|$, the spatial attention map
         `nn.residual_attention.ResidualAttention`, `nn.residual_attention.AttendedBackbone`
    2.2  the nearest normal neighbour, at 32 x 32    `data.pairing.training_neighbours`
    2.2  Poisson blending, $I_b$                     `data.poisson.poisson_blend`
    2.2  pseudo-normal pairs                         `data.pseudo_pairs.pseudo_normal_pairs`
    2.3  pseudo-abnormal images                      `data.pseudo_pairs.pseudo_abnormal_images`
    4.2, Table 3  detector and cGAN by turns         `GRANet`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from cxrtut.data.box_targets import box_targets
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch, abnormal, from_uint8, normal, to_uint8
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.losses.adversarial import (
    non_saturating_discriminator_loss,
    non_saturating_generator_loss,
)
from cxrtut.losses.perceptual import euclidean_loss, perceptual_loss
from cxrtut.nn.backbones import stages
from cxrtut.nn.initialisation import initialise_normal
from cxrtut.nn.instance_norm import InstanceNorm2d
from cxrtut.nn.patchgan import PatchGAN
from cxrtut.nn.residual_attention import KINDS
from cxrtut.nn.resnet_generator import ResNetGenerator
from cxrtut.nn.spatial_transformer import warp
from cxrtut.randomness import generator as random_numbers

DETECTORS = ("dagger", "small")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's values with their section; † where the paper is silent and we had to choose."""

    size: int = 512  # 4.1: "from 1024×1024 resolution to 512×512"
    channels: int = 1  # † radiographs are grey
    base: int = 64  # 3.1, CycleGAN's; of generator and discriminator
    residual_blocks: int = 9  # 3.1
    patch_halvings: int = 3  # 3.1: "70x70 PatchGANs"
    neighbours: int = 1  # 3.2: "k = 1"
    annotated: int = 6012  # 3: images with boxes that are learnt from, at most; all of them
    healthy: int = 8851  # 3: normal ones, all of them
    # Eq. (1)
    features_steps: int = 5000  # † of the classifier whose features Eq. (1) compares
    features_width: int = 64  # † its first channels
    alignment_steps: int = 10_000  # †
    alignment_learning_rate: float = 1e-3  # † SGD with a momentum of .9, as in Disease masks
    lambda_l1: float = 100.0  # † Eqs. (2) and (3) print no weight
    lambda_identity: float = 50.0  # † see `AbnormalToNormal`
    learning_rate: float = 2e-4  # 3.2
    beta_1: float = 0.5  # † CycleGAN's
    beta_2: float = 0.999  # † CycleGAN's
    batch_size: int = 4  # 3.2
    realistic_steps: int = 150_000  # † 50 passes over the abnormal images, of Eq. (2)
    steps: int = 150_000  # † as many of Eq. (3)
    # The detector, and both by turns
    detector: str = "dagger"  # 3.1, "RetinaNet-dagger"; `small` on a CPU
    imagenet: bool = True  # 3.1, of the encoder of RetinaNet-dagger
    detector_steps: int = 36_000  # † about 16 passes, as in [6]
    attention: str = "residual"  # † F (1 + A); `product` is F A
    detector_epochs: int = 2  # Table 3, the best: "2:2"
    generator_epochs: int = 2
    joint: bool = False  # Table 3, "joint": all move on every batch
    lambda_detection: float = 1.0  # † of the detector's loss in the generator's epochs
    detector_learning_rate: float = 1e-5  # 3.2, see `GRANet`
    generator_learning_rate: float = 2e-5  # † a tenth of what it was trained with before
    detector_batch_size: int = 6  # 3.2
    detector_max_norm: float = 1.0  # † gradients are scaled down to this norm at most

    def __post_init__(self) -> None:
        if self.size % 4 or self.size < 32:
            raise ValueError(f"size: expected a multiple of 4, 32 at least, got {self.size}")
        for name in ("batch_size", "detector_batch_size"):
            if (value := getattr(self, name)) < 2 or value % 2:
                raise ValueError(f"{name}: expected an even number, got {value}")
        for name in ("neighbours", "annotated", "healthy"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
        if self.detector not in DETECTORS:
            raise ValueError(
                f"detector: expected one of {', '.join(DETECTORS)}, got {self.detector!r}"
            )
        if self.attention not in KINDS:
            raise ValueError(
                f"attention: expected one of {', '.join(KINDS)}, got {self.attention!r}"
            )
        if self.detector_epochs < 1 or self.generator_epochs < 0:
            raise ValueError(
                "expected detector_epochs of 1 or more and no negative generator_epochs, got "
                f"{self.detector_epochs} and {self.generator_epochs}"
            )


PAPER = Config()
# One T4, planned for half an hour, not run yet: the paper's generator at 128 px, a small detector.
COLAB = replace(
    PAPER, size=128, batch_size=8, features_steps=500, features_width=16, alignment_steps=1000,
    realistic_steps=2000, steps=4000, detector="small", detector_steps=2000,
    detector_learning_rate=1e-3, generator_learning_rate=2e-5, detector_batch_size=8,
    annotated=1000, healthy=2000, imagenet=False,
)  # fmt: skip
# Two CPU cores, not run yet: small networks on few images of 64 px.
CPU = replace(
    COLAB, size=64, base=16, residual_blocks=3, patch_halvings=2, features_steps=300,
    alignment_steps=400, alignment_learning_rate=1e-2, realistic_steps=400, steps=1500,
    detector_steps=400, annotated=150, healthy=300,
)  # fmt: skip
# Two CPU cores, a minute: the same networks, which have just begun to learn.
SMOKE = replace(
    CPU, features_steps=40, alignment_steps=40, realistic_steps=40, steps=80, detector_steps=60
)


class Alignment:
    r"""The spatial transformer $T_\theta$, trained on Eq. (1).

    Reading (loss, what is aligned with what): The text has the distance "between transformed and
        input images", the equation that to the reference R.
        Here: It is the equation.
        Why: The image that is nearest to the input is the input.

    Reading (loss, means): The norms are sums over pixels and over features.
        Here: They are means, as in Disease masks, whose losses these are.
        Why: A sum over pixels would be thousands of times the other term.
    """

    n_uniforms = 0

    def __init__(
        self,
        config: Config,
        aligner: nn.Module,
        features: nn.Module,
        reference: Float[Tensor, "1 C H W"],
    ) -> None:
        """
        Args:
            config: of the run.
            aligner: images to matrices, at first the identity; on its device, as all the others.
            features: of f; its stages are compared, and it is left as it is.
            reference: R.
        """
        self.features, self.reference = features.eval().requires_grad_(False), reference
        with torch.no_grad():
            self.wanted = stages(features, reference)
        self.networks: dict[str, nn.Module] = {"aligner": aligner}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "aligner": torch.optim.SGD(
                aligner.parameters(), config.alignment_learning_rate, momentum=0.9
            )
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("align", ("aligner",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (1)."""
        aligned = warp(batch.image, self.networks["aligner"](batch.image))
        perceptual = perceptual_loss(self.wanted, stages(self.features, aligned))
        distance = euclidean_loss(self.reference, aligned)
        return perceptual + distance, {"perceptual": perceptual, "distance": distance}


def make_networks(config: Config, seed: int, name: str) -> dict[str, nn.Module]:
    """G and D with the initial weights of a seed and a name: N(0, .02), as in CycleGAN."""
    draw = random_numbers("granet", name, seed)
    networks: dict[str, nn.Module] = {
        "generator": ResNetGenerator(config.channels, config.base, config.residual_blocks),
        "discriminator": PatchGAN(
            config.channels, config.base, config.patch_halvings, InstanceNorm2d
        ),
    }
    for network in networks.values():
        initialise_normal(network, 0.02, draw)
    return networks


class Realistic:
    r"""$G_{realistic}$ and its D, trained on Eq. (2): blended images shall look real.

    A batch holds normal and abnormal images in turn, and as `healthy` of the abnormal ones the
    blended $I_b(x)$; see `data.pseudo_pairs.pseudo_normal_pairs`.

    Reading (loss, who makes what small): Eqs. (2) and (3) are one sum, and it is not said who
        makes it small.
        Here: G makes it small and D large. G makes $-\log D$ small instead of $\log(1 - D)$, and
            D's loss is halved.
        Why: So it is in CycleGAN and pix2pix, whose architecture it is. The L1 term does not
            contain D.

    Reading (training, a batch): "Batch size 4" does not say of what.
        Here: Two of the four images are normal and two abnormal.
        Why: Both terms then have as many images, as in CycleGAN, where a batch has both kinds.

    Reading (training, decay): The learning rate is called "initial" (Section 3.2), and no schedule
        is given.
        Here: It is constant.
        Why: Any decay would be our invention.

    Reading (loss, the weight of L1): Its coefficient is 1, of a norm, a sum over pixels.
        Here: It is the mean over pixels, times 100.
        Why: A sum over 262,144 pixels would drown the adversarial loss, and a mean without a weight
            would drown in it. pix2pix has 100.
    """

    n_uniforms = 0
    name = "realistic"

    def __init__(
        self,
        config: Config,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        networks: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """
        Args:
            config: sizes and coefficients.
            seed: of the initial weights.
            device: where the networks are.
            networks: those of a stage before, to go on with; new ones by default.
        """
        self.config = config
        self.networks = dict(networks or make_networks(config, seed, self.name))
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, network in self.networks.items():
            network.to(device)
            self.optimizers[name] = torch.optim.Adam(
                network.parameters(), config.learning_rate, betas=(config.beta_1, config.beta_2)
            )

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("G", ("generator",), self.generator_loss)
        yield Phase("D", ("discriminator",), self.discriminator_loss)

    def seen_and_wanted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What G sees, and what it shall make of it: $I_b(x)$, twice."""
        blended = abnormal(_healthy_of(batch))
        return blended, blended

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        r"""G's side of Eq. (2), or (3): the adversarial loss and $\lambda$ times the L1 mean."""
        D, c = self.networks["discriminator"], self.config
        seen, wanted = self.seen_and_wanted(batch)
        fake = self.networks["generator"](seen)
        adversarial, l1 = non_saturating_generator_loss(D(fake)), (wanted - fake).abs().mean()
        return adversarial + c.lambda_l1 * l1, {"adversarial": adversarial, "L1": l1}

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """D's side, turned round and halved: real normal images against what G makes."""
        D = self.networks["discriminator"]
        with torch.no_grad():
            fake = self.networks["generator"](self.seen_and_wanted(batch)[0])
        real = normal(batch.image)
        return 0.5 * non_saturating_discriminator_loss(D(real), D(fake)), {}


def _healthy_of(batch: Batch) -> Tensor:
    if batch.healthy is None:
        raise ValueError("batch: expected one of pseudo-pairs, with healthy images, got none")
    return batch.healthy


class AbnormalToNormal(Realistic):
    r"""The G of the residual attention and its D, trained on Eq. (3).

    A batch is as in `Realistic`, with $G_{realistic}(I_b(x))$ as `healthy` of the abnormal images;
    see `made_realistic`.

    Reading (loss, normal images): "If the input is a normal image ... cGAN should act as an
        identity" (Section 2.1). Eq. (3) has no term for it.
        Here: The L1 mean of $y - G(y)$ over normal images is added, with half of the other's
            weight; 0 leaves it out.
        Why: Otherwise G never sees a normal image, and nothing says what it makes of one. CycleGAN
            has the same term with the same half.
    """

    name = "abnormal to normal"

    def seen_and_wanted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The abnormal images x, and $G_{realistic}(I_b(x))$."""
        return abnormal(batch.image), abnormal(_healthy_of(batch))

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """G's side of Eq. (3), and the identity on normal images."""
        loss, terms = super().generator_loss(batch)
        y = normal(batch.image)
        identity = (y - self.networks["generator"](y)).abs().mean()
        return loss + self.config.lambda_identity * identity, {**terms, "identity": identity}


class GRANet(AbnormalToNormal):
    r"""The detector, and the G of its attention, by turns: n epochs of the detector, m of G and its
    D; or all of them on every batch.

    A batch is as in `AbnormalToNormal`, and has the boxes of its images. The detector's backbone is
    a `nn.residual_attention.AttendedBackbone` with the residual of this very G.

    Reading (training, turns): Table 3 has "1:2" and the like, and the text an example of 2:2: the
        detector moves for two epochs while G is frozen, then G while the detector is "unchanged".
        Here: The first number is the detector's.
        Why: The example names the detector first.

    Reading (training, the detector in the epochs of G): The paper does not say whether G feels the
        detector's loss.
        Here: In its own epochs G moves on Eq. (3) and, with a weight of 1, on the loss of the
            frozen detector.
        Why: The paper sets the turns against "joint" training, in which both share a loss. Without
            it the turns would change nothing: G would learn as if there were no detector.

    Reading (training, the learning rate of 0.00001): Section 3.2 gives it for "the cGAN in the
        GRANet", together with a batch of six, the augmentations and the weights of a detector.
        Here: It is the detector's. G goes on with a tenth of its own rate.
        Why: All else in that sentence is of the detector whose configuration it says it follows.
    """

    def __init__(
        self,
        config: Config,
        detector: nn.Module,
        *,
        networks: Mapping[str, nn.Module],
        device: torch.device | str = "cpu",
        first: int = 0,
    ) -> None:
        """
        Args:
            config: sizes and coefficients.
            detector: such as `nn.retinanet.retinanet`.
            networks: `generator` and `discriminator`, trained on Eq. (3).
            device: where the networks are.
            first: label of the first class, see `data.box_targets.box_targets`.

        Raises:
            ValueError: a detector that attends to something else than this generator's residual.
        """
        attention = getattr(getattr(detector, "backbone", None), "attention", None)
        if getattr(attention, "generator", None) is not networks["generator"]:
            raise ValueError(
                "detector: expected one whose backbone attends to the residual of the generator "
                "that is trained with it, got another"
            )
        super().__init__(config, device=device, networks=networks)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = config.generator_learning_rate
        self.networks["detector"], self.first = detector.to(device), first
        self.optimizers["detector"] = torch.optim.Adam(
            detector.parameters(), config.detector_learning_rate
        )

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        c = self.config
        turn = epoch % (c.detector_epochs + c.generator_epochs)
        if c.joint or turn < c.detector_epochs:
            yield Phase(
                "detector", ("detector",), self.detection_loss, eval_mode=("generator",),
                max_norm=c.detector_max_norm,
            )  # fmt: skip
        if c.joint or turn >= c.detector_epochs:
            yield from super().phases(step, epoch)

    def detection_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The sum of torchvision's losses, and each of them."""
        detector = self.networks["detector"]
        found = detector(list(batch.image), box_targets(batch, first=self.first))
        return torch.stack(list(found.values())).sum(), dict(found)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (3), and what the frozen detector loses with the attention as it is."""
        loss, terms = super().generator_loss(batch)
        if not self.config.lambda_detection:
            return loss, terms
        with _still(self.networks["detector"]):
            detection, _ = self.detection_loss(batch)
        loss = loss + self.config.lambda_detection * detection
        return loss, {**terms, "detection": detection}


@contextmanager
def _still(network: nn.Module) -> Iterator[None]:
    """A network in training mode, in which torchvision's detectors give their losses, but for its
    batch norms and dropouts.
    """
    moving = [
        part for part in network.modules() if isinstance(part, _BatchNorm | _DropoutNd)
        and part.training
    ]  # fmt: skip
    for part in moving:
        part.eval()
    try:
        yield
    finally:
        for part in moving:
            part.train()


@torch.no_grad()
def translated(generator: nn.Module, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """G of images, in evaluation mode; the mode is put back."""
    with evaluating(generator):
        parts = [generator(part) for part in in_parts(images) if len(part)]
    return torch.cat(parts) if parts else images.clone()


def made_realistic(generator: nn.Module, pairs: DeviceStore) -> DeviceStore:
    r"""Pseudo-pairs with $G_{realistic}(I_b(x))$ in the place of $I_b(x)$; normal images stay their
    own.

    Args:
        generator: of `Realistic`, trained; on the pairs' device.
        pairs: of `data.pseudo_pairs.pseudo_normal_pairs`.

    Raises:
        ValueError: images without blended ones.
    """
    if pairs.healthy is None:
        raise ValueError("pairs: expected blended images as healthy ones, got none")
    ill = (pairs.label_vector.amax(1) > 0).nonzero()[:, 0]
    healthy = pairs.healthy.clone()
    for rows in ill.split(256):
        healthy[rows] = to_uint8(translated(generator, from_uint8(pairs.healthy[rows])))
    return replace(pairs, healthy=healthy)
