"""A classifier that sees what another system has taken away from an image, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from cxrtut.data.sample import Prediction, System
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.nn.probability import probabilities


class DifferenceClassifier:
    """The C of Zhang et al. (MICCAI 2019) as a system: the probability of a disease by x - G(x).

    Networks: `classifier`, and those of the system that makes G(x).
    """

    def __init__(self, remover: System, classifier: nn.Module) -> None:
        """
        Args:
            remover: answers with images, G(x); such as `papers.biomarker.BiomarkerLocaliser`.
            classifier: differences to logits (B, 2), trained on those of this system.
        """
        self.classes, self.size, self.channels = remover.classes, remover.size, remover.channels
        self.networks: dict[str, nn.Module] = {**remover.networks, "classifier": classifier}
        self.remover = remover

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The probability of "abnormal", in evaluation mode; the mode is put back."""
        difference, C = self.differences(images), self.networks["classifier"]
        with torch.no_grad(), evaluating(C):
            logits = torch.cat([C(part).float() for part in in_parts(difference)])
        return Prediction(scores=probabilities((logits[:, 1] - logits[:, 0])[:, None]))

    def differences(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """x - G(x), of G(x) as it is shown: clipped to the range of images.

        Raises:
            ValueError: a system that makes no images.
        """
        output = self.remover.predict(images).image
        if output is None:
            raise ValueError("remover: expected a system that answers with images, got one without")
        return images - output

    def measure_differences(self, batches: Iterable[Float[Tensor, "B C H W"]]) -> None:
        """Gives C's batch norms the statistics of the differences of these images, as G makes them
        now, so that C can be asked in evaluation mode.

        Reading (evaluation, the statistics of C): Zhang et al. (MICCAI 2019) say nothing of batch
            norm, and of C only that it is a ResNet-18.
            Here: Its running statistics are measured anew, with G as it is at the end.
            Why: During training the differences shrink faster than running means follow. In
                evaluation mode C would read them by the statistics of earlier, larger ones, and
                find nothing.

        Args:
            batches: of images, as many kinds of them as in training.

        Raises:
            ValueError: no batches; the statistics are then as they were.
        """
        with torch.no_grad():
            differences = map(self.differences, batches)
            if (first := next(differences, None)) is None:
                raise ValueError("batches: expected one at least, got none")
            update_bn(chain((first,), differences), self.networks["classifier"])
