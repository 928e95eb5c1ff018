"""How far a mean would move: over images, by the bootstrap; over a few seeds, by Student's t."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


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
    values: Float[Tensor, "B"], seed: int, *, confidence: float = 0.95, n_resamples: int = 2000
) -> Interval:
    """Percentile interval of the mean of one value per image (Efron and Tibshirani, An Introduction
    to the Bootstrap, 1993, ch. 13), in float64.

    Images are drawn with replacement, so the values have to be of images that do not depend on each
    other: several images of one patient make the interval too narrow. Values that are NaN (an image
    for which the measure is undefined) are left out, and `n` says how many remain. Of no value at
    all everything is NaN; of one value the interval is that value. The same seed gives the same
    interval on every device.

    Args:
        values: one per image.
        seed: of the generator of this call.
        confidence: of the two-sided interval, in (0, 1).
        n_resamples: how often the images are drawn anew.

    Raises:
        ValueError: a confidence outside (0, 1), fewer than one resample, or an infinite value.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, got {n_resamples}")
    known = values.detach().cpu().double()
    known = known[~known.isnan()]
    if known.isinf().any():
        raise ValueError(f"values: expected finite values or NaN, got {known[known.isinf()][0]}")
    n = len(known)
    if n == 0:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, n=0)
    generator = torch.Generator().manual_seed(seed)
    means = torch.stack(
        [known[torch.randint(n, (n,), generator=generator)].mean() for _ in range(n_resamples)]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = means.quantile(torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return Interval(mean=float(known.mean()), low=low, high=high, n=n)


def mean_and_margin(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half the 95 % interval of the mean (Student's t); infinite for one value.

    Raises:
        ValueError: no values.
    """
    from scipy.stats import t

    if not values:
        raise ValueError("expected at least one value, got none")
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
