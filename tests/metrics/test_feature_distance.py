"""Distances of sets of features against torchmetrics and closed forms."""

import inspect
import warnings

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from cxrtut.metrics.feature_distance import frechet_distance, kernel_distance


class Flat(nn.Module):
    """An image of 12 numbers as its own features."""

    num_features = 12

    def forward(self, images):
        return images.flatten(1).float() / 255


def two_sets(seed=0, n=40, m=50):
    draw = torch.Generator().manual_seed(seed)
    a = torch.randint(0, 256, (n, 3, 2, 2), generator=draw, dtype=torch.uint8)
    b = torch.randint(40, 200, (m, 3, 2, 2), generator=draw, dtype=torch.uint8)
    return a, b


@pytest.mark.parametrize("seed", range(3))
def test_the_frechet_distance_is_torchmetrics(seed):
    a, b = two_sets(seed)
    oracle = FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 2, 2))
    oracle.set_dtype(torch.float64)
    oracle.update(a, real=True)
    oracle.update(b, real=False)
    found = frechet_distance(Flat()(a), Flat()(b))
    assert found == pytest.approx(float(oracle.compute()), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_kernel_distance_is_torchmetrics(seed):
    a, b = two_sets(seed, 40, 40)
    with warnings.catch_warnings(action="ignore"):  # it says that it keeps the features
        oracle = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=40)
    oracle.update(a, real=True)
    oracle.update(b, real=False)
    found = kernel_distance(Flat()(a), Flat()(b))
    assert found == pytest.approx(float(oracle.compute()[0]), rel=1e-4)


def test_normal_distributions_have_the_known_frechet_distance():
    torch.manual_seed(0)
    a, b = torch.randn(40_000, 3), torch.randn(40_000, 3) * torch.tensor([2.0, 1, 1]) + 1
    assert frechet_distance(a, b) == pytest.approx(3 + 1, abs=0.1)  # shift² + (2 - 1)²


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_sets_of_one_distribution_are_near_and_the_distance_has_no_direction(distance):
    torch.manual_seed(1)
    a, b, far = torch.randn(500, 8), torch.randn(400, 8), torch.randn(400, 8) + 1
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert abs(distance(a, b)) < 0.1 * distance(a, far)
    assert distance(a, a) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(("n", "d"), [(1, 4), (5, 3)])
def test_too_few_images_and_other_features_are_refused(distance, n, d):
    with pytest.raises(ValueError, match=r"a, b: expected features .* got shapes \(5, 4\) and"):
        inspect.unwrap(distance)(torch.rand(5, 4), torch.rand(n, d))
