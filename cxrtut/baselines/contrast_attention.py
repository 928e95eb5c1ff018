"""Contrast-induced attention: look where a radiograph differs from a normal one.

J. Liu, G. Zhao, Y. Fei et al., Align, Attend and Locate: Chest X-ray Diagnosis via Contrast Induced
Attention Network with Limited Supervision (CIA-Net), ICCV 2019.

Equations, by what they say
    The attention $A$: $|f(x_+) - f(x_-)|$, normalised    `contrast_attention`
    Attended features $A f$, patch logits by a 1x1 convolution    `ContrastAttention.loss`
    From patches to the image    `ContrastAttention.image_logits`
    The pairs    `normal_partners`

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

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.losses.noisy_or import log_image_probability, log_normalised
from cxrtut.losses.weighted_bce import weighted_bce_loss
from cxrtut.nn.probability import probabilities

POOLING = ("mean", "noisy-or")


def normal_partners(
    label_vector: Float[Tensor, "B K"],
) -> tuple[Int[Tensor, " B"], Bool[Tensor, " B"]]:
    """For each image the row of a normal one in the batch, and whether there is one.

    Abnormal images take the normal ones in turn; a normal image takes the next, never itself.
    Where there is none (no normal image, or it is the only one) the row means nothing. Nothing is
    read back from the device.
    """
    abnormal = label_vector.amax(1) > 0
    order = abnormal.int().argsort(stable=True)  # the normal rows, then the abnormal ones
    position = order.argsort()
    n_normal = (~abnormal).sum()
    chosen = (position + (~abnormal).int()) % n_normal.clamp_min(1)
    return order[chosen], n_normal > (~abnormal).int()


def contrast_attention(
    features: Float[Tensor, "B c h w"], partner: Float[Tensor, "#B c h w"]
) -> Float[Tensor, "B 1 h w"]:
    """A = d / max d with d_ij = sum_c |f - f_partner|: [0, 1], one where the two differ most.

    Features equal to their partner's have no attention anywhere. The gradient flows through both.

    Reading (network, the size of A): The abstract does not say how $A$ is normalised.
        Here: The largest difference of an image becomes 1, for all channels together.
        Why: $A$ should tell where an image differs, not how much.
    """
    difference = (features - partner).abs().sum(1, keepdim=True)
    largest = difference.amax((2, 3), keepdim=True)
    return difference / torch.where(largest == 0, torch.ones_like(largest), largest)


class Reference(nn.Module):
    """The mean feature map of normal images, in the buffer `mean` (1, c, h, w); h = w = 0 before
    there is one. A state of any size can be loaded, so that a checkpoint restores it.
    """

    mean: Tensor

    def __init__(self, channels: int, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 0, 0, device=device))
        self.register_load_state_dict_pre_hook(_take_the_size)


def _take_the_size(
    module: nn.Module, state: Mapping[str, Any], prefix: str, *unused: object
) -> None:
    """Makes room for the mean that is about to be loaded."""
    assert isinstance(module, Reference)
    if (saved := state.get(f"{prefix}mean")) is not None:
        module.mean = module.mean.new_zeros(saved.shape)


class ContrastAttention:
    """A classifier of patches, on features that are attended where they differ from a normal one's.

    Networks: `classifier`, which moves; `reference`, the normal features for `maps_and_logits`,
    which has neither parameters nor an optimiser. A checkpoint holds both.
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
            learning_rate: of Adam.

        Raises:
            ValueError: no such pooling.
            TypeError: a classifier that does not end in one linear layer.
        """
        if pooling not in POOLING:
            raise ValueError(f"pooling: expected one of {POOLING}, got {pooling!r}")
        last = classifier.get_submodule("classifier")
        if not isinstance(last, nn.Linear):
            raise TypeError(f"classifier.classifier: expected nn.Linear, got {type(last).__name__}")
        self.pooling = pooling
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {
            "classifier": classifier,
            "reference": Reference(last.in_features, last.weight.device),
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("CIA", ("classifier",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Weighted cross-entropy of the images' logits, each image beside a normal one of the
        batch; beside the mean of the batch where there is no other normal image.

        Reading (training, the partner of an image): Kim et al. speak of "similar" images, but not
            of how they are found.
            Here: Every image, normal or not, gets another normal one of its batch, similar or not.
                Gradients flow through both.
            Why: Aligned images are alike in pose. The classifier also has to learn what is no
                disease.
        """
        features = self._features(batch.image)
        row, there = normal_partners(batch.label_vector)
        partner = torch.where(
            there[:, None, None, None], features[row], features.mean(0, keepdim=True)
        )
        attention = contrast_attention(features, partner)
        logits = self.image_logits(self._patch_logits(features * attention))
        return weighted_bce_loss(logits, batch.label_vector), {"attention": attention.mean()}

    @torch.no_grad()
    def set_reference(self, normal_images: Float[Tensor, "N C H W"], batch_size: int = 64) -> None:
        """Keeps the mean features of normal images, aligned as those that will be read, as the
        partner of every image in `maps_and_logits`. Evaluation mode; the mode is put back.

        They are the features of the classifier as it is now: call this after training.

        Reading (evaluation, the partner at diagnosis): The abstract does not say which normal image
            an unknown one is compared with.
            Here: We take the mean of many.
            Why: A mean does not bring in one patient's anatomy.

        Raises:
            ValueError: no images.
        """
        if not len(normal_images):
            raise ValueError("normal_images: expected at least one, got none")
        total: Tensor | float = 0.0
        with evaluating(self.networks["classifier"]):
            for part in normal_images.split(batch_size):
                total = total + self._features(part).sum(0, keepdim=True)
        reference = self.networks["reference"]
        assert isinstance(reference, Reference) and isinstance(total, Tensor)
        reference.mean = total / len(normal_images)

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """Probabilities, and the maps enlarged as heat maps; see `maps_and_logits`."""
        maps, logits = self.maps_and_logits(images)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(logits), heatmap=heatmap_from_maps(maps, (height, width))
        )

    @torch.no_grad()
    def maps_and_logits(
        self, images: Float[Tensor, "N C H W"], batch_size: int = 64
    ) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K"]]:
        """Patch logits as maps, and the images' logits, each image beside the reference.
        Evaluation mode; the mode is put back.

        Raises:
            ValueError: there is no reference, or it is of images of another size.
        """
        reference = self.networks["reference"]
        assert isinstance(reference, Reference)
        if not reference.mean.numel():
            raise ValueError("expected a reference of normal images: call set_reference before")
        with evaluating(self.networks["classifier"]):
            parts = [
                self._maps_and_logits(part, reference.mean) for part in images.split(batch_size)
            ]
        maps, logits = zip(*parts, strict=True)
        return torch.cat(maps), torch.cat(logits)

    def _maps_and_logits(self, images: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        features = self._features(images)
        if features.shape[1:] != normal.shape[1:]:
            raise ValueError(
                f"images: expected features of the reference's {tuple(normal.shape[1:])}, "
                f"got {tuple(features.shape[1:])}"
            )
        patch_logits = self._patch_logits(features * contrast_attention(features, normal))
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

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.networks["classifier"].get_submodule("features")(images)
        return features.float()

    def _patch_logits(self, attended: Tensor) -> Tensor:
        linear = self.networks["classifier"].get_submodule("classifier")
        assert isinstance(linear, nn.Linear)
        maps = class_activation_map(attended, linear.weight).float()
        return maps if linear.bias is None else maps + linear.bias.float()[:, None, None]
