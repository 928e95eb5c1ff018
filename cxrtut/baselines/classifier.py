"""A classifier of images, to look into: the comparators CAM and Grad-CAM begin with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch
from cxrtut.engine.schedules import constant
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating


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


@torch.no_grad()
def predict(
    classifier: nn.Module, images: Float[Tensor, "N C H W"], batch_size: int = 64
) -> Float[Tensor, "N K"]:
    """Logits in evaluation mode; the mode is put back."""
    with evaluating(classifier):
        return torch.cat([classifier(part) for part in images.split(batch_size)]).float()
