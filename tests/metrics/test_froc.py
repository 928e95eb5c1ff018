"""FROC curves, against counting by hand at every score."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from cxrtut.metrics.froc import Froc, froc

NONE = torch.zeros(0, 4)
HERE, THERE = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[6.0, 6.0, 9.0, 9.0]])


def drawn(n: int, generator: torch.Generator) -> Tensor:
    corner = torch.randint(0, 10, (n, 2), generator=generator).float()
    return torch.cat((corner, corner + torch.randint(1, 8, (n, 2), generator=generator)), 1)


def slow(predicted, scores, truth, threshold, n_images):
    """Point by point: who is shown at this score, who is found by them, who of them is false."""
    points = []
    for level in sorted({float(s) for of in scores for s in of}, reverse=True):
        false = found = 0
        for boxes, of, true in zip(predicted, scores, truth, strict=True):
            shown = [b for b, s in zip(boxes, of, strict=True) if s >= level]
            meets = [
                [float(box_iou(b[None].double(), t[None].double())) > threshold for t in true]
                for b in shown
            ]
            false += sum(not any(row) for row in meets)
            found += sum(any(row[k] for row in meets) for k in range(len(true)))
        points.append((false / n_images, found / sum(map(len, truth))))
    return points


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_counting_gives(seed):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 5, (2, 12), generator=generator)
    predicted = [drawn(int(n), generator) for n in counts[0]]
    truth = [drawn(int(n), generator) for n in counts[1]]
    levels = torch.rand(6, generator=generator)  # few, so that many are equal
    scores = [levels[torch.randint(0, 6, (len(b),), generator=generator)] for b in predicted]
    curve = froc(predicted, scores, truth, threshold=0.2, n_images=20)
    expected = slow(predicted, scores, truth, 0.2, 20)
    assert len(expected) == 6 and expected[-1][1] > 0
    assert curve.false_positives.tolist() == [point[0] for point in expected]
    assert curve.recall.tolist() == [point[1] for point in expected]


def test_a_box_that_is_found_twice_counts_once_and_costs_nothing():
    predicted, scores = [torch.cat((HERE, HERE + 0.1, THERE))], [torch.tensor([0.5, 0.9, 0.7])]
    curve = froc(predicted, scores, [HERE], threshold=0.3, n_images=2)
    assert curve.recall.tolist() == [1.0, 1.0, 1.0]
    assert curve.false_positives.tolist() == [0.0, 0.5, 0.5]


def test_one_box_may_find_two():
    wide = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    two = torch.tensor([[0.0, 0.0, 4.0, 2.0], [0.0, 2.0, 4.0, 4.0]])
    assert froc([wide], [torch.ones(1)], [two], threshold=0.4, n_images=1).recall.tolist() == [1]


def test_an_iou_of_exactly_t_is_no_hit():
    half = torch.tensor([[0.0, 0.0, 2.0, 4.0]])
    for threshold, recall in ((0.5, 0.0), (0.49, 1.0)):
        curve = froc([half], [torch.ones(1)], [HERE], threshold=threshold, n_images=1)
        assert curve.recall.tolist() == [recall]
        assert curve.false_positives.tolist() == [1.0 - recall]


def test_an_image_without_the_disease_has_false_boxes_only():
    curve = froc(
        [HERE, HERE], [torch.tensor([0.9]), torch.tensor([0.4])], [NONE, HERE],
        threshold=0.3, n_images=2,
    )  # fmt: skip
    assert curve.false_positives.tolist() == [0.5, 0.5] and curve.recall.tolist() == [0.0, 1.0]


def test_nothing_predicted_has_no_points_and_finds_nothing():
    curve = froc([NONE], [torch.zeros(0)], [HERE], threshold=0.3, n_images=1)
    assert len(curve.recall) == len(curve.false_positives) == 0
    assert curve.recall_at(1.0) == 0.0


def test_without_a_true_box_there_is_no_recall():
    curve = froc([HERE], [torch.ones(1)], [NONE], threshold=0.3, n_images=1)
    assert math.isnan(curve.recall.item()) and curve.false_positives.tolist() == [1.0]


@pytest.mark.parametrize(
    ("rate", "recall"), [(0.0, 0.0), (0.05, 0.0), (0.1, 0.2), (0.15, 0.2), (0.2, 0.6), (9.0, 0.6)]
)
def test_recall_at_a_rate_is_the_highest_that_costs_no_more(rate, recall):
    curve = Froc(torch.tensor([0.1, 0.1, 0.2]), torch.tensor([0.1, 0.2, 0.6]))
    assert curve.recall_at(rate) == pytest.approx(recall)


def test_a_rate_below_zero_is_refused():
    for rate in (-0.1, math.nan):
        with pytest.raises(ValueError, match=r"false_positives: expected 0 or more, got"):
            Froc(torch.zeros(1), torch.zeros(1)).recall_at(rate)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([torch.ones(2)], r"scores\[0\]: expected one for each of 1 boxes, got 2"),
        ([torch.tensor([math.nan])], r"scores\[0\]: expected finite values"),
        ([torch.tensor([math.inf])], r"scores\[0\]: expected finite values"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(scores, said):
    with pytest.raises(ValueError, match=said):
        froc([HERE], scores, [HERE], threshold=0.3, n_images=1)


class Elsewhere(Tensor):
    """Stands for a tensor on a GPU: it does not go together with one on the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        with torch._C.DisableTorchFunctionSubclass():
            given = [x for a in args for x in (a if isinstance(a, (list, tuple)) else [a])]
            places = {type(x) for x in given if isinstance(x, Tensor) and x.ndim}
            assert len(places) < 2, f"{func.__name__} of two devices"
            found = func(*args, **kwargs or {})
        return found.as_subclass(cls) if isinstance(found, Tensor) else found


def test_boxes_and_scores_may_be_on_another_device_than_the_truth():
    given = [HERE, THERE], [torch.tensor([0.9]), torch.tensor([0.4])]
    predicted, scores = ([x.as_subclass(Elsewhere) for x in of] for of in given)
    with pytest.raises(AssertionError, match="of two devices"):
        predicted[0] + HERE
    curve = froc(predicted, scores, [HERE, NONE], threshold=0.3, n_images=2)
    assert curve.recall.tolist() == [1.0, 1.0] and curve.false_positives.tolist() == [0.0, 0.5]


def test_inputs_are_those_of_the_detection_measures():
    good = {"threshold": 0.3, "n_images": 1}
    with pytest.raises(ValueError, match="of the same pairs, got 1 and 2"):
        froc([HERE], [torch.ones(1)], [HERE, HERE], **good)
    with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\)"):
        froc([HERE], [torch.ones(1)], [HERE], **good | {"threshold": 1.0})
    with pytest.raises(ValueError, match="n_images: expected at least 1, got 0"):
        froc([HERE], [torch.ones(1)], [HERE], **good | {"n_images": 0})
    with pytest.raises(ValueError, match="scores: expected those of 1 pairs, got 0"):
        froc([HERE], [], [HERE], **good)
