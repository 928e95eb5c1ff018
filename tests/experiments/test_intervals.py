"""Means and their intervals."""

import math

import pytest

from cxrtut.experiments.intervals import mean_and_margin


def test_the_margin_is_students():
    mean, margin = mean_and_margin([0.1, 0.2, 0.3])
    assert mean == pytest.approx(0.2) and margin == pytest.approx(4.303 * 0.1 / math.sqrt(3))


def test_one_value_has_no_interval_and_none_no_mean():
    assert mean_and_margin([0.5]) == (0.5, math.inf)
    with pytest.raises(ValueError, match="at least one value, got none"):
        mean_and_margin([])


def test_many_values_use_the_last_point():
    _, margin = mean_and_margin([0.0, 1.0] * 10)
    assert margin == pytest.approx(2.262 * math.sqrt(5 / 19) / math.sqrt(20))
