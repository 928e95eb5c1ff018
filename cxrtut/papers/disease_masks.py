r"""Weakly supervised localisation of thoracic diseases by disease masks.

H.-W. Kim, H.-G. Jung, S.-W. Lee, Weakly Supervised Thoracic Disease Localization via Disease Masks,
arXiv:2101.09915, 2021.

Equations
    (1)  $S_c = \sum_k w_k^c f_k$    `localize.cam.class_activation_map`
    (2)  $P_c = \mathrm{Sigmoid}(\sum_{i,j} S_c^{i,j})$    `MaskAttention.forward`
    (3)  $\psi_c = T(\frac{1}{N_c} \sum_d N(\bar L_c^d))$, where $\bar L_c^d = H(L_c^d) + L_c^d$, or
         $L_c^d$ for the asymmetric class    `disease_mask`, `select_confident`
    (4)  $f' = \psi \cdot f + f$    `attended_features`
    (5)  $\hat S_c = \sum_k w_k^c f'_k$    `MaskAttention.maps`
    (6)  $\varphi(I) = B(G(\begin{bmatrix} s_x \cos\theta & -s_y \sin\theta & t_x \\
         s_x \sin\theta & s_y \cos\theta & t_y \end{bmatrix} I))$
         `smooth`, `warp`, `nn.spatial_transformer.five_parameter_matrix`
    (7)  $L_p = \sum_s \frac{1}{C^s H^s W^s} \|F_s(A) - F_s(\varphi(I))\|_2$
         `losses.perceptual.perceptual_loss`
    (8)  $L_e = \sum_{i,j} \|A^{i,j} - \varphi(I)^{i,j}\|_2$    `losses.perceptual.euclidean_loss`
    (9)  $L_{total} = L_e + L_p$    `Alignment.loss`
    (10) $L_{WCE} = \omega_P \sum_{y \in P} -\ln M(x) + \omega_N \sum_{y \in N} -\ln(1 - M(x))$
         `losses.weighted_bce`, `Classification.loss`
Steps
    Section 4.2, ResNet-50 on the images, and again on aligned ones    `Classification`
    Section 3.2, alignment    `anchor_image`, `Alignment`, `nn.spatial_transformer.align`
    Section 3.1.1, the masks    `disease_mask`
    Section 3.1.2, retraining with the masks    `Classification`, `MaskAttention.masks`
    Section 4.3, maps to boxes    `MaskedClassifier`, `baselines.aligned.Aligned`, `boxes_from_heat`
    Section 4.4, masks drawn by hand    `localize.location_priors.pseudo_masks`

Reading (data, grey images): Images are $P \times P \times 3$, a grey image three times.
    Here: They have one channel, and ImageNet's first weights are summed over the colours.
    Why: One channel can do everything that three equal ones can.

Reading (network, other classes): There are 14 classes (Table 3), but masks for eight (Fig. 3).
    Here: The other six have no mask, so their maps stay as they are.
    Why: Nothing is said of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.boxes import Scored, largest_component_box, threshold_relative
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps, normalise
from cxrtut.losses.perceptual import euclidean_loss, perceptual_loss
from cxrtut.losses.weighted_bce import weighted_bce_loss
from cxrtut.nn.backbones import ResNet10, ResNet18, ResNet50, stages
from cxrtut.nn.probability import probabilities
from cxrtut.nn.spatial_transformer import SpatialTransformer, warp
from cxrtut.randomness import seeded

MASKED = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax",
)  # fmt: skip
"""The classes that have masks: those of Fig. 3."""
ASYMMETRIC = "Cardiomegaly"  # m of Eq. (3)
ANCHOR_FEATURES = ("anchor", "mean")
RANGES = {
    "classifier_width": (1, math.inf), "anchor_images": (1, math.inf), "epochs": (0, math.inf),
    "alignment_epochs": (0, math.inf), "fewest": (0, math.inf), "min_probability": (0, 1),
    "mask_threshold": (0, 1), "box_threshold": (0, 1 - 1e-6),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """The paper's values with their section; † where the paper is silent and we had to choose."""

    size: int = 512  # 4.1
    channels: int = 1  # see the module
    classifier_layers: int = 50  # 4.2: ResNet-50; 10 on a CPU
    classifier_width: int = 16  # † of the classifier with 10 layers
    stride: int = 32  # of the classifier's last feature map; ResNet-50 has 32
    imagenet: bool = True  # † ResNet-50 begins with ImageNet's weights
    grid_size: int = 32  # 3.2: average pooling by 16 of 512 px leaves 32 x 32
    anchor_images: int = 2000  # 3.2
    bounded: bool = True  # † see `nn.spatial_transformer.SpatialTransformer`
    anchor_features: str = "anchor"  # † or "mean", see `Alignment`
    lambda_p: float = 1.0  # Eq. (9)
    lambda_e: float = 1.0  # Eq. (9)
    alignment_epochs: float = 5.0  # 4.2
    alignment_batch_size: int = 16  # 4.2
    alignment_learning_rate: float = 1e-3  # 4.2, SGD
    momentum: float = 0.9  # †
    epochs: float = 5.0  # 4.2, on the images, on aligned ones, and again with the masks
    batch_size: int = 32  # 4.2
    learning_rate: float = 1e-4  # 4.2, Adam
    min_probability: float = 0.8  # 3.1.1
    fewest: int = 20  # † maps for a mask, see `select_confident`
    mask_threshold: float = 0.5  # † of T(.)
    box_threshold: float = 180 / 255  # † 4.3: "the predefined threshold presented in [18, 37]"

    def __post_init__(self) -> None:
        if self.classifier_layers not in (10, 50):
            raise ValueError(f"classifier_layers: expected 10 or 50, got {self.classifier_layers}")
        strides = (32,) if self.classifier_layers == 50 else (2, 4, 8, 16)
        if self.stride not in strides:
            raise ValueError(
                f"stride: expected one of {strides} with {self.classifier_layers} layers, "
                f"got {self.stride}"
            )
        if self.anchor_features not in ANCHOR_FEATURES:
            raise ValueError(
                f"anchor_features: expected one of {ANCHOR_FEATURES}, got {self.anchor_features!r}"
            )
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: expected {low} to {high}, got {getattr(self, name)}")
        for name in ("stride", "grid_size"):
            if self.size % getattr(self, name):
                raise ValueError(
                    f"{name}: expected a divisor of the size {self.size}, got {getattr(self, name)}"
                )


PAPER = Config()
# One T4, about half an hour: the paper's networks at half the size.
COLAB = Config(size=256, anchor_images=1000, alignment_epochs=2.0, epochs=2.0)
# Two CPU cores, about five minutes for all stages on 8,192 simulated images: small networks, whose
# last feature map has 8 x 8 cells.
SMOKE = Config(
    size=64, classifier_layers=10, stride=8, imagenet=False, anchor_images=1000,
    alignment_epochs=2.0, alignment_learning_rate=0.01, epochs=4.0, learning_rate=1e-3,
)  # fmt: skip


class MaskAttention(nn.Module):
    r"""A classifier whose features are weighted by a mask for each class, at first by none.

    Reading (network, sum or mean): Eq. (2) sums a map and calls this "global averaging pooling".
        Here: We take the mean, and add the bias, which Eq. (1) leaves out of the map.
        Why: The sum over 16 × 16 cells is 256 times as large; $P_c \geq 0.8$ would mean nothing.

    Reading (network, a mask per class): Eq. (3) has a $\psi_c$ per class, Eq. (4) a single $\psi$.
        Here: Each class has its own $f'$. Maps are linear in the features, so no copies are needed:
            $\hat S_c = (1 + \psi_c) S_c$. `shared` makes a joint $\psi$ instead.
        Why: Each class then keeps the mask that was made for it.

    Reading (network, deactivation): Masks are to "deactivate the parts with a lower probability".
        Here: We compute Eq. (4) as printed.
        Why: Because of $+ f$ it does not: such parts keep the factor 1, the others get up to 2.
    """

    masks: Float[Tensor, "K h w"]

    def __init__(self, backbone: ResNet10 | ResNet18 | ResNet50, grid_size: int) -> None:
        """
        Args:
            backbone: its features and its linear layer are taken over.
            grid_size: height and width of the last feature map.
        """
        super().__init__()
        self.features, self.classifier = backbone.features, backbone.classifier
        n_classes = self.classifier.out_features
        self.register_buffer("masks", torch.zeros(n_classes, grid_size, grid_size))

    def maps(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """Eqs. (4) and (5): Ŝ_c = Σ_k w_k^c (1 + ψ_c) f_k = (1 + ψ_c) S_c."""
        features = self.features(image)
        return (1 + self.masks) * class_activation_map(features, self.classifier.weight)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits: the mean of each map, and the bias."""
        return self.maps(image).mean((2, 3)) + self.classifier.bias


def attended_features(
    features: Float[Tensor, "B c h w"], mask: Float[Tensor, "h w"]
) -> Float[Tensor, "B c h w"]:
    """Eq. (4), f' = ψ f + f, for one class. `MaskAttention.maps` gives the same map without it."""
    return mask * features + features


def make_classifier(config: Config, n_classes: int, seed: int) -> MaskAttention:
    """ResNet-50, or ten layers at the CPU's size, without masks.

    Raises:
        ConnectionError: ImageNet's weights are not here and cannot be fetched.
    """
    with seeded("disease masks, classifier", seed):
        backbone = (
            ResNet50(config.channels, n_classes, imagenet=config.imagenet)
            if config.classifier_layers == 50
            else ResNet10(config.channels, config.classifier_width, n_classes, config.stride)
        )
    return MaskAttention(backbone, config.size // config.stride)


def make_aligner(config: Config, seed: int) -> SpatialTransformer:
    """ResNet-18 with five outputs (Section 3.2), or ten layers at the CPU's size.

    Reading (network, five numbers): How the ResNet-18 "outputs five parameters" is not said.
        Here: A hidden layer has 256 units, and the last layer starts at the identity.
        Why: Training then begins with the images as they are.
    """
    with seeded("disease masks, aligner", seed):
        if config.classifier_layers == 50:
            trunk, n = ResNet18(config.channels).features, 512
        else:
            width = config.classifier_width
            trunk, n = ResNet10(config.channels, width, stride=8).features, 8 * width
        return SpatialTransformer(trunk, n, bounded=config.bounded)


def smooth(image: Float[Tensor, "B C H W"], grid_size: int) -> Float[Tensor, "B C H W"]:
    """B(G(image)) of Eq. (6): average pooling to a grid, then bilinear to the size before.

    "A kernel size of 16 and stride of 16" at 512 px leaves a grid of 32 x 32.
    """
    height, width = image.shape[-2:]
    precise = image.to(torch.promote_types(image.dtype, torch.float32))
    pooled = F.avg_pool2d(precise, (height // grid_size, width // grid_size))
    blurred = F.interpolate(pooled, (height, width), mode="bilinear", align_corners=False)
    return blurred.to(image.dtype)


def anchor_image(normal: Float[Tensor, "N C H W"]) -> Float[Tensor, "1 C H W"]:
    """A: "the average of 2,000 normal random samples" (Section 3.2).

    Raises:
        ValueError: no images.
    """
    if not len(normal):
        raise ValueError("expected normal images for the anchor, got none")
    return normal.mean(0, keepdim=True)


class Alignment:
    r"""Trains the aligner to make every image look like the anchor, Eqs. (6) to (9).

    Reading (network, blurred or sharp): Eq. (6) calls the pooled and enlarged image $\varphi(I)$.
        Here: $B(G(\cdot))$ serves this loss alone; the classifier gets the sharp image.
        Why: Fig. 4 shows sharp images.

    Reading (network, whose features): Eq. (7) takes "a ResNet-50 model pretrained on the
        ChestX-ray14 dataset".
        Here: It is the classifier of the images as they are, frozen.
        Why: The paper describes no other.

    Reading (loss, a blurred anchor): Eq. (7) compares with the features of the anchor.
        Here: So do we. `Config.anchor_features` "mean" has the mean features of smoothed images.
        Why: No image is as blurred as the anchor, so that the other choice may be the better one.
    """

    n_uniforms = 0

    def __init__(
        self,
        config: Config,
        classifier: MaskAttention,
        anchor: Float[Tensor, "1 C H W"],
        *,
        anchor_features: Sequence[Tensor] | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            config: of the run.
            classifier: whose stages give the features; a frozen copy is kept.
            anchor: from `anchor_image`.
            anchor_features: for Eq. (7), one of each stage; by default those of the anchor.
            seed: of the initial weights.
            device: where everything is.
        """
        self.config = config
        aligner = make_aligner(config, seed).to(device)
        self.networks: dict[str, nn.Module] = {"aligner": aligner}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "aligner": torch.optim.SGD(
                aligner.parameters(), config.alignment_learning_rate, momentum=config.momentum
            )
        }
        self.features = copy.deepcopy(classifier.features).to(device)
        self.features.eval().requires_grad_(False)
        self.anchor = anchor.to(device)
        if anchor_features is None:
            with torch.no_grad():
                anchor_features = stages(self.features, self.anchor)
        self.anchor_features = [layer.to(device) for layer in anchor_features]

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("align", ("aligner",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (9): λ_e L_e + λ_p L_p of the warped, smoothed image and the anchor."""
        c = self.config
        matrix = self.networks["aligner"](batch.image)
        phi = smooth(warp(batch.image, matrix), c.grid_size)
        l_e = euclidean_loss(self.anchor, phi)
        l_p = perceptual_loss(self.anchor_features, stages(self.features, phi))
        return c.lambda_e * l_e + c.lambda_p * l_p, {"L_e": l_e, "L_p": l_p}


class Classification:
    """Trains a classifier, with or without masks, on Eq. (10): three times in a run of the paper.

    Reading (data, augmentation): No augmentation is mentioned.
        Here: We do none.
        Why: Mirrored images would contradict the asymmetric mask.
    """

    n_uniforms = 0

    def __init__(self, config: Config, classifier: MaskAttention) -> None:
        """
        Args:
            config: of the run.
            classifier: on its device; its masks are not trained.
        """
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), config.learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (10) on logits; see `losses.weighted_bce`."""
        logits = self.networks["classifier"](batch.image).float()
        return weighted_bce_loss(logits, batch.label_vector), {}


def select_confident(
    probability: Float[Tensor, " N"],
    positive: Float[Tensor, " N"],
    *,
    min_probability: float = 0.8,
    fewest: int = 20,
) -> Int[Tensor, " n"]:
    """Rows of the training images whose maps of a class go into its mask, the surest first.

    Reading (training, confident images): "Dropping images" with $P_c(x) < 0.8$ asks for no label.
        Here: We ask for it. If fewer than `fewest` pass, we take the `fewest` surest positives, or
            all there are.
        Why: The map of a false positive shows something else, and every class should get a mask.
    """
    surest = torch.where(positive > 0, probability, -1.0).argsort(descending=True, stable=True)
    n_positive = int((positive > 0).sum())
    n_sure = int(((positive > 0) & (probability >= min_probability)).sum())
    return surest[: max(n_sure, min(fewest, n_positive))]


def disease_mask(
    maps: Float[Tensor, "n h w"], *, symmetric: bool, threshold: float = 0.5
) -> Float[Tensor, "h w"]:
    """Eq. (3): ψ_c = T(mean N(L̄)), L̄ = H(L) + L, or L alone for the asymmetric class.

    N brings each map to [0, 1]. The flip H makes sense only where the midline of the chest is the
    midline of the image.

    Reading (network, the threshold T): "A thresholding function" $T$ is not given.
        Here: The mean is divided by its maximum, and values below `threshold` become 0. The others
            stay, or become 1 with `binary`.
        Why: The paper contrasts its "spatial probability" with masks of 0 and 1.

    Args:
        maps: S_c of the chosen images; none give a mask of zeros.
        symmetric: seven of the paper's eight classes are; cardiomegaly is not.
        threshold: of T, in [0, 1].
    """
    if not len(maps):
        return maps.new_zeros(maps.shape[1:])
    mean = normalise(maps + maps.flip(-1) if symmetric else maps).mean(0)
    mean = mean / mean.amax().clamp_min(1e-12)
    return torch.where(mean >= threshold, mean, torch.zeros_like(mean))


def binary(masks: Float[Tensor, "K h w"]) -> Float[Tensor, "K h w"]:
    """The masks with 1 wherever they are above 0."""
    return (masks > 0).to(masks.dtype)


def shared(masks: Float[Tensor, "K h w"]) -> Float[Tensor, "K h w"]:
    """The mean of the masks that are not empty, for every class, those without a mask of their own
    included: one f' for all (Eq. (4)).
    """
    full = masks.flatten(1).any(1).sum().clamp_min(1)
    return (masks.sum(0) / full).expand_as(masks).clone()


@torch.no_grad()
def maps_and_logits(
    classifier: MaskAttention, images: Float[Tensor, "N C H W"]
) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K"]]:
    """Maps Ŝ and logits, in evaluation mode; the mode is put back."""
    with evaluating(classifier):
        maps = torch.cat([classifier.maps(part) for part in in_parts(images)]).float()
    return maps, maps.mean((2, 3)) + classifier.classifier.bias


class MaskedClassifier:
    """A classifier with masks (or none) as a system: Ŝ of Eq. (5) enlarged as heat maps.

    Networks: `classifier`.
    """

    def __init__(self, config: Config, classes: tuple[str, ...], classifier: MaskAttention) -> None:
        """
        Args:
            config: of the run; its size and channels are those of the images.
            classes: one for each logit.
            classifier: trained, or about to be.
        """
        self.classes, self.size, self.channels = classes, config.size, config.channels
        self.classifier = classifier
        self.networks: dict[str, nn.Module] = {"classifier": classifier}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """Probabilities of Eq. (2), and the maps enlarged as heat maps."""
        maps, logits = maps_and_logits(self.classifier, images)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(logits), heatmap=heatmap_from_maps(maps, (height, width))
        )


def boxes_from_heat(heat: Float[Tensor, "B H W"], threshold: float = 180 / 255) -> list[Scored]:
    """The box around the largest region above `threshold` times the map's maximum, one of each
    image.

    Reading (evaluation, from map to box): Maps are cut at "the predefined threshold presented in
        [18, 37]". [18] cuts [0, 255] at 60 and at 180 and boxes every region. We have not seen
        [37].
        Here: We cut at 180 and box the largest 8-connected region; the rule of [18] is reported
            too.
        Why: Fig. 6 shows one box per map.
    """
    return largest_component_box(threshold_relative(heat, threshold), heat)


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Steps of so many epochs, at least one."""
    return max(1, math.floor(epochs * (images // batch_size)))
