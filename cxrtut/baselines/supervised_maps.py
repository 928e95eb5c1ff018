"""The honest baseline of weak supervision: a network that is told where the disease is, in the few
images whose boxes a weakly supervised method needs anyway to choose its thresholds on.

Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020, ask for it:
trained on the images that others choose by, such a network was better than they were. A threshold
that is chosen on these images is chosen on what it has learnt, and may not suit others.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.limited_supervision import patches_in_boxes
from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.nn.linear_head import linear_head
from cxrtut.nn.probability import probabilities


class SupervisedMaps:
    """A classifier of places: a logit for each class and place of the last feature map, trained on
    whether the place lies in a box of the class.

    Networks: `classifier`.
    """

    n_uniforms = 0

    def __init__(
        self,
        classifier: nn.Module,
        *,
        classes: tuple[str, ...],
        size: int,
        channels: int = 1,
        learning_rate: float = 1e-4,
    ) -> None:
        """
        Args:
            classifier: on its device; `features` gives (B, c, h, w), `classifier` is one linear
                layer with a bias, used at each place.
            classes: one for each logit.
            size: of the images, pixels.
            channels: of the images.
            learning_rate: of Adam.

        Raises:
            TypeError: `classifier.classifier` is not one linear layer with a bias.
        """
        self.features = classifier.get_submodule("features")
        self.prediction = linear_head(classifier, with_bias=True)
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss)

    def place_logits(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """The class activation map and the bias of the class, in float32."""
        maps = class_activation_map(self.features(image), self.prediction.weight)
        return maps.float() + self.prediction.bias[:, None, None]

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The mean of -log σ(z) over the places in boxes, plus the mean of -log(1 - σ(z)) over the
        others: 2 log 2 where nothing is known. A disease that an image has without a box is left
        out of it, because nobody knows where it is.
        """
        logits = self.place_logits(batch.image)
        height, width = batch.image.shape[2:]
        inside = patches_in_boxes(
            batch.boxes, batch.box_label, logits.shape[1], (height, width),
            (logits.shape[2], logits.shape[3]),
        )  # fmt: skip
        boxed = inside.flatten(2).any(2)
        known = (boxed | (batch.label_vector == 0))[..., None, None]
        here, elsewhere = (inside & known).float(), (~inside & known).float()
        positive = (here * -F.logsigmoid(logits)).sum() / here.sum().clamp_min(1)
        negative = (elsewhere * -F.logsigmoid(-logits)).sum() / elsewhere.sum().clamp_min(1)
        return positive + negative, {"inside": positive, "outside": negative}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The probability of the likeliest place of each class, and the maps enlarged."""
        maps = self.maps(images)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(maps.amax((2, 3))),
            heatmap=heatmap_from_maps(maps, (height, width)),
        )

    def probability_maps(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """The probabilities of all places; see `evaluation.region_rule`."""
        return self.maps(images).sigmoid()

    @torch.no_grad()
    def maps(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """The logits of all places, in evaluation mode; the mode is put back."""
        with evaluating(self.networks["classifier"]):
            return torch.cat([self.place_logits(part) for part in in_parts(images)])
