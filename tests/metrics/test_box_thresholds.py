"""Thresholds chosen on other images, against choosing and scoring pair by pair."""

import math

import pytest
import torch

from cxrtut.metrics.box_thresholds import accuracy_with, chosen_thresholds, max_box_accuracy


def drawn(cuts: int, pairs: int, classes: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(cuts, pairs, generator=generator),
        torch.randint(0, classes, (pairs,), generator=generator),
    )


def slow_choice(iou, label, n_classes, threshold):
    def hits(row, pairs):
        return sum(float(row[p]) > threshold for p in pairs)

    rows = []
    for k in range(n_classes):
        own = [p for p, c in enumerate(label.tolist()) if c == k] or list(range(len(label)))
        best = max(hits(row, own) for row in iou)
        rows.append(next(i for i, row in enumerate(iou) if hits(row, own) == best))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_each_class_has_the_row_with_most_hits_and_one_without_pairs_that_of_all(seed):
    iou, label = drawn(7, 30, 3, seed)
    chosen = chosen_thresholds(iou, label, 4, 0.6)  # class 3 has no pair
    assert chosen.tolist() == slow_choice(iou, label, 4, 0.6)
    assert len(set(chosen.tolist())) > 1


def test_of_equally_good_rows_it_is_the_first():
    iou = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    assert chosen_thresholds(iou, torch.tensor([0, 1]), 2, 0.5).tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_with_a_choice_is_that_of_each_pair_at_the_row_of_its_class(seed):
    iou, label = drawn(6, 40, 3, seed)
    chosen = torch.tensor([5, 0, 2, 1])
    found = accuracy_with(iou, label, chosen, 0.4)
    for k in range(3):
        own = [p for p, c in enumerate(label.tolist()) if c == k]
        hits = [float(iou[int(chosen[k]), p]) > 0.4 for p in own]
        assert found[k].item() == pytest.approx(sum(hits) / len(own))
    assert math.isnan(found[3].item())


def test_a_choice_on_the_scored_pairs_is_the_oracle_and_no_other_is_better():
    iou, label = drawn(6, 40, 2, 0)
    best = accuracy_with(iou, label, chosen_thresholds(iou, label, 2, 0.5), 0.5)
    for row in range(6):
        assert (accuracy_with(iou, label, torch.tensor([row, row]), 0.5) <= best).all()


def test_a_row_that_is_not_there_and_a_choice_on_nothing_are_refused():
    iou, label = drawn(2, 3, 1, 0)
    for row in (-1, 2):
        with pytest.raises(ValueError, match=rf"chosen: expected rows 0 to 1, got {row}"):
            accuracy_with(iou, label, torch.tensor([row]), 0.5)
    with pytest.raises(ValueError, match="expected pairs to choose thresholds on, got none"):
        chosen_thresholds(iou[:, :0], label[:0], 1, 0.5)


def test_a_class_that_has_no_choice_is_refused():
    iou, _ = drawn(2, 3, 1, 0)
    for strange in (2, -1):
        with pytest.raises(ValueError, match=rf"class_index: expected 0 to 1, got {strange}"):
            accuracy_with(iou, torch.tensor([0, 1, strange]), torch.tensor([0, 1]), 0.5)


def test_max_box_accuracy_takes_the_best_row_for_each_t_and_then_the_mean():
    iou = torch.tensor([[0.35, 0.35, 0.75], [0.3, 0.5, 0.55]], dtype=torch.float64)
    # T = .3: all of either row; .5: one of the first row, two of the second; .7: one, none
    assert max_box_accuracy(iou) == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)
    assert max_box_accuracy(iou, (0.5,)) == pytest.approx(2 / 3)


def test_an_iou_of_exactly_t_counts_there_as_in_its_source():
    assert max_box_accuracy(torch.tensor([[0.5]], dtype=torch.float64), (0.5,)) == 1.0
    assert max_box_accuracy(torch.tensor([[0.499]], dtype=torch.float64), (0.5,)) == 0.0


def test_max_box_accuracy_without_pairs_is_nan_and_without_thresholds_an_error():
    assert math.isnan(max_box_accuracy(torch.zeros(3, 0)))
    with pytest.raises(ValueError, match="at least, got 0 and 3"):
        max_box_accuracy(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="at least, got 3 and 0"):
        max_box_accuracy(torch.zeros(3, 4), ())
