"""Numbers of a held-out split during training, and what is decided on them: which step was best,
and when the learning rate falls.

Both are pure functions of the numbers measured so far, which a checkpoint holds: a run that is
resumed decides as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Measured = tuple[int, Mapping[str, float]]
"""The steps done, and what was measured then."""


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Learning rates fall by `factor` when the watched number has not improved for more than
    `patience` validations in a row, counted anew after each fall.
    """

    factor: float = 0.1
    patience: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1 or self.patience < 0:
            raise ValueError(
                "expected a factor in (0, 1) and a patience of 0 or more, got "
                f"{self.factor} and {self.patience}"
            )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What is measured during training, on images that are not learnt from (and never test images).

    Attributes:
        every: steps between two validations; the last step always has one.
        measure: gives the numbers, by name. Called on rank 0 alone, with torch's random numbers and
            every module's mode put back afterwards.
        best_by: the number that decides which step was the best; its networks are kept in
            `best.pt` of the checkpoints' folder. None decides nothing.
        higher_is_better: whether that number is to rise.
        plateau: when learning rates fall, by the same number.
    """

    every: int
    measure: Callable[[], Mapping[str, float]]
    best_by: str | None = None
    higher_is_better: bool = True
    plateau: Plateau | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every: expected at least 1 step, got {self.every}")
        if self.plateau is not None and self.best_by is None:
            raise ValueError("plateau: expected best_by, the number it watches, got None")

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must not change, since decisions depend on it."""
        plateau = None if self.plateau is None else asdict(self.plateau)
        return {
            "every": self.every, "best_by": self.best_by,
            "higher_is_better": self.higher_is_better, "plateau": plateau,
        }  # fmt: skip

    def improvements(self, history: Sequence[Measured]) -> list[bool]:
        """Whether each validation is better than all before; NaN never is, and the first of
        equal ones is the best.
        """
        best, better = -math.inf, []
        for _, numbers in history:
            value = numbers[self.best_by] if self.best_by is not None else math.nan
            value = value if self.higher_is_better else -value
            better.append(value > best)
            best = value if better[-1] else best
        return better

    def best_step(self, history: Sequence[Measured]) -> int | None:
        """The steps done at the best validation; None where there is none."""
        improved = self.improvements(history)
        steps = [step for (step, _), better in zip(history, improved, strict=True) if better]
        return steps[-1] if steps else None

    def factor(self, history: Sequence[Measured]) -> float:
        """What all learning rates are multiplied by after what was measured."""
        if self.plateau is None:
            return 1.0
        factor, waited = 1.0, 0
        for better in self.improvements(history):
            waited = 0 if better else waited + 1
            if waited > self.plateau.patience:
                factor, waited = factor * self.plateau.factor, 0
        return factor

    def check(self, numbers: Mapping[str, float]) -> None:
        """Raises ValueError where the number to decide on was not measured."""
        if self.best_by is not None and self.best_by not in numbers:
            raise ValueError(f"best_by: expected one of {sorted(numbers)}, got {self.best_by!r}")
