r"""The weakly supervised classifier that came with the ChestX-ray8 images.

X. Wang, Y. Peng, L. Lu et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017.

Equations
    (1)  $L_{W-CEL} = \beta_P \sum_{y=1} -\ln f(x) + \beta_N \sum_{y=0} -\ln(1 - f(x))$
         `weighted_bce_loss`
    (2)  $x_p = \frac{1}{r} \log [\frac{1}{S} \sum_{i,j} \exp(r x_{ij})]$    `lse_pooling`
    (3)  $x_p = x^* + \frac{1}{r} \log [\frac{1}{S} \sum_{i,j} \exp(r (x_{ij} - x^*))]$
         `lse_pooling`
Steps
    Section 3.1, "prediction layer" on the pooled features    `ChestXray8.loss`
    Section 3.2, activations times the weights of the prediction layer
         `ChestXray8.maps_and_logits`

Reading (network, the transition layer): A transition layer brings the last features of four
    networks to one form.
    Here: The last features are pooled directly.
    Why: We have only one network.

Reading (training, weights and optimiser): Training starts from ImageNet's weights and uses plain
    SGD.
    Here: The caller chooses the weights, and Adam is the optimiser.
    Why: The other systems of the comparison are trained this way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.losses.weighted_bce import weighted_bce_loss
from cxrtut.nn.linear_head import linear_head
from cxrtut.nn.probability import probabilities


def lse_pooling(features: Float[Tensor, "B c h w"], r: float = 10.0) -> Float[Tensor, "B c"]:
    """Eqs. (2) and (3): x* + 1/r log[1/S Σ exp(r (x_ij - x*))] over the S = h w places.

    For r to 0 it is the mean, for r to infinity the maximum, and in between it lies between them.
    The gradient is the softmax of r x: it sums to one over the places.

    Reading (network, the largest value): Eq. (3) takes the largest absolute value for $x^*$.
        Here: We take the largest value (`torch.logsumexp`).
        Why: Any $x^*$ gives the same number. With this one nothing overflows, and not everything
            underflows.

    Raises:
        ValueError: r is not a positive finite number.
    """
    if not 0 < r < math.inf:
        raise ValueError(f"r: expected a positive finite number, got {r}")
    places = features.flatten(2)
    return (torch.logsumexp(r * places, dim=2) - math.log(places.shape[2])) / r


class ChestXray8:
    """Features, LSE pooling, one linear layer, trained on the weighted cross-entropy of Eq. (1)."""

    n_uniforms = 0

    def __init__(
        self,
        classifier: nn.Module,
        *,
        classes: tuple[str, ...],
        size: int,
        channels: int = 1,
        r: float = 10.0,
        learning_rate: float = 1e-4,
    ) -> None:
        """
        Args:
            classifier: on its device; `features` gives (B, c, h, w), `classifier` is one linear
                layer. Its own pooling is not used.
            classes: one for each logit.
            size: of the images, pixels.
            channels: of the images.
            r: of the pooling; 10 is the paper's best of 0.1 to 12.
            learning_rate: of Adam.

        Raises:
            TypeError: `classifier.classifier` is not one linear layer.
            ValueError: r is not a positive finite number.
        """
        prediction = linear_head(classifier)
        if not 0 < r < math.inf:
            raise ValueError(f"r: expected a positive finite number, got {r}")
        self.features, self.prediction = classifier.get_submodule("features"), prediction
        self.r = r
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (1), of the linear layer on the pooled features."""
        pooled = lse_pooling(self.features(batch.image).float(), self.r)
        return weighted_bce_loss(self.prediction(pooled).float(), batch.label_vector), {}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """Probabilities, and the maps enlarged as heat maps; see `maps_and_logits`."""
        maps, logits = self.maps_and_logits(images)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(logits), heatmap=heatmap_from_maps(maps, (height, width))
        )

    @torch.no_grad()
    def maps_and_logits(
        self, images: Float[Tensor, "N C H W"]
    ) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K"]]:
        """Heat maps and logits in evaluation mode; the mode is put back.

        A heat map is the features weighted by the class's row of the prediction layer, of any sign
        and range. The paper scales each to 0 ... 255 and cuts it at 60 and at 180.
        """
        classifier = self.networks["classifier"]
        maps, logits = [], []
        with evaluating(classifier):
            for part in in_parts(images):
                features = self.features(part).float()
                maps.append(class_activation_map(features, self.prediction.weight))
                logits.append(self.prediction(lse_pooling(features, self.r)))
        return torch.cat(maps).float(), torch.cat(logits).float()
