"""Shares of few cases, with their uncertainty."""

from __future__ import annotations

import math

from cxrtut.metrics.intervals import Interval

# What scipy.special.ndtri((1 + .95) / 2) gives, without its import
_NORMAL_95 = 1.959963984540054


def wilson_interval(successes: int, n: int) -> Interval:
    """A share of n cases with Wilson's 95 % interval, which stays within [0, 1] and has a width
    where all cases are alike.

    Args:
        successes: of the cases.
        n: cases; with none the share is NaN, and the interval is everything.

    Raises:
        ValueError: a negative number, or more successes than cases.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 to n successes, got {successes} of {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    share, z2 = successes / n, _NORMAL_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = share * (1 - share) / n + z2 / (4 * n * n)
    half = _NORMAL_95 * math.sqrt(spread) / (1 + z2 / n)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), n)
