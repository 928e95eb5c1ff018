"""How far a mean would move: with other images (bootstrap), with other seeds (Student's t)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.random import default_rng

# What scipy.stats.t.ppf calls, in a sixth of the time that an import of scipy.stats takes.
from scipy.special import stdtrit
from torch import Tensor

from cxrtut.metrics.inputs import check_floats

_DRAWN_AT_ONCE = 1 << 17  # numbers of images: they and their values stay in a processor's cache


@dataclass(frozen=True)
class Interval:
    """A mean with its uncertainty.

    Attributes:
        mean: of the n values.
        low: lower end of the interval.
        high: upper end of the interval.
        n: how many values it rests on, those that were NaN not counted.
    """

    mean: float
    low: float
    high: float
    n: int


def bootstrap_interval(
    values: Float[Tensor, "B"],
    seed: int,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    patients: Sequence[str] | None = None,
) -> Interval:
    """Percentile interval of the mean of one value per image (Efron and Tibshirani, An Introduction
    to the Bootstrap, 1993, ch. 13), in float64.

    Images are drawn with replacement, so the values have to be of images that do not depend on each
    other: several images of one patient make the interval too narrow, unless `patients` says whose
    they are. Then patients are drawn, with all of their images. Values that are NaN (an image
    for which the measure is undefined) are left out, and `n` says how many remain. Of no value at
    all everything is NaN; of one value the interval is that value. The same seed gives the same
    interval on every device, and that of `scipy.stats.bootstrap` with this seed and
    `method="percentile"`, which needs twice the time and, unless told otherwise, memory for all
    resamples at once.

    Args:
        values: one per image.
        seed: of the generator of this call.
        confidence: of the two-sided interval, in (0, 1).
        n_resamples: how often the images are drawn anew.
        patients: of each image; all different by default.

    Raises:
        TypeError: the values are not floats.
        ValueError: a confidence outside (0, 1), fewer than one resample, an infinite value, or
            values or patients that are not one for each image.
    """
    check_floats("values", values, "B")
    _check_confidence(confidence)
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, got {n_resamples}")
    everything = values.detach().cpu().double()
    known = everything[~everything.isnan()]
    if known.isinf().any():
        raise ValueError(f"values: expected finite values or NaN, got {known[known.isinf()][0]}")
    n = len(known)
    if n == 0:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, n=0)
    if patients is None:
        total, images = known.numpy(), np.ones(n)
    else:
        if len(patients) != len(everything):
            raise ValueError(f"patients: expected {len(everything)}, got {len(patients)}")
        # In the order in which they come: with one image each, the images themselves are drawn
        place: dict[str, int] = {}
        known_of = np.flatnonzero(~everything.isnan().numpy())
        whose = np.array([place.setdefault(patients[int(i)], len(place)) for i in known_of])
        total, images = np.bincount(whose, known.numpy()), np.bincount(whose).astype(float)
    rng, means, drawn_n = default_rng(seed), np.empty(n_resamples), len(total)
    step = max(1, _DRAWN_AT_ONCE // drawn_n)
    for start in range(0, n_resamples, step):
        drawn = rng.integers(drawn_n, size=(min(step, n_resamples - start), drawn_n))
        means[start : start + step] = total.take(drawn).sum(axis=1) / images.take(drawn).sum(axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail]).tolist()
    return Interval(mean=float(known.mean()), low=low, high=high, n=n)


def mean_and_margin(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """The mean of one value per seed and half the interval of that mean: t_(n-1) s / sqrt(n), with
    Student's t at (1 + confidence) / 2 and the standard deviation s over n - 1.

    A single value says nothing of its spread, and its margin is infinite.

    Raises:
        ValueError: no values, a confidence outside (0, 1), or a value that is NaN or infinite.
    """
    _check_confidence(confidence)
    if not values:
        raise ValueError("expected at least one value, got none")
    strange = [value for value in values if not math.isfinite(value)]
    if strange:
        raise ValueError(f"values: expected finite values, got {strange[0]}")
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(stdtrit(n - 1, (1.0 + confidence) / 2.0)) * spread / math.sqrt(n)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
