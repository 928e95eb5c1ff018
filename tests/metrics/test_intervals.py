import math

import numpy as np
import pytest
import torch
from scipy import stats

from cxrtut.metrics import intervals
from cxrtut.metrics.intervals import Interval, bootstrap_interval, mean_and_margin


def test_two_values_have_the_interval_of_the_four_possible_resamples():
    """Means 0, 1/2, 1 with chances 1/4, 1/2, 1/4."""
    values = torch.tensor([0.0, 1.0])
    assert bootstrap_interval(values, 0) == Interval(mean=0.5, low=0.0, high=1.0, n=2)
    assert bootstrap_interval(values, 0, confidence=0.4) == Interval(0.5, 0.5, 0.5, 2)
    assert bootstrap_interval(values, 0, confidence=0.6) == Interval(0.5, 0.0, 1.0, 2)


def test_many_values_have_the_interval_of_the_normal_distribution():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).double() * 3 + 10
    interval = bootstrap_interval(values, 1, n_resamples=4000)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert math.isclose(interval.mean, float(values.mean()), rel_tol=1e-12)
    assert interval.low == pytest.approx(interval.mean - half, abs=0.1 * half)
    assert interval.high == pytest.approx(interval.mean + half, abs=0.1 * half)


def test_the_ends_are_the_percentiles_of_a_skewed_distribution():
    """One 1 among 10 values: a resample holds it Binomial(10, 1/10) times; P(0) = 0.35, P(<= 2) =
    0.93, P(<= 3) = 0.987, so the percentiles 2.5 and 97.5 are 0 and 3 times.
    """
    values = torch.zeros(10)
    values[3] = 1.0
    interval = bootstrap_interval(values, 5, n_resamples=4000)
    assert interval.low == 0.0 and interval.high == pytest.approx(0.3)
    assert interval.mean == pytest.approx(0.1)


def test_values_that_are_nan_are_left_out_and_the_rest_counted():
    known = torch.tensor([0.25, 0.5, 1.0])
    with_gaps = torch.tensor([torch.nan, 0.25, 0.5, torch.nan, 1.0])
    assert bootstrap_interval(with_gaps, 3) == bootstrap_interval(known, 3)
    assert bootstrap_interval(with_gaps, 3).n == 3


def test_one_value_is_its_own_interval_and_none_has_none():
    assert bootstrap_interval(torch.tensor([0.25, torch.nan]), 0) == Interval(0.25, 0.25, 0.25, 1)
    for values in (torch.zeros(0), torch.full((2,), torch.nan)):
        nothing = bootstrap_interval(values, 0)
        assert nothing.n == 0
        assert all(map(math.isnan, (nothing.mean, nothing.low, nothing.high)))


def test_the_seed_alone_decides():
    values = torch.rand(30, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    first = bootstrap_interval(values, 1, n_resamples=200)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert bootstrap_interval(values, 1, n_resamples=200) == first
    assert bootstrap_interval(values, 2, n_resamples=200) != first


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match=rf"in \(0, 1\), got {confidence}"):
        bootstrap_interval(torch.rand(3), 0, confidence=confidence)


def test_no_resample_or_an_infinite_value_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bootstrap_interval(torch.rand(3), 0, n_resamples=0)
    with pytest.raises(ValueError, match="finite values or NaN, got -inf"):
        bootstrap_interval(torch.tensor([1.0, -torch.inf]), 0)


@pytest.mark.parametrize("n", [2, 3, 50, 401])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_is_that_of_scipy_with_the_same_seed(n, confidence):
    values = torch.rand(n, generator=torch.Generator().manual_seed(n)).double()
    interval = bootstrap_interval(values, 4, confidence=confidence, n_resamples=700)
    expected = stats.bootstrap(
        (values.numpy(),),
        np.mean,
        n_resamples=700,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(4),
    ).confidence_interval
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), rel=1e-12)


def test_how_many_resamples_are_drawn_at_once_changes_nothing(monkeypatch):
    values = torch.rand(31, generator=torch.Generator().manual_seed(0))
    whole = bootstrap_interval(values, 1, n_resamples=200)
    for at_once in (1, 31, 100, 31 * 199):
        monkeypatch.setattr(intervals, "_DRAWN_AT_ONCE", at_once)
        assert bootstrap_interval(values, 1, n_resamples=200) == whole


def test_the_margin_is_students():
    """Of one and two degrees of freedom the quantile has a closed form: tan(pi a / 2) and
    a sqrt(2 / (1 - a^2)) at confidence a.
    """
    mean, margin = mean_and_margin([0.1, 0.2, 0.3])
    assert mean == pytest.approx(0.2)
    assert margin == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)) * 0.1 / math.sqrt(3))
    mean, margin = mean_and_margin([0.1, 0.3], confidence=0.8)
    assert (mean, margin) == pytest.approx((0.2, math.tan(0.4 * math.pi) * 0.1))


@pytest.mark.parametrize("n", [2, 5, 10, 40])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_over_seeds_is_that_of_scipy(n, confidence):
    values = torch.rand(n, generator=torch.Generator().manual_seed(n)).double().tolist()
    mean, margin = mean_and_margin(values, confidence=confidence)
    expected = stats.t.interval(confidence, n - 1, np.mean(values), stats.sem(values))
    assert (mean - margin, mean + margin) == pytest.approx(expected, rel=1e-12)


def test_one_value_has_no_interval_over_seeds_and_none_no_mean():
    assert mean_and_margin([0.5]) == (0.5, math.inf)
    with pytest.raises(ValueError, match="at least one value, got none"):
        mean_and_margin([])
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 95"):
        mean_and_margin([0.5, 0.6], confidence=95)


def test_all_images_of_a_patient_are_drawn_together():
    values = torch.tensor([0.0, 0.0, 1.0, math.nan, 1.0, 0.4])
    patients = ["b", "b", "a", "a", "a", "c"]
    found = bootstrap_interval(values, 3, patients=patients)
    assert found.mean == pytest.approx(2.4 / 5) and found.n == 5
    rng = np.random.default_rng(3)
    drawn = rng.integers(3, size=(2000, 3))
    sums, counts = np.array([0.0, 2.0, 0.4]), np.array([2, 2, 1])  # of b, a, c
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    apart = bootstrap_interval(values, 3)
    assert found.high - found.low > apart.high - apart.low  # patients alike: less is known


def test_patients_with_an_image_each_are_images():
    values = torch.rand(20, generator=torch.Generator().manual_seed(0))
    names = [f"p{7 * i % 20}" for i in range(20)]
    assert bootstrap_interval(values, 0, patients=names) == bootstrap_interval(values, 0)


def test_patients_are_one_for_each_image():
    with pytest.raises(ValueError, match="patients: expected 2, got 1"):
        bootstrap_interval(torch.zeros(2), 0, patients=["a"])
