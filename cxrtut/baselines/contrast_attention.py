"""Contrast-induced attention: look where a radiograph differs from a normal one.

J. Liu, G. Zhao, Y. Fei et al., Align, Attend and Locate: Chest X-ray Diagnosis via Contrast Induced
Attention Network with Limited Supervision (CIA-Net), ICCV 2019.

Equations, by what they say
    The attention $A$: $|f(x_+) - f(x_-)|$, normalised    `contrast_attention`
    Attended features $A f$, patch logits by a 1x1 convolution    `ContrastAttention.loss`
    From patches to the image    `ContrastAttention.image_logits`
    The pairs    `NormalImages.partners`

Reading (training, what the rules follow): We have read the abstract and the account of Kim et al.
    (2021), but not the printed equations, so the map has no numbers.
    Here: The exact form of each rule is ours.
    Why: Neither text gives it.

Reading (training, boxes): Training also uses some boxes.
    Here: It uses the labels of images alone.
    Why: Our comparison is of weak supervision.

Reading (network, from patches to the image): The abstract does not say how patches make an image.
    Here: We take their "mean". The rule of Li et al. (`losses.noisy_or`), which goes with boxes, is
        "noisy-or".
    Why: Class activation maps take the mean. In noisy-or $p$ and $1 - p$ begin at 0.98, so without
        boxes many patches explain an image best, and maps spread.

Reading (network, alignment): Images are aligned within the network.
    Here: They come in aligned, by the aligner of the disease-masks paper.
    Why: The idea is the same. Without alignment, the contrast is mostly of poses.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cxrtut.data.average_hash import SIDE, average_hash, nearest
from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.losses.noisy_or import log_image_probability, log_normalised
from cxrtut.losses.weighted_bce import weighted_bce_loss
from cxrtut.nn.any_size import load_any_size
from cxrtut.nn.linear_head import linear_head
from cxrtut.nn.probability import probabilities

POOLING = ("mean", "noisy-or")


def contrast_attention(
    features: Float[Tensor, "B c h w"],
    partner: Float[Tensor, "#B c h w"],
    temperature: float | None = None,
) -> Float[Tensor, "B 1 h w"]:
    r"""A = d / max d with d_ij = sum_c |f - f_partner|: [0, 1], one where the two differ most.

    Features equal to their partner's have no attention anywhere, or with a temperature the same
    everywhere. The gradient flows through both.

    Reading (network, the size of A): The abstract does not say how $A$ is normalised.
        Here: The largest difference of an image becomes 1, for all channels together. With a
            temperature, $A$ is the softmax over places of the temperature times
            $(d - \bar d) / \max d$, again so that its largest value is 1.
        Why: $A$ should tell where an image differs, not how much. Code of the authors' group has
            the softmax, with a temperature of 1.5 or 5.

    Args:
        features: of the images.
        partner: of their partners.
        temperature: of the softmax; None takes none.
    """
    difference = (features - partner).abs().sum(1, keepdim=True)
    if temperature is not None:
        spread = difference - difference.mean((2, 3), keepdim=True)
        places = temperature * spread / _positive(difference.amax((2, 3), keepdim=True))
        difference = places.flatten(2).softmax(2).view_as(places)
    return difference / _positive(difference.amax((2, 3), keepdim=True))


def _positive(largest: Tensor) -> Tensor:
    return torch.where(largest == 0, torch.ones_like(largest), largest)


class NormalImages(nn.Module):
    """The normal images that are partners, in the buffer `image` (N, C, H, W), with their rows
    `row` (N,) and hashes `bits` (N, 256); N = 0 before there are any. A state of any size can be
    loaded, so that a file of weights and a checkpoint bring them back.
    """

    image: Float[Tensor, "N C H W"]
    row: Int[Tensor, "N"]
    bits: Bool[Tensor, "N n"]

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("image", torch.zeros(0, 1, SIDE, SIDE, device=device))
        self.register_buffer("row", torch.zeros(0, dtype=torch.int64, device=device))
        self.register_buffer("bits", average_hash(self.image))
        load_any_size(self)

    def keep(self, images: Float[Tensor, "N C H W"], rows: Int[Tensor, "N"]) -> None:
        """Takes images and their rows in place of those that were there."""
        self.image, self.row = images.detach(), rows.to(images.device)
        self.bits = average_hash(self.image)

    def partners(
        self, images: Float[Tensor, "B C H W"], rows: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """For each image the most similar normal one, by Hamming distance of average hashes.

        Args:
            images: of any kind.
            rows: of the images: none gets itself, unless there is no other.
        """
        own = None if rows is None else rows[:, None].to(self.row.device) == self.row
        return self.image[nearest(images, self.bits, own)]


class ContrastAttention:
    """A classifier of patches, on features that are attended where they differ from a normal one's.

    Networks: `classifier`, which moves; `normal`, the images that are partners, which has neither
    parameters nor an optimiser. A checkpoint holds both.
    """

    n_uniforms = 0

    def __init__(
        self,
        classifier: nn.Module,
        *,
        classes: tuple[str, ...],
        size: int,
        channels: int = 1,
        pooling: str = "mean",
        temperature: float | None = None,
        learning_rate: float = 1e-4,
    ) -> None:
        """
        Args:
            classifier: on its device: `features` (B, c, h, w), and `classifier`, a linear layer,
                which serves as the 1x1 convolution.
            classes: one for each logit.
            size: of the images, pixels.
            channels: of the images.
            pooling: see `image_logits`.
            temperature: see `contrast_attention`.
            learning_rate: of Adam.

        Raises:
            ValueError: no such pooling.
            TypeError: a classifier that does not end in one linear layer.
        """
        if pooling not in POOLING:
            raise ValueError(f"pooling: expected one of {POOLING}, got {pooling!r}")
        self.pooling, self.temperature = pooling, temperature
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {
            "classifier": classifier,
            "normal": NormalImages(linear_head(classifier).weight.device),
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("CIA", ("classifier",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Weighted cross-entropy of the images' logits, each image beside a similar normal one.

        Reading (training, the partner of an image): Kim et al. speak of "similar" images, but not
            of how they are found.
            Here: Every image, normal or not, gets the normal image that is nearest in a 16 x 16
                average hash, and never itself. Gradients flow through both.
            Why: Code of the authors' group pairs images in this way. The classifier also has to
                learn what is no disease.

        Raises:
            ValueError: there are no normal images.
        """
        partner = self._normal().partners(batch.image, batch.index)
        both = self._features(torch.cat((batch.image, partner)))  # one pass for the two
        features, beside = both.tensor_split((len(batch.image),))
        attention = contrast_attention(features, beside, self.temperature)
        logits = self.image_logits(self._patch_logits(features * attention))
        return weighted_bce_loss(logits, batch.label_vector), {"attention": attention.mean()}

    def set_normal_images(self, images: Float[Tensor, "N C H W"], rows: Int[Tensor, "n"]) -> None:
        """Keeps normal images as the partners of all others, aligned as those are; before training.

        Args:
            images: of training patients, on the device of the classifier.
            rows: of the images in their source, so that none is its own partner.

        Raises:
            ValueError: no images, or not a row for each.
        """
        if not len(images) or len(rows) != len(images):
            raise ValueError(
                "expected normal images, one at least, and a row for each, got "
                f"{len(images)} and {len(rows)}"
            )
        normal = self.networks["normal"]
        assert isinstance(normal, NormalImages)
        normal.keep(images, rows)

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """Probabilities, and the maps enlarged as heat maps; see `maps_and_logits`."""
        maps, logits = self.maps_and_logits(images)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(logits), heatmap=heatmap_from_maps(maps, (height, width))
        )

    def probability_maps(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """The patch probabilities; see `evaluation.region_rule`."""
        return self.maps_and_logits(images)[0].sigmoid()

    @torch.no_grad()
    def maps_and_logits(
        self, images: Float[Tensor, "N C H W"]
    ) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K"]]:
        """Patch logits as maps, and the images' logits, each image beside the most similar normal
        one. Evaluation mode; the mode is put back.

        Reading (evaluation, the partner at diagnosis): The abstract does not say which normal image
            an unknown one is compared with.
            Here: It is the most similar one, as in training.
            Why: The network has learnt to read differences of one image to another.

        Raises:
            ValueError: there are no normal images, or they are of another size.
        """
        normal = self._normal()
        if normal.image.shape[1:] != images.shape[1:]:
            raise ValueError(
                "images: expected the shape of the normal images, "
                f"{tuple(normal.image.shape[1:])}, got {tuple(images.shape[1:])}"
            )
        with evaluating(self.networks["classifier"]):
            parts = [
                self._maps_and_logits(part, normal.partners(part)) for part in in_parts(images)
            ]
        maps, logits = zip(*parts, strict=True)
        return torch.cat(maps), torch.cat(logits)

    def _maps_and_logits(self, images: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
        features, beside = self._features(images), self._features(partners)
        attention = contrast_attention(features, beside, self.temperature)
        patch_logits = self._patch_logits(features * attention)
        return patch_logits, self.image_logits(patch_logits)

    def image_logits(self, patch_logits: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K"]:
        """The mean of the patches; or log P - log(1 - P), where P is noisy-or of the normalised
        patch probabilities: at most 1 - 0.98^(h w), 0.73 at 8 x 8 places and 0.994 at 16 x 16.
        """
        if self.pooling == "mean":
            return patch_logits.mean((2, 3))
        _, log_absent = log_normalised(patch_logits)
        log_some, log_none = log_image_probability(log_absent)
        return log_some - log_none

    def _normal(self) -> NormalImages:
        normal = self.networks["normal"]
        assert isinstance(normal, NormalImages)
        if not len(normal.image):
            raise ValueError(
                "expected normal images to compare with: call set_normal_images before"
            )
        return normal

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.networks["classifier"].get_submodule("features")(images)
        return features.float()

    def _patch_logits(self, attended: Tensor) -> Tensor:
        linear = linear_head(self.networks["classifier"])
        maps = class_activation_map(attended, linear.weight).float()
        return maps if linear.bias is None else maps + linear.bias.float()[:, None, None]
