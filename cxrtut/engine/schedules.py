"""Learning rates by step, as factors of the initial rate.

Public schedules are often wrong at their ends: one reaches zero a whole epoch early and trains with
it, another ends where it began. These say what they are at the last step.
"""

from __future__ import annotations

import math


def constant(step: int) -> float:
    """1 at every step."""
    return 1.0


def linear_decay(step: int, *, steps: int, start: int = 0) -> float:
    """1 until `start`, then a straight line that reaches 0 at `steps`, one step after the last:
    the last step still trains, with 1 / (steps - start).
    """
    _check(step, steps)
    if not 0 <= start < steps:
        raise ValueError(f"start: expected a step in [0, {steps}), got {start}")
    return min(1.0, (steps - step) / (steps - start))


def cosine_decay(step: int, *, steps: int, warm_up: int = 0) -> float:
    """A straight line from 1 / warm_up to 1, then half a cosine that reaches 0 at `steps`
    (Loshchilov and Hutter 2017).
    """
    _check(step, steps)
    if not 0 <= warm_up < steps:
        raise ValueError(f"warm_up: expected a number of steps in [0, {steps}), got {warm_up}")
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def _check(step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise ValueError(f"step: expected one in [0, {steps}), got {step}")
