"""Which threshold of a heat map its boxes are taken at: chosen on other images than those that are
scored, or none at all.

All functions take the largest IoU of each pair of an image and a class (a column) at each of C
thresholds (a row), from `metrics.detection.best_iou`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.metrics.detection import accuracy_by_class, oracle_threshold
from cxrtut.metrics.inputs import check_finite, check_floats, check_positions


def chosen_thresholds(
    iou: Float[Tensor, "C P"], class_index: Int[Tensor, "P"], n_classes: int, threshold: float
) -> Int[Tensor, "{n_classes}"]:
    """For each class the row of the best threshold, the first of equally good ones; for a class
    without pairs that of all pairs together. To be used on other images: see `accuracy_with`.

    Args:
        iou: of validation pairs.
        class_index: of each pair, in 0 ... n_classes - 1.
        n_classes: K.
        threshold: T in [0, 1), of a hit.

    Raises:
        TypeError, ValueError: as `oracle_threshold`; or no pairs at all.
    """
    check_positions("class_index", class_index, check_floats("iou", iou, "C P").shape[1:])
    chosen, _ = oracle_threshold(iou, class_index, n_classes, threshold)
    if not len(class_index):
        raise ValueError("class_index: expected pairs to choose thresholds on, got none")
    together, _ = oracle_threshold(iou, torch.zeros_like(class_index), 1, threshold)
    return torch.where(chosen < 0, together, chosen)


def accuracy_with(
    iou: Float[Tensor, "C P"],
    class_index: Int[Tensor, "P"],
    chosen: Int[Tensor, "K"],
    threshold: float,
) -> Float[Tensor, "K"]:
    """The localisation accuracy of each class at its own threshold, float64; NaN for a class
    without pairs.

    Args:
        iou: of the pairs that are scored.
        class_index: of each pair.
        chosen: the row of each class, from `chosen_thresholds`.
        threshold: T in [0, 1), of a hit.

    Raises:
        TypeError, ValueError: as `accuracy_by_class`; or a row that `iou` does not have.
    """
    check_positions("class_index", class_index, check_floats("iou", iou, "C P").shape[1:])
    check_positions("chosen", chosen, chosen.shape[:1])
    if len(strange := chosen[(chosen < 0) | (chosen >= len(iou))]):
        raise ValueError(f"chosen: expected rows 0 to {len(iou) - 1}, got {int(strange[0])}")
    label = class_index.long()
    if len(strange := label[(label < 0) | (label >= len(chosen))]):
        raise ValueError(f"class_index: expected 0 to {len(chosen) - 1}, got {int(strange[0])}")
    own = iou.gather(0, chosen.to(iou.device)[label][None])[0]
    return accuracy_by_class(own, class_index, len(chosen), threshold)


def max_box_accuracy(
    iou: Float[Tensor, "C P"], thresholds: Sequence[float] = (0.3, 0.5, 0.7)
) -> float:
    """MaxBoxAccV2: the share of pairs with an IoU of T or more, at the threshold of the heat map
    where it is largest; the mean over T. NaN without pairs.

    It is of the maps, not of a way to choose a threshold, and so an upper bound for one that holds
    for all classes.

    Args:
        iou: of any box of any region.
        thresholds: T in [0, 1].

    Raises:
        TypeError: IoUs that are not floats.
        ValueError: an IoU that is NaN or infinite, no thresholds of the heat map, or none of a hit.

    Source: Choe et al., Evaluation for Weakly Supervised Object Localization: Protocol, Metrics,
    and Datasets, 2020.
    """
    check_finite("iou", iou, "C P")
    if not len(iou) or not thresholds:
        raise ValueError(
            "expected one threshold of the heat map and one of a hit at least, got "
            f"{len(iou)} and {len(thresholds)}"
        )
    levels = torch.tensor(thresholds, dtype=iou.dtype, device=iou.device)
    hits = (iou[None] >= levels[:, None, None]).double().mean(2)  # (T, C)
    return float(hits.amax(1).mean())
