"""How well boxes agree with boxes: the localisation accuracy of papers that follow ChestX-ray8.

The unit is a pair of an image and a class that the image has. `predicted[p]` and `truth[p]` are the
boxes (n, 4) of pair p, xyxy in pixels of one frame, without padding; there may be several of either
(`Batch.boxes_of` takes padding off). A pair is a hit where the intersection over union (IoU) of a
predicted and a true box is above a threshold T. Areas and ratios are taken in float64, so that
boxes of whole pixels reach an IoU of T exactly, and not by rounding.

Reading (evaluation, what a unit is): Kim, Jung and Lee (2021) count a hit where "the IoU of two
    boxes is above a threshold". They do not say what a unit is.
    Here: A unit is a pair with a true box, whether or not its class is predicted. IoU = T is no
        hit. Images without a true box are not scored, nor are boxes beside the hit (see
        `average_false_positives`).
    Why: ChestX-ray8 also scores the map of the true class.

Reading (evaluation, several boxes of one class): Nothing is said of several boxes of one class in
    an image.
    Here: The best match counts.
    Why: One predicted box can match only one of them.

Reading (evaluation, the mean): Tables 1 and 2 do not define their column "Mean".
    Here: It is the plain mean over the classes (`macro_mean`).
    Why: The printed numbers show it. The share of hits among all pairs (`localisation_accuracy`)
        gives classes with more boxes more weight, and is higher there.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import box_area, box_iou

from cxrtut.metrics.inputs import check_finite, check_floats, check_positions

BoxesOfPairs = Sequence[Float[Tensor, "_ 4"]]
"""The boxes (n, 4) of each pair; n may be 0."""


def iou_matrix(a: Float[Tensor, "N 4"], b: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Intersection over union of every box of `a` with every box of `b`: [0, 1], float64.

    A box without area (or turned inside out) has IoU 0 with every box, itself included.

    Raises:
        TypeError: boxes that are not of floats.
        ValueError: boxes that are not (n, 4), or a corner that is NaN or infinite.
    """
    for name, boxes in (("a", a), ("b", b)):
        _check_boxes(name, boxes)
        check_finite(name, boxes, "n 4")
    return _without_area_is_zero(box_iou(a.double(), b.double()))


def best_iou(predicted: BoxesOfPairs, truth: BoxesOfPairs) -> Float[Tensor, "P"]:
    """For each pair the largest IoU of any predicted with any true box, float64; 0 where nothing is
    predicted.

    The any-box protocol of ChestX-ray8, where a hit at any of several cuts counts, is this function
    of the union: `predicted[p]` is `torch.cat` of the boxes of pair p at all cuts. More boxes never
    lower it, so report `average_false_positives` beside it.

    Raises:
        TypeError: boxes that are not of floats.
        ValueError: not as many pairs in both, boxes that are not (n, 4), a pair without a true box,
            or a corner that is NaN or infinite.
    """
    _check_pairs(predicted, truth)
    for pair, boxes in enumerate(truth):
        if len(boxes) == 0:
            raise ValueError(
                f"truth[{pair}]: expected at least one true box, got none; "
                "no-box images are never scored"
            )
    if len(truth) == 0:
        return torch.zeros(0, dtype=torch.float64)
    best, pair_of_box = _best_of_each_predicted(predicted, truth)
    return best.new_zeros(len(truth)).scatter_reduce(0, pair_of_box, best, "amax")


def localisation_accuracy(iou: Float[Tensor, "P"], threshold: float) -> float:
    """The share of pairs with IoU > T; NaN where there are no pairs.

    Args:
        iou: of each pair, from `best_iou`.
        threshold: T in [0, 1); papers take 0.3, 0.5 and 0.7.

    Raises:
        TypeError: IoUs that are not floats.
        ValueError: a threshold or an IoU out of range.
    """
    return float(_hits(iou, threshold).double().mean())


def accuracy_by_class(
    iou: Float[Tensor, "P"], class_index: Int[Tensor, "P"], n_classes: int, threshold: float
) -> Float[Tensor, "{n_classes}"]:
    """`localisation_accuracy` of each class, float64; NaN for a class without pairs.

    Args:
        iou: of each pair, from `best_iou`.
        class_index: of each pair, in 0 ... n_classes - 1.
        n_classes: K.
        threshold: T in [0, 1).

    Raises:
        TypeError: IoUs that are not floats, or classes that are not integers.
        ValueError: not one class per pair, or a class, a threshold or an IoU out of range.
    """
    check_floats("iou", iou, "P")
    check_positions("class_index", class_index, iou.shape)
    strange = class_index[(class_index < 0) | (class_index >= n_classes)]
    if len(strange):
        raise ValueError(f"class_index: expected 0 to {n_classes - 1}, got {int(strange[0])}")
    hits = torch.bincount(class_index[_hits(iou, threshold)], minlength=n_classes)
    return hits.double() / torch.bincount(class_index, minlength=n_classes)


def macro_mean(values: Float[Tensor, "K"]) -> float:
    """The plain mean over the classes, NaN left out; NaN where nothing is left.

    Raises:
        TypeError: the values are not floats.
        ValueError: values that are not one for each class.
    """
    check_floats("values", values, "K")
    return float(values.double().nanmean())


def average_false_positives(
    predicted: BoxesOfPairs, truth: BoxesOfPairs, threshold: float, n_images: int
) -> float:
    """Predicted boxes that match no true box of their pair (IoU > T), per image: the AFP of
    ChestX-ray8, and the price of predicting many boxes.

    Here a pair may be without truth, an image without that disease: all that is predicted for it is
    false.

    Reading (evaluation, two boxes on one): Nothing is said of two predicted boxes on one true box.
        Here: Both are matched, and none is false.
        Why: Both are where the disease is.

    Args:
        predicted: boxes (n, 4) of each pair of an image and a class.
        truth: boxes (m, 4) of the same pairs; m may be 0.
        threshold: T in [0, 1).
        n_images: that the pairs were taken from, counting those where nothing was predicted.

    Raises:
        TypeError: boxes that are not of floats.
        ValueError: not as many pairs in both, boxes that are not (n, 4), a threshold out of range,
            no images, or a corner that is NaN or infinite.
    """
    _check_pairs(predicted, truth)
    _check_threshold(threshold)
    if n_images < 1:
        raise ValueError(f"n_images: expected at least 1, got {n_images}")
    if len(predicted) == 0:
        return 0.0
    best, _ = _best_of_each_predicted(predicted, truth)
    return int((best <= threshold).sum()) / n_images


def oracle_threshold(
    iou: Float[Tensor, "C P"], class_index: Int[Tensor, "P"], n_classes: int, threshold: float
) -> tuple[Int[Tensor, "{n_classes}"], Float[Tensor, "{n_classes}"]]:
    """For each class the cut of the heat map that gives it the highest accuracy, and that accuracy.

    The cut is chosen on the very boxes that are scored: an upper bound, not a result that can be
    expected on other images, and not comparable with numbers at a cut fixed beforehand.

    Args:
        iou: of each pair (a column) at each of C cuts (a row), from `best_iou`.
        class_index: of each pair, in 0 ... n_classes - 1.
        n_classes: K.
        threshold: T in [0, 1).

    Returns:
        The row of the best cut, the first of equally good ones, -1 for a class without pairs; and
        the accuracy there, float64, NaN for such a class.

    Raises:
        TypeError: IoUs that are not floats, or classes that are not integers.
        ValueError: no cuts, not one class per pair, or a class, a threshold or an IoU out of range.
    """
    check_positions("class_index", class_index, check_floats("iou", iou, "C P").shape[1:])
    if len(iou) == 0:
        raise ValueError(f"iou: expected at least one cut, got shape {tuple(iou.shape)}")
    at_cut = [accuracy_by_class(row, class_index, n_classes, threshold) for row in iou]
    accuracy, best = torch.stack(at_cut).max(dim=0)
    return torch.where(accuracy.isnan(), -1, best), accuracy


def _best_of_each_predicted(
    predicted: BoxesOfPairs, truth: BoxesOfPairs
) -> tuple[Float[Tensor, "N"], Int[Tensor, "N"]]:
    """The largest IoU of each of the N predicted boxes with a true box of its pair (0 where there
    is none), and the number of its pair.

    Every predicted box is listed once for each true box of its pair, and nothing is padded: one
    pair with thousands of boxes costs what it costs alone.
    """
    boxes, true = torch.cat(list(predicted)), torch.cat(list(truth))
    check_finite("predicted", boxes, "N 4")
    check_finite("truth", true, "M 4")
    n, m = (
        torch.tensor([len(of_pair) for of_pair in pairs], device=boxes.device)
        for pairs in (predicted, truth)
    )
    pair = torch.arange(len(n), device=boxes.device).repeat_interleave(n)
    matches = m[pair]
    left = torch.arange(len(boxes), device=boxes.device).repeat_interleave(matches)
    # The i-th match of a box is the i-th true box of its pair, counted from the pair's first.
    first = (m.cumsum(0) - m)[pair] - (matches.cumsum(0) - matches)
    right = first[left] + torch.arange(len(left), device=boxes.device)
    iou = _paired_iou(boxes[left].double(), true[right].double())
    best = iou.new_zeros(len(boxes)).scatter_reduce(0, left, iou, "amax")
    return best, pair


def _paired_iou(a: Float[Tensor, "L 4"], b: Float[Tensor, "L 4"]) -> Float[Tensor, "L"]:
    """The IoU of a[l] with b[l], which torchvision has for whole matrices only."""
    width, height = (
        (torch.minimum(a[:, k + 2], b[:, k + 2]) - torch.maximum(a[:, k], b[:, k])).clamp(min=0)
        for k in (0, 1)
    )
    overlap = width * height
    return _without_area_is_zero(overlap / (box_area(a) + box_area(b) - overlap))


def _without_area_is_zero(iou: Tensor) -> Tensor:
    """A flat box, or one turned inside out, has no overlap with any and an area of 0 or below:
    0 / 0 is NaN and 0 / -1 is -0, and both are the IoU 0. In place.
    """
    return iou.nan_to_num_(nan=0.0).abs_()


def _check_boxes(name: str, boxes: object) -> None:
    shape = check_floats(name, boxes, "n 4").shape
    if shape[1] != 4:
        raise ValueError(f"{name}: expected boxes (n, 4), got shape {tuple(shape)}")


def _hits(iou: object, threshold: float) -> Tensor:
    _check_threshold(threshold)
    values = check_floats("iou", iou, "P")
    strange = values[~((values >= 0) & (values <= 1))]
    if len(strange):
        raise ValueError(f"iou: expected numbers in [0, 1], got {float(strange[0])}")
    return values > threshold


def _check_threshold(threshold: float) -> None:
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold: expected a number in [0, 1), got {threshold}")


def _check_pairs(predicted: Sequence[object], truth: Sequence[object]) -> None:
    if len(predicted) != len(truth):
        raise ValueError(
            "expected predicted and true boxes of the same pairs, got "
            f"{len(predicted)} and {len(truth)}"
        )
    for name, pairs in (("predicted", predicted), ("truth", truth)):
        for pair, boxes in enumerate(pairs):
            _check_boxes(f"{name}[{pair}]", boxes)
