r"""CheXNet: DenseNet-121 as a classifier of pneumonia, looked into by class activation maps.

P. Rajpurkar, J. Irvin, K. Zhu et al., CheXNet: Radiologist-Level Pneumonia Detection on Chest
X-Rays with Deep Learning, 2017 (arXiv 1711.05225).

Equations, by what they say
    Section 2.1, the weighted cross-entropy
         $L(X, y) = -w_+ y \log p(Y = 1 | X) - w_- (1 - y) \log p(Y = 0 | X)$    `CheXNet.loss`
    Section 2.1, $w_+ = |N| / (|P| + |N|)$, $w_- = |P| / (|P| + |N|)$    `class_weights`
    Section 2.2, DenseNet-121    `nn.backbones.DenseNet`
    Section 6.1, $M_c = \sum_k w_{c,k} f_k$    `localize.cam.class_activation_map`

Reading (network, one output or two): The network has one output, a sigmoid behind it.
    Here: It has two, healthy and diseased, and a softmax behind them.
    Why: The two are the same function; a map can be taken of either class.

Reading (training, where it begins): The network begins with the weights that it has learnt on
    ImageNet and is trained at a rate of 0.001, divided by 10 when the validation loss stalls.
    Here: It begins with random weights, at a constant rate.
    Why: No system of this comparison has seen other images than those of the training split, and
        0.001 is too much for 121 layers of random weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch
from cxrtut.engine.task import Phase, Terms


def class_weights(n_healthy: int, n_diseased: int) -> Float[Tensor, "2"]:
    """(w_-, w_+) = (P, N) / (P + N), for N healthy and P diseased images: both classes weigh the
    same together, however many images they have.

    Raises:
        ValueError: a class without images.
    """
    if min(n_healthy, n_diseased) < 1:
        raise ValueError(f"expected images of both kinds, got {n_healthy} and {n_diseased}")
    return torch.tensor([n_diseased, n_healthy]) / (n_healthy + n_diseased)


class CheXNet:
    """A classifier with two logits, trained on the weighted cross-entropy.

    Networks: `classifier`.
    """

    n_uniforms = 0

    def __init__(
        self, classifier: nn.Module, weights: Float[Tensor, "2"], *, learning_rate: float = 1e-3
    ) -> None:
        """
        Args:
            classifier: images to logits (B, 2), such as `nn.backbones.DenseNet`; on its device.
            weights: see `class_weights`.
            learning_rate: of Adam.
        """
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.weights = weights.to(next(classifier.parameters()).device)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The mean of L(X, y) over the images, y = 1 where any disease is there."""
        logits = self.networks["classifier"](batch.image).float()
        label = batch.label_vector.amax(1).long()
        each = F.cross_entropy(logits, label, weight=self.weights, reduction="none")
        return each.mean(), {"accuracy": (logits.argmax(1) == label).float().mean()}
