"""Average precision of boxes against COCO's own program."""

import math

import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from cxrtut.metrics.box_precision import box_average_precision


def some_boxes(n, draw, spread=30.0):
    corner = spread * torch.rand(n, 2, generator=draw)
    return torch.cat((corner, corner + 4 + 20 * torch.rand(n, 2, generator=draw)), 1)


def images(seed, n=12):
    """Boxes near the true ones, boxes anywhere, images without either; scores with ties."""
    draw = torch.Generator().manual_seed(seed)
    predicted, scores, truth = [], [], []
    for i in range(n):
        true = some_boxes(i % 3, draw)
        near = true.repeat(2, 1) + 3 * torch.randn(2 * len(true), 4, generator=draw)
        boxes = torch.cat((near, some_boxes((i * 5) % 4, draw)))
        boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 1)
        predicted.append(boxes)
        scores.append((10 * torch.rand(len(boxes), generator=draw)).round() / 10)
        truth.append(true)
    return predicted, scores, truth


@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_cocos(seed, threshold):
    predicted, scores, truth = images(seed)
    oracle = MeanAveragePrecision(iou_thresholds=[threshold], box_format="xyxy")
    oracle.update(
        [
            {"boxes": b, "scores": s, "labels": torch.zeros(len(b)).long()}
            for b, s in zip(predicted, scores, strict=True)
        ],
        [{"boxes": t, "labels": torch.zeros(len(t)).long()} for t in truth],
    )
    found = box_average_precision(predicted, scores, truth, threshold)
    assert found == pytest.approx(float(oracle.compute()["map"]), abs=1e-6)


TRUE = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])


@pytest.mark.parametrize(
    ("boxes", "scores", "known"),
    [
        (TRUE, [0.9, 0.8], 1.0),
        (TRUE[[0, 0]], [0.9, 0.8], 51 / 101),  # the second time it is wrong: recalls 0 to .5
        (torch.cat((TRUE[:1] + 100, TRUE)), [0.9, 0.8, 0.7], 2 / 3),
        (TRUE[:0], [], 0.0),
    ],
)
def test_closed_forms(boxes, scores, known):
    found = box_average_precision([boxes], [torch.tensor(scores)], [TRUE], 0.5)
    assert found == pytest.approx(known)


def test_boxes_where_nothing_is_are_wrong_and_without_any_truth_there_is_no_number():
    sure, nothing = torch.tensor([0.9]), TRUE[:0]
    here = box_average_precision([TRUE[:1]], [0.5 * sure], [TRUE[:1]], 0.5)
    both = box_average_precision([TRUE[:1]] * 2, [0.5 * sure, sure], [TRUE[:1], nothing], 0.5)
    assert (here, both) == (1.0, pytest.approx(0.5))
    assert math.isnan(box_average_precision([TRUE], [torch.ones(2)], [nothing], 0.5))
    assert math.isnan(box_average_precision([], [], [], 0.5))


def test_a_box_takes_the_true_box_that_it_overlaps_most_of_those_that_are_left():
    near = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    found = torch.tensor([[1.5, 0, 11.5, 10], [2, 0, 12, 10]])  # the first lies nearer the second
    assert box_average_precision([found], [torch.tensor([0.9, 0.8])], [near], 0.5) == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([TRUE], [torch.ones(1)], [TRUE], 0.5), r"scores\[0\]: expected one for each of 2 boxes"),
        (([TRUE], [torch.ones(2)], [], 0.5), "the same images, got 1, 1 and 0"),
        (([TRUE], [torch.tensor([1.0, math.nan])], [TRUE], 0.5), r"scores\[0\]: expected finite"),
        (([TRUE], [torch.ones(2)], [TRUE], 0.0), r"threshold: expected one in \(0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        box_average_precision(*arguments)
