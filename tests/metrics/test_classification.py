import inspect
import math

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_auroc, multilabel_auroc

from cxrtut.metrics.classification import auroc, auroc_by_class, hanley_standard_error
from cxrtut.metrics.detection import macro_mean


def test_auroc_equals_the_share_of_pairs_in_order_with_ties_as_half():
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(0, 6, (60,), generator=generator).float()
    positive = torch.rand(60, generator=generator) < 0.4
    pairs = score[positive][:, None] - score[~positive]
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean()
    assert math.isclose(auroc(score, positive), float(expected), rel_tol=1e-9)


def test_auroc_is_one_for_a_perfect_score_and_half_for_a_constant_one():
    positive = torch.tensor([True, False, True])
    assert auroc(torch.tensor([2.0, 0.0, 3.0]), positive) == 1.0
    assert auroc(torch.zeros(3), positive) == 0.5


def test_auroc_without_positives_is_undefined():
    assert math.isnan(auroc(torch.rand(4), torch.zeros(4, dtype=torch.bool)))


def test_the_standard_error_of_a_chance_score_is_that_of_the_rank_sum_test():
    """At area 1/2 the formula must give (n1 + n0 + 1) / (12 n1 n0), the variance of Mann and
    Whitney.
    """
    variance = hanley_standard_error(0.5, 40, 70) ** 2
    assert math.isclose(variance, (40 + 70 + 1) / (12 * 40 * 70), rel_tol=1e-9)
    assert math.isnan(hanley_standard_error(float("nan"), 0, 70))


def test_the_auroc_of_each_class_is_that_of_its_column():
    generator = torch.Generator().manual_seed(1)
    score = torch.randint(0, 9, (50, 4), generator=generator).float()
    positive = torch.rand(50, 4, generator=generator) < 0.3
    found = auroc_by_class(score, positive)
    assert found.tolist() == [auroc(score[:, k], positive[:, k]) for k in range(4)]
    assert found.dtype == torch.float64 and len(set(found.tolist())) == 4


def test_a_class_with_one_label_value_has_no_auroc_and_leaves_the_others_alone():
    score = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]])
    positive = torch.tensor([[False, True, False], [False, True, True]])
    found = auroc_by_class(score, positive)
    assert found[:2].isnan().all() and found[2] == 1.0
    assert auroc_by_class(torch.zeros(0, 2), torch.zeros(0, 2).bool()).isnan().all()
    assert auroc_by_class(torch.zeros(3, 0), torch.zeros(3, 0).bool()).shape == (0,)


def test_scores_of_classes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match=r"positive: expected shape \(3, 2\).* got \(3, 1\)"):
        inspect.unwrap(auroc_by_class)(torch.zeros(3, 2), torch.zeros(3, 1).bool())
    with pytest.raises(ValueError, match="score: expected numbers, got NaN in 1 of 2"):
        auroc_by_class(torch.tensor([[0.0], [math.nan]]), torch.tensor([[True], [False]]))


def scores_of_classes(levels: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of 300 images and five classes from rare to common, on so many distinct levels (0: any)."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(300, 5, generator=generator)
    prevalence = torch.tensor([0.01, 0.1, 0.3, 0.6, 0.99])
    positive = torch.rand(300, 5, generator=generator) < prevalence
    positive[0], positive[1] = True, False
    score = (score + 0.3 * positive).clamp(max=1.0)
    return (score * levels).round() / levels if levels else score, positive


@pytest.mark.parametrize("levels", [0, 1, 4, 255])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_auroc_is_that_of_scikit_learn_and_torchmetrics(levels, seed):
    score, positive = scores_of_classes(levels, seed)
    found = auroc_by_class(score, positive)
    by_class = roc_auc_score(positive.numpy(), score.numpy(), average=None)
    assert found.tolist() == pytest.approx(by_class.tolist(), abs=1e-12)
    macro = roc_auc_score(positive.numpy(), score.numpy(), average="macro")
    assert macro_mean(found) == pytest.approx(macro, abs=1e-12)
    single = binary_auroc(score[:, 2], positive[:, 2].long())  # in float32
    assert auroc(score[:, 2], positive[:, 2]) == pytest.approx(float(single), abs=1e-6)
    each = multilabel_auroc(score, positive.long(), num_labels=5, average="none")
    assert found.tolist() == pytest.approx(each.tolist(), abs=1e-6)
    mean = multilabel_auroc(score, positive.long(), num_labels=5, average="macro")
    assert macro_mean(found) == pytest.approx(float(mean), abs=1e-6)


@pytest.mark.parametrize("positive", [[True], [False], [True, False], [False, True]])
def test_of_one_or_two_images_the_auroc_is_that_of_scikit_learn_or_undefined_with_it(positive):
    truth = torch.tensor(positive)
    score = torch.linspace(0.2, 0.8, len(truth))
    if len(truth) == 2:
        expected = roc_auc_score(truth.numpy(), score.numpy())
        assert auroc(score, truth) == expected == float(truth[1])
    else:  # depending on its version, scikit-learn refuses or warns
        with pytest.raises((ValueError, UserWarning), match=r"[Oo]nly one class"):
            roc_auc_score(truth.numpy(), score.numpy())
        assert math.isnan(auroc(score, truth))


def test_a_class_without_positives_is_left_out_of_the_mean_over_classes():
    """Where torchmetrics counts it as 0, after a warning."""
    score, positive = scores_of_classes(0, 3)
    positive[:, 1] = False
    found = auroc_by_class(score, positive)
    rest = [0, 2, 3, 4]
    expected = roc_auc_score(positive[:, rest].numpy(), score[:, rest].numpy(), average="macro")
    assert found.isnan().tolist() == [False, True, False, False, False]
    assert macro_mean(found) == pytest.approx(expected, abs=1e-12)
