import math

import torch

from cxrtut.metrics.classification import auroc, hanley_standard_error


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
