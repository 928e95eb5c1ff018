import pytest
import torch
from sklearn.preprocessing import minmax_scale

from cxrtut.localize.heatmap import (
    heatmap_from_maps,
    normalise,
    resize_heatmap,
    smooth_heatmap,
)


def heat(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_each_image_is_normalised_by_itself_and_reaches_both_ends():
    maps = torch.stack((heat(4, 6), 100 * heat(4, 6) - 7))
    scaled = normalise(maps)
    assert scaled.amin(dim=(1, 2)).tolist() == [0, 0] and scaled.amax(dim=(1, 2)).tolist() == [1, 1]
    assert torch.allclose(scaled[0], scaled[1], atol=1e-6)
    assert normalise(torch.tensor([[[2.0, 3.0, 6.0]]])).tolist() == [[[0, 0.25, 1]]]


def test_normalising_is_the_scaling_of_scikit_learn_with_images_as_its_features():
    tied = heat(2, 5, 7).round()
    for maps in (heat(3, 5, 7).double(), tied.double() * 1e6, torch.full((2, 5, 7), 0.7).double()):
        scaled = minmax_scale(maps.flatten(1).numpy(), axis=1).reshape(maps.shape)
        assert torch.allclose(normalise(maps), torch.from_numpy(scaled), atol=1e-12)


def test_a_constant_map_becomes_zeros_and_no_image_stays_no_image():
    maps = torch.stack((torch.full((3, 3), 0.7), heat(3, 3)))
    assert not normalise(maps)[0].any() and normalise(maps)[1].max() == 1
    assert normalise(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


def test_the_gradient_through_a_constant_map_is_a_number():
    constant = torch.full((1, 2, 2), 0.7, requires_grad=True)
    normalise(constant).sum().backward()
    assert constant.grad.isfinite().all()


def test_a_map_with_a_nan_is_not_hidden():
    maps = torch.zeros(2, 2, 2)
    maps[1, 0, 0] = torch.nan
    assert normalise(maps).isnan().flatten(1).all(dim=1).tolist() == [False, True]


def test_resizing_interpolates_between_pixel_centres():
    wide = resize_heatmap(torch.tensor([[[0.0, 1.0]]]), (2, 4))
    assert wide.tolist() == [[[0, 0.25, 0.75, 1]] * 2]


def test_resizing_follows_bilinear_interpolation_written_out():
    coarse = heat(2, 3, 4)
    fine = resize_heatmap(coarse, (9, 8))
    for i in range(9):
        for j in range(8):
            y, x = (i + 0.5) * 3 / 9 - 0.5, (j + 0.5) * 4 / 8 - 0.5
            y, x = min(max(y, 0), 2), min(max(x, 0), 3)
            top, left = min(int(y), 1), min(int(x), 2)
            v, u = y - top, x - left
            corner = coarse[:, top : top + 2, left : left + 2]
            weight = torch.tensor([[(1 - v) * (1 - u), (1 - v) * u], [v * (1 - u), v * u]])
            assert torch.allclose(fine[:, i, j], (corner * weight).sum(dim=(1, 2)), atol=1e-6)


def test_a_size_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"positive \(height, width\), got \(0, 4\)"):
        resize_heatmap(heat(1, 2, 2), (0, 4))


def test_smoothing_is_the_mean_of_the_window_inside_the_image():
    maps = heat(2, 6, 4)
    smooth = smooth_heatmap(maps, 5)
    assert smooth.shape == maps.shape
    for i in range(6):
        for j in range(4):
            window = maps[:, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
            assert torch.allclose(smooth[:, i, j], window.mean(dim=(1, 2)), atol=1e-6)


def test_smoothing_spreads_one_pixel_over_five_by_five_unless_told():
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 25.0
    expected = torch.zeros(1, 9, 9)
    expected[0, 2:7, 2:7] = 1.0
    assert torch.allclose(smooth_heatmap(point), expected)
    assert torch.equal(smooth_heatmap(point, 1), point)


@pytest.mark.parametrize("size", [0, 4, -3])
def test_a_window_without_a_centre_is_refused(size):
    with pytest.raises(ValueError, match=f"odd number of pixels, got {size}"):
        smooth_heatmap(heat(1, 6, 6), size)


def test_maps_of_a_layer_become_heat_by_the_formula():
    maps = 3 * heat(2, 4, 3, 5) - 1
    made = heatmap_from_maps(maps, (9, 20))
    assert made.shape == (2, 4, 9, 20)
    for i in range(2):
        for k in range(4):
            large = resize_heatmap(maps[i, k][None] - maps[i, k].min(), (9, 20))[0]
            spread = maps[i, k].max() - maps[i, k].min()
            expected = (large - large.min()) / (large.max() - large.min()) * spread
            assert torch.allclose(made[i, k], expected, atol=1e-5)


def test_heat_of_maps_is_not_negative_reaches_zero_and_keeps_the_units_of_the_map():
    maps = 7 * heat(3, 2, 4, 4) - 20
    made = heatmap_from_maps(maps, (16, 16))
    assert made.min() == 0 and torch.equal(made.amin((2, 3)), torch.zeros(3, 2))
    spread = maps.amax((2, 3)) - maps.amin((2, 3))
    assert torch.allclose(made.amax((2, 3)), spread, rtol=1e-5)
    assert torch.allclose(heatmap_from_maps(5 * maps + 3, (16, 16)), 5 * made, atol=1e-4)


def test_what_one_image_has_more_than_another_is_still_there():
    small = heat(1, 1, 4, 4)
    made = heatmap_from_maps(torch.cat([small, 10 * small]), (8, 8))
    assert torch.allclose(made[1], 10 * made[0], atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.3, -7.1, 1e6 / 3])
def test_a_map_of_a_layer_without_contrast_points_nowhere(level):
    assert not heatmap_from_maps(torch.full((2, 3, 7, 5), level), (31, 64)).any()


def test_the_ranks_of_a_map_are_those_of_its_heat_at_the_same_size():
    maps = heat(2, 3, 6, 6)
    made = heatmap_from_maps(maps, (6, 6))
    assert torch.equal(maps.flatten(2).argsort(2), made.flatten(2).argsort(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_half_precision_are_resampled_in_float32_and_stay_half(dtype):
    maps = heat(3, 9, 9).to(dtype)
    for resample in (
        lambda x: resize_heatmap(x, (700, 500)),
        lambda x: smooth_heatmap(x, 5),
        lambda x: heatmap_from_maps(x[None], (300, 300)),
    ):
        found = resample(maps)
        assert found.dtype == dtype
        assert torch.equal(found, resample(maps.float()).to(dtype))
