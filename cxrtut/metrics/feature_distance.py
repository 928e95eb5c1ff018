"""How far apart two sets of images are, by features that a network gives them.

Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NIPS 2017 (Frechet inception distance);
Binkowski et al., Demystifying MMD GANs, ICLR 2018 (kernel inception distance). Both are named after
the network whose features are usually taken; any network's can be.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.metrics.inputs import check_finite


def frechet_distance(a: Float[Tensor, "N d"], b: Float[Tensor, "M d"]) -> float:
    """|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½) of the means m and covariances S of both sets:
    0 for the same mean and covariance. It depends on how many images there are, so compare sets of
    equal size only.

    Args:
        a: features of one set, two images or more.
        b: features of the other.

    Raises:
        TypeError: features that are not floats.
        ValueError: fewer than two images, another number of features, or one that is not finite.
    """
    first, second = _checked(a, b)
    difference = first.mean(0) - second.mean(0)
    spread = [torch.cov(values.T).reshape(values.shape[1], -1) for values in (first, second)]
    # The eigenvalues of S_a S_b are those of a product of two positive matrices: real, 0 or more
    root = torch.linalg.eigvals(spread[0] @ spread[1]).real.clamp_min(0).sqrt().sum()
    traces = spread[0].trace() + spread[1].trace()
    return float(difference.square().sum() + traces - 2 * root)


def kernel_distance(a: Float[Tensor, "N d"], b: Float[Tensor, "M d"]) -> float:
    """The squared maximum mean discrepancy with the kernel (x·y / d + 1)³, without bias: 0 on
    average for sets of one distribution, whatever their size, so that it can be below 0.

    Args, Raises: as `frechet_distance`.
    """
    first, second = _checked(a, b)
    scale = first.shape[1]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / scale + 1) ** 3

    def within(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.trace()) / (len(x) * (len(x) - 1))

    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


def _checked(a: object, b: object) -> tuple[Tensor, Tensor]:
    first, second = (check_finite(name, x, "n d").double() for name, x in (("a", a), ("b", b)))
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            "a, b: expected features (n, d) and (m, d) of two images or more, got shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    return first, second
