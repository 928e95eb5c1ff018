"""A classifier of images, to look into by class activation maps (CAM, Grad-CAM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.schedules import constant
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.gradcam import grad_cam
from cxrtut.localize.heatmap import resize_heatmap
from cxrtut.nn.probability import probabilities


class BinaryClassifierTask:
    """Two logits, normal and abnormal, trained on cross-entropy: Section 3.3 of Zhang et al.
    (MICCAI 2019).
    """

    n_uniforms = 0

    def __init__(
        self,
        classifier: nn.Module,
        *,
        learning_rate: float = 2e-4,
        rate: Callable[[int], float] = constant,
    ) -> None:
        """
        Args:
            classifier: images to logits (B, 2), on its device.
            learning_rate: of Adam.
            rate: its factor at each step; see `engine.schedules`.
        """
        self.rate = rate
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss)

    def schedule(self, step: int) -> dict[str, float]:
        return {"classifier": self.rate(step)}

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """-mean log softmax(C(x))[label], label 1 where any disease is there."""
        logits = self.networks["classifier"](batch.image).float()
        label = batch.label_vector.amax(1).long()
        right = (logits.argmax(1) == label).float().mean()
        return F.cross_entropy(logits, label), {"accuracy": right}


class MultiLabelTask:
    """A logit for each disease, trained on binary cross-entropy."""

    n_uniforms = 0

    def __init__(
        self,
        classifier: nn.Module,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.02,
        rate: Callable[[int], float] = constant,
    ) -> None:
        """
        Args:
            classifier: images to logits (B, K), on its device.
            learning_rate: of AdamW.
            weight_decay: of AdamW.
            rate: the factor of the learning rate at each step; see `engine.schedules`.
        """
        self.rate = rate
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.AdamW(
                classifier.parameters(), learning_rate, weight_decay=weight_decay
            )
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss)

    def schedule(self, step: int) -> dict[str, float]:
        return {"classifier": self.rate(step)}

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Mean over images and diseases of -y log σ(z) - (1 - y) log(1 - σ(z))."""
        logits = self.networks["classifier"](batch.image).float()
        return F.binary_cross_entropy_with_logits(logits, batch.label_vector), {}


class ActivationMaps:
    """A classifier of normal and abnormal images as a system: its probability of "abnormal", and
    CAM or Grad-CAM of that class.

    Networks: `classifier`.
    """

    def __init__(
        self,
        classifier: nn.Module,
        classes: tuple[str, ...],
        *,
        size: int,
        channels: int,
        layer: str | None = None,
    ) -> None:
        """
        Args:
            classifier: images to logits (B, 2). For CAM, `features` gives (B, c, h, w) and
                `classifier` is one linear layer on their mean.
            classes: the diseases that it calls abnormal; they share one heat map.
            size: of the images, pixels.
            channels: of the images.
            layer: where Grad-CAM looks, a name within `classifier.features`; None is CAM.
        """
        self.classes = classes if len(classes) == 1 else ("any of " + ", ".join(classes),)
        self.size, self.channels, self.layer = size, channels, layer
        self.networks: dict[str, nn.Module] = {"classifier": classifier}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The heat map is S - min S of CAM, in logits; Grad-CAM has no negative values as it is."""
        parts = [self._predict(part) for part in in_parts(images)]
        scores, maps = (torch.cat(found) for found in zip(*parts, strict=True))
        return Prediction(scores=scores, heatmap=maps)

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network, size = self.networks["classifier"], (images.shape[-2], images.shape[-1])
        features = network.get_submodule("features")
        if self.layer is None:
            linear = network.get_submodule("classifier")
            assert isinstance(linear, nn.Linear)
            with evaluating(network), torch.no_grad():
                last = features(images)  # once, for the logits and the map
                logits = linear(last.mean((2, 3))).float()
                maps = class_activation_map(last, linear.weight)[:, 1:2]
        else:
            logits = logits_of(network, images)
            abnormal = torch.ones(len(images), dtype=torch.int64, device=images.device)
            layer = features.get_submodule(self.layer)
            with evaluating(network):
                maps = grad_cam(network, layer, images, abnormal)[:, None]
        scores = probabilities((logits[:, 1] - logits[:, 0])[:, None])
        heat = resize_heatmap(maps[:, 0], size)[:, None]
        return scores, heat - heat.amin((2, 3), keepdim=True).clamp_max(0)


@torch.no_grad()
def logits_of(classifier: nn.Module, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
    """Logits in evaluation mode; the mode is put back."""
    with evaluating(classifier):
        return torch.cat([classifier(part) for part in in_parts(images)]).float()
