"""Means over a few seeds with their 95 % intervals."""

import math
from collections.abc import Sequence

# Two-sided 95 % points of Student's t with n - 1 degrees of freedom, by n.
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306}


def mean_and_margin(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half the 95 % interval of the mean (Student's t); infinite for one value, from
    eleven on a little too wide.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("expected at least one value, got none")
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, _STUDENT.get(n, 2.262) * spread / math.sqrt(n)
