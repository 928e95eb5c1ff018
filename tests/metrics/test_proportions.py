"""Wilson's interval against SciPy's."""

import math

import pytest
from scipy.stats import binomtest

from cxrtut.metrics.proportions import wilson_interval


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (2, 6), (79, 150), (1, 1), (45, 1000)])
def test_it_is_scipys(k, n):
    found, known = wilson_interval(k, n), binomtest(k, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == (pytest.approx(known.low), pytest.approx(known.high))
    assert (found.mean, found.n) == (k / n, n)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_without_cases_everything_is_possible():
    found = wilson_interval(0, 0)
    assert math.isnan(found.mean) and (found.low, found.high, found.n) == (0, 1, 0)


@pytest.mark.parametrize(("k", "n"), [(-1, 4), (5, 4), (0, -1)])
def test_impossible_numbers_are_refused(k, n):
    with pytest.raises(ValueError, match=f"expected 0 to n successes, got {k} of {n}"):
        wilson_interval(k, n)
