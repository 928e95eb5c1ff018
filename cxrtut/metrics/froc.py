"""FROC: how many lesions are found at how many false boxes an image.

It is the curve of free-response data of Bunch et al., A Free-Response Approach to the Measurement
and Characterization of Radiographic-Observer Performance, 1978.

The unit is a pair of an image and a class, as in `metrics.detection`; a pair may be without truth,
an image without that disease: whatever is predicted for it is false. A predicted box is a hit where
its IoU with a true box of its pair is above T. A true box is found by the highest-scoring box that
hits it; further hits of it neither count nor cost anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.metrics.detection import BoxesOfPairs, average_false_positives, iou_matrix
from cxrtut.metrics.inputs import check_finite, check_floats


@dataclass(frozen=True)
class Froc:
    """A curve, from the highest score to the lowest; no points where nothing is predicted.

    Attributes:
        false_positives: false boxes an image, of all that score at least as high.
        recall: share of the true boxes that these find; NaN without a true box.
    """

    false_positives: Float[Tensor, "n"]
    recall: Float[Tensor, "n"]

    def recall_at(self, false_positives: float) -> float:
        """The highest recall at no more false boxes an image than this; 0 where even the highest
        score has more.

        Raises:
            ValueError: a negative number of false boxes.
        """
        if not false_positives >= 0:
            raise ValueError(f"false_positives: expected 0 or more, got {false_positives}")
        allowed = self.recall[self.false_positives <= false_positives]
        return float(allowed.max()) if len(allowed) else 0.0


def froc(
    predicted: BoxesOfPairs,
    scores: Sequence[Float[Tensor, "_"]],
    truth: BoxesOfPairs,
    threshold: float,
    n_images: int,
) -> Froc:
    """The FROC curve, a point for each score that a predicted box has.

    Args:
        predicted: boxes (n, 4) of each pair; all that is given may be on any device.
        scores: of these boxes, comparable between pairs.
        truth: boxes (m, 4) of the same pairs; m may be 0.
        threshold: T in [0, 1).
        n_images: that the pairs were taken from.

    Raises:
        TypeError: boxes or scores that are not of floats.
        ValueError: not as many pairs in all three, not one score a box, a score that is not finite,
            boxes that are not (n, 4), a threshold out of range, or no images.
    """
    predicted, truth = _on_cpu("predicted", predicted), _on_cpu("truth", truth)
    average_false_positives(predicted, truth, threshold, n_images)  # its checks are those of here
    if len(scores) != len(predicted):
        raise ValueError(f"scores: expected those of {len(predicted)} pairs, got {len(scores)}")
    false, found, every = ([torch.zeros(0, dtype=torch.float64)] for _ in range(3))
    for pair, (boxes, of, true) in enumerate(zip(predicted, scores, truth, strict=True)):
        score = check_finite(f"scores[{pair}]", of, "n").cpu().double()
        if len(score) != len(boxes):
            raise ValueError(
                f"scores[{pair}]: expected one for each of {len(boxes)} boxes, got {len(score)}"
            )
        hit = iou_matrix(boxes, true) > threshold
        at = torch.where(hit, score[:, None], -torch.inf)
        found.append(torch.cat((at, at.new_full((1, len(true)), -torch.inf))).amax(0))
        false.append(score[~hit.any(1)])
        every.append(score)
    levels = torch.cat(every).unique().flip(0)
    wrong, right = (_as_high(torch.cat(of), levels) for of in (false, found))
    return Froc(wrong / n_images, right / sum(len(true) for true in truth))


def _on_cpu(name: str, pairs: Sequence[Any]) -> list[Tensor]:
    return [check_floats(f"{name}[{k}]", boxes, "n 4").cpu() for k, boxes in enumerate(pairs)]


def _as_high(scores: Float[Tensor, "n"], levels: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """How many scores are at least as high as each level."""
    below = torch.searchsorted(scores.sort().values, levels)
    return (len(scores) - below).double()
