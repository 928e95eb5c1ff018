"""What measures take: scores and pixels that are floats, truths that are bools. Anything else is
refused, with its name.

A truth of integers 0 and 1 is refused too: they would be taken for positions where bools choose,
and a wrong number would look like a result. `labels == 1` makes bools, and says what becomes of
labels such as -1 (uncertain).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_floats(name: str, values: object, axes: str) -> Tensor:
    """The argument itself, if it is a tensor of floats with these axes.

    Args:
        name: of the argument.
        values: the argument.
        axes: their names, such as "B H W".

    Raises:
        TypeError: no tensor, or one of integers, bools or complex numbers.
        ValueError: another number of axes.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(f"{name}: expected a tensor of floats, got {_kind(values)}")
    _check_axes(name, values, axes)
    return values


def check_scores(name: str, scores: object, axes: str) -> Tensor:
    """`check_floats`, and no NaN, which a sort takes for the highest of all. Infinity is a score.

    Raises:
        TypeError: as `check_floats`.
        ValueError: as `check_floats`, or a score that is NaN.
    """
    values = check_floats(name, scores, axes)
    n = int(values.isnan().sum())
    if n:
        raise ValueError(f"{name}: expected numbers, got NaN in {n} of {values.numel()}")
    return values


def check_finite(name: str, values: object, axes: str) -> Tensor:
    """`check_floats`, and neither NaN nor infinity.

    Raises:
        TypeError: as `check_floats`.
        ValueError: as `check_floats`, or a value that is not finite.
    """
    found = check_floats(name, values, axes)
    if not found.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return found


def check_truth(name: str, truth: object, shape: Sequence[int], what: str = "scores") -> None:
    """Raise unless `truth` is a tensor of bools, one for each of what is judged.

    Args:
        name: of the argument.
        truth: the argument.
        shape: that it must have.
        what: has this shape.

    Raises:
        TypeError: no tensor, or one of anything else than bools.
        ValueError: another shape.
    """
    found = tuple(_bools(name, truth).shape)
    if found != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, as the {what}, got {found}")


def check_bools(name: str, truth: object, axes: str) -> None:
    """Raise unless `truth` is a tensor of bools with these axes.

    Raises:
        TypeError: no tensor, or one of anything else than bools.
        ValueError: another number of axes.
    """
    _check_axes(name, _bools(name, truth), axes)


def check_positions(name: str, index: object, shape: Sequence[int]) -> None:
    """Raise unless `index` is a tensor of integers of this shape.

    Raises:
        TypeError: no tensor, or one of floats or bools.
        ValueError: another shape.
    """
    if (
        not isinstance(index, Tensor)
        or index.is_floating_point()
        or index.is_complex()
        or index.dtype == torch.bool
    ):
        raise TypeError(f"{name}: expected a tensor of integers, got {_kind(index)}")
    if index.shape != torch.Size(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(index.shape)}")


def _bools(name: str, truth: object) -> Tensor:
    if not isinstance(truth, Tensor) or truth.dtype != torch.bool:
        raise TypeError(f"{name}: expected torch.bool, got {_kind(truth)}; labels == 1 makes bools")
    return truth


def _check_axes(name: str, values: Tensor, axes: str) -> None:
    if values.ndim != len(axes.split()):
        expected = f"({', '.join(axes.split())})"
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(values.shape)}")


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
