import math

import pytest
import torch
import torch.nn.functional as F

from cxrtut.data.phantom.shapes import (
    at_height,
    blur,
    enlarge,
    exp,
    heights,
    positive,
    profile,
    root,
    smooth_coarse,
    splat,
    sqrt_,
)


def test_splat_keeps_the_sum_and_puts_a_whole_point_on_its_pixel():
    px, py = torch.tensor([[2.0, 3.25, 99.0]]), torch.tensor([[1.0, 4.5, 3.0]])
    image = splat(px, py, torch.tensor([[1.0, 2.0, 7.0]]), 8)
    assert image[0, 1, 2] == 1
    assert torch.isclose(image.sum(), torch.tensor(3.0))  # what lies outside is not drawn
    assert torch.isclose(image[0, 4, 3], torch.tensor(2 * 0.75 * 0.5))


def test_square_roots_are_rounded_correctly():
    x = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = x.double().sqrt().float()
    assert sqrt_(x) is x and torch.equal(x, exact)


def test_blur_is_a_gaussian_of_each_images_own_width():
    image = torch.zeros(2, 41, 41)
    image[:, 20, 20] = 1
    width = torch.tensor([1.0, 2.0])[:, None, None]
    blurred = blur(image, width, 3.0)
    t = torch.arange(41) - 20.0
    for i, s in enumerate((1.0, 2.0)):
        profile_1d = torch.exp(-0.5 * (t / s) ** 2) / (s * math.sqrt(2 * math.pi))
        assert torch.allclose(blurred[i], profile_1d[:, None] * profile_1d, atol=2e-3)
    assert torch.allclose(blurred.sum((1, 2)), torch.ones(2), atol=1e-5)


def test_blur_equals_a_convolution():
    image = torch.rand(1, 16, 16)
    t = torch.arange(-3, 4).float()
    kernel = torch.exp(-0.5 * (t / 1.2) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[None], (3, 3, 3, 3), mode="replicate")
    expected = F.conv2d(padded, (kernel[:, None] * kernel)[None, None])[0]
    assert torch.allclose(blur(image, torch.full((1, 1, 1), 1.2), 1.2), expected, atol=1e-6)


def test_a_profile_passes_near_its_knots_and_is_read_at_any_height():
    knots = torch.tensor([[-20.0, -5.0, 5.0, 20.0]])
    values = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    table = profile(knots, values, 1.0)
    y = torch.tensor([[[-15.0, 0.0, 15.0, 99.0]]])
    read = at_height(table[:, None], y)[0, 0, 0]
    assert torch.allclose(read, torch.tensor([1.0, 2.0, 3.0, 3.0]), atol=1e-3)
    assert heights(torch.device("cpu"))[0] == -26


def test_the_blur_of_an_accelerator_is_the_blur_of_a_cpu():
    from cxrtut.data.phantom.shapes import _blur_along, _weights

    image = torch.rand(3, 24, 24)
    width = torch.tensor([0.3, 1.0, 1.7])[:, None, None]
    weights = _weights(width, 4)
    by_taps = _blur_along(_blur_along(image, 1, weights), 2, weights)
    assert torch.allclose(blur(image, width, 4 / 2.2), by_taps, atol=1e-6)


def test_quick_functions_are_those_of_torch():
    x = torch.tensor([-300.0, -5.0, -0.1, -0.0, 0.0, 0.1, 5.0])
    assert torch.allclose(exp(x), torch.exp(x), rtol=3e-6, atol=0)
    assert torch.allclose(root(x), torch.sqrt(x.clamp_min(0)), rtol=1e-6, atol=2e-15)
    assert positive(x).tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_enlarging_is_bilinear_interpolation_between_pixel_centres():
    images = torch.rand(2, 3, 8, 8)
    expected = F.interpolate(images, size=(20, 20), mode="bilinear", align_corners=False)
    assert torch.allclose(enlarge(images, 20), expected, atol=1e-6)


@pytest.mark.parametrize("size", [32, 48, 64, 112, 944, 1008, 1024])
def test_a_very_wide_blur_keeps_a_slope_in_its_place_at_every_size(size):
    """Where it was cut to whole cells, the picture was stretched, or blurred less than told."""
    line = (torch.arange(size) + 0.5) / size
    slope = line.expand(1, size, size).contiguous()
    blurred = smooth_coarse(slope, 32, 3.0)
    middle = slice(size // 3, 2 * size // 3)
    assert (blurred - slope)[:, :, middle].abs().max() < 0.004
    point = torch.zeros(1, size, size)
    point[0, size // 2 - size // 16 : size // 2 + size // 16] = 1.0
    spread = smooth_coarse(point, 32, 3.0)[0, :, size // 2]
    weight = spread / spread.sum()
    centre = (weight * line).sum()
    width = (weight * (line - centre) ** 2).sum().sqrt()
    assert abs(float(centre) - 0.5) < 0.02 and 0.090 < float(width) < 0.112
