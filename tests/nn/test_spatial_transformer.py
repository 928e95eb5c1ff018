import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cxrtut.nn.backbones import ResNet18
from cxrtut.nn.spatial_transformer import (
    SpatialTransformer,
    five_parameter_matrix,
    invert,
    sampling_grid,
    warp,
)


def some_matrices(n: int = 5) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    u = torch.rand(n, 5, generator=draw)
    return five_parameter_matrix(
        0.7 + 0.6 * u[:, 0], 0.7 + 0.6 * u[:, 1], u[:, 2] - 0.5, u[:, 3] - 0.5, 2 * u[:, 4] - 1
    )


def small(parameters: int = 5, *, bounded: bool = True) -> SpatialTransformer:
    torch.manual_seed(1)
    trunk = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU())
    return SpatialTransformer(trunk, 6, parameters=parameters, bounded=bounded, hidden=8)


def test_the_matrix_is_the_printed_one():
    (matrix,) = five_parameter_matrix(*torch.tensor([[0.8], [1.2], [0.1], [-0.2], [0.3]]))
    cos, sin = math.cos(0.3), math.sin(0.3)
    printed = [[0.8 * cos, -1.2 * sin, 0.1], [0.8 * sin, 1.2 * cos, -0.2]]
    assert torch.allclose(matrix, torch.tensor(printed))


@pytest.mark.parametrize("parameters", [5, 6])
@pytest.mark.parametrize("bounded", [True, False])
def test_it_starts_as_the_identity_and_changes_no_pixel(parameters: int, bounded: bool):
    network = small(parameters, bounded=bounded)
    image = torch.rand(3, 1, 16, 16) * 2 - 1
    matrix = network(image)
    assert torch.equal(matrix, torch.eye(2, 3).expand(3, 2, 3))
    assert torch.allclose(warp(image, matrix), image, atol=1e-6)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_bounds_hold_however_far_the_head_goes(sign: float):
    network = small()
    nn.init.constant_(network.head[2].bias, sign * 1e4)
    (matrix,) = network(torch.zeros(1, 1, 16, 16))
    scale = matrix[:, :2].norm(dim=0)
    assert torch.allclose(scale, torch.full((2,), 1 + sign * 0.5))
    assert torch.allclose(matrix[:, 2], torch.full((2,), sign * 0.5))
    angle = torch.atan2(matrix[1, 0], matrix[0, 0]).item()
    assert angle == pytest.approx(sign * math.pi / 4)


def test_without_bounds_the_head_says_the_parameters_themselves():
    network = small(bounded=False)
    network.head[2].bias.data = torch.tensor([0.9, -0.5, 2.0, -3.0, 0.0])
    (matrix,) = network(torch.zeros(1, 1, 16, 16))
    assert torch.allclose(matrix, torch.tensor([[1.9, 0.0, 2.0], [0.0, 0.5, -3.0]]))


def test_six_parameters_may_shear():
    network = small(6)
    network.head[2].bias.data = torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0, 0.0])
    (matrix,) = network(torch.zeros(1, 1, 16, 16))
    assert torch.allclose(matrix, torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0]]), atol=1e-4)


def test_the_grid_is_torchs():
    matrix = some_matrices()
    theirs = F.affine_grid(matrix, [5, 1, 12, 20], align_corners=False)
    assert torch.allclose(sampling_grid(matrix, 12, 20), theirs, atol=1e-6)


def test_there_and_back_is_where_one_was():
    matrix = some_matrices()
    full = torch.tensor([[0.0, 0.0, 1.0]]).expand(5, 1, 3)
    product = torch.cat([invert(matrix), full], 1) @ torch.cat([matrix, full], 1)
    assert torch.allclose(product, torch.eye(3).expand(5, 3, 3), atol=1e-5)


def test_a_scale_below_one_zooms_in_and_a_shift_looks_to_the_right():
    image = torch.full((1, 1, 32, 32), -1.0)
    image[:, :, 12:20, 16:24] = 1.0  # right of the centre
    one, zero = torch.ones(1), torch.zeros(1)
    zoomed = warp(image, five_parameter_matrix(one / 2, one / 2, zero, zero, zero))
    assert zoomed[0, 0, 9:23, 17:31].min() > 0.9  # twice as large, about the centre
    moved = warp(image, five_parameter_matrix(one, one, one / 4, zero, zero))
    assert torch.allclose(moved[..., 12:20], image[..., 16:24])


def test_a_positive_angle_looks_at_what_lies_clockwise():
    image = torch.full((1, 1, 33, 33), -1.0)
    image[:, :, 16, 26] = 1.0  # right of the centre
    quarter = torch.full((1,), math.pi / 2)
    one, zero = torch.ones(1), torch.zeros(1)
    turned = warp(image, five_parameter_matrix(one, one, zero, zero, quarter))
    # the output's top is found at the right of the input
    assert turned[0, 0, 6, 16] > 0.9


def test_beyond_the_image_it_is_black_or_what_was_asked_for():
    image = torch.full((1, 1, 16, 16), 0.5)
    away = five_parameter_matrix(
        torch.ones(1), torch.ones(1), torch.full((1,), 3.0), torch.zeros(1), torch.zeros(1)
    )
    assert torch.equal(warp(image, away), torch.full_like(image, -1.0))
    assert torch.equal(warp(image, away, outside=0.0), torch.zeros_like(image))


def test_the_gradient_reaches_every_parameter_and_learns_a_shift():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")

    def blob(at: float) -> torch.Tensor:
        return 2 * torch.exp(-8 * ((x - at) ** 2 + y**2))[None, None] - 1

    network = small()
    target, image = blob(0.0), blob(0.3)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    first = last = None
    for step in range(150):
        matrix = network(image)
        loss = (warp(image, matrix) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 1:  # in the first step the head's zeros stop the gradient before the trunk
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        optimizer.step()
        first, last = first or loss.item(), loss.item()
    assert last < 0.1 * first
    assert network(image)[0, 0, 2].item() == pytest.approx(0.3, abs=0.08)


def test_the_paper_s_aligner_is_a_resnet_18_with_five_outputs():
    with torch.device("meta"):
        trunk = ResNet18(3, 2)
        network = SpatialTransformer(trunk.features, 512)
    numbers = sum(p.numel() for p in network.parameters())
    assert numbers == 11_176_512 + 512 * 256 + 256 + 256 * 5 + 5


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="expected 5 or 6, got 4"):
        small(4)
    with pytest.raises(ValueError, match="expected 2 matrices, one per image, got 5"):
        warp(torch.zeros(2, 1, 8, 8), some_matrices())


HALF = [torch.float16, torch.bfloat16]


def fine_detail(size: int = 512) -> torch.Tensor:
    return torch.rand(5, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("dtype", HALF)
def test_an_image_of_half_precision_is_warped_in_float32_and_stays_half(dtype):
    image = fine_detail().to(dtype)
    identity = torch.eye(2, 3).expand(5, 2, 3)
    assert torch.equal(warp(image, identity), image)
    moved = warp(image, some_matrices())
    assert moved.dtype == dtype
    assert torch.equal(moved, warp(image.float(), some_matrices()).to(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_a_matrix_of_half_precision_gives_places_in_float32(dtype):
    matrix = some_matrices().to(dtype)
    grid = sampling_grid(matrix, 300, 400)
    assert torch.equal(grid, sampling_grid(matrix.float(), 300, 400))
    image = fine_detail(64)
    assert torch.equal(warp(image, matrix), warp(image, matrix.float()))


@pytest.mark.parametrize("dtype", HALF)
def test_the_gradient_of_a_half_precision_image_reaches_the_matrix(dtype):
    matrix = some_matrices().requires_grad_()
    image = fine_detail(32).to(dtype).requires_grad_()
    warp(image, matrix).float().square().mean().backward()
    assert matrix.grad.abs().sum() > 0 and image.grad.dtype == dtype
