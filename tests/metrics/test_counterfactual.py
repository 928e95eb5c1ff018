import inspect
import math

import numpy as np
import pytest
import torch

from cxrtut.data.sample import from_uint8
from cxrtut.metrics.counterfactual import (
    background_change,
    pixel_change_rate,
    residual_lesion_ratio,
)


def lesions(channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, their healthy twins and masks of 12 and 4 pixels of 48."""
    generator = torch.Generator().manual_seed(0)
    healthy = torch.rand(2, channels, 6, 8, generator=generator) - 0.5
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[0, 1:4, 2:6] = mask[1, 4:6, :2] = True
    lesion = 0.1 + 0.3 * torch.rand(2, channels, 6, 8, generator=generator)
    return torch.where(mask[:, None], healthy + lesion, healthy), healthy, mask


@pytest.mark.parametrize("channels", [1, 3])
def test_the_healthy_twin_itself_is_perfect_in_every_respect(channels):
    image, healthy, mask = lesions(channels)
    assert residual_lesion_ratio(image, healthy, healthy, mask).tolist() == [0, 0]
    assert background_change(image, healthy, mask).tolist() == [0, 0]
    assert torch.allclose(pixel_change_rate(image, healthy), torch.tensor([12, 4]).double() / 48)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_untouched_image_removes_and_damages_nothing(channels):
    image, healthy, mask = lesions(channels)
    assert residual_lesion_ratio(image, healthy, image, mask).tolist() == [1, 1]
    assert background_change(image, image, mask).tolist() == [0, 0]
    assert pixel_change_rate(image, image).tolist() == [0, 0]


@pytest.mark.parametrize(("share", "error"), [(0.25, 0.75), (0.5, 0.5), (2.0, 1.0), (3.0, 2.0)])
def test_the_error_is_the_share_of_the_lesion_that_is_left_or_overdone(share, error):
    image, healthy, mask = lesions()
    output = image + share * (healthy - image)
    found = residual_lesion_ratio(image, healthy, output, mask)
    assert torch.allclose(found, torch.full((2,), error).double(), atol=1e-5)
    assert background_change(image, output, mask).tolist() == [0, 0]


def test_what_happens_outside_the_mask_is_damage_and_no_removal():
    image, healthy, mask = lesions()
    output = image.clone()
    output[0, 0, 0, :6] += 0.5
    assert residual_lesion_ratio(image, healthy, output, mask).tolist() == [1, 1]
    expected = torch.tensor([6 * 0.5 / 36, 0.0]).double()
    assert torch.allclose(background_change(image, output, mask), expected, atol=1e-7)


def test_the_measures_are_their_formulas_written_out():
    image, healthy, mask = lesions(3)
    output = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(5)) - 0.5
    for i in range(2):
        x, h, g = (a[i].double().movedim(0, -1) for a in (image, healthy, output))
        m = mask[i]
        left = (g[m] - h[m]).abs().mean() / (x[m] - h[m]).abs().mean()
        damage = (g[~m] - x[~m]).abs().mean()
        assert math.isclose(
            residual_lesion_ratio(image, healthy, output, mask)[i], left, rel_tol=1e-6
        )
        assert math.isclose(background_change(image, output, mask)[i], damage, rel_tol=1e-6)


def test_what_is_not_defined_is_nan():
    image, healthy, mask = lesions()
    mask[0] = False
    assert residual_lesion_ratio(image, healthy, image, mask).isnan().tolist() == [True, False]
    unseen = healthy.clone()
    unseen[1] = image[1]
    assert residual_lesion_ratio(image, unseen, healthy, mask).isnan().tolist() == [True, True]
    mask[1] = True
    assert background_change(image, image + 0.5, mask).isnan().tolist() == [False, True]


def test_without_a_lesion_every_change_is_damage():
    image, _, mask = lesions()
    damage = background_change(image, image + 0.25, torch.zeros_like(mask))
    assert torch.allclose(damage, torch.full((2,), 0.25).double(), atol=1e-6)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 4])
def test_a_change_of_as_many_grey_levels_as_allowed_does_not_count_and_one_more_does(tolerance):
    level = torch.arange(5, 256, dtype=torch.uint8).view(1, 1, 1, 251)
    for change in range(6):
        image, output = from_uint8(level), from_uint8(level - change)
        expected = [float(change > tolerance)]
        assert pixel_change_rate(image, output, grey_levels=tolerance).tolist() == expected
        assert pixel_change_rate(output, image, grey_levels=tolerance).tolist() == expected


def test_unless_told_otherwise_one_grey_level_counts():
    level = torch.arange(1, 256, dtype=torch.uint8).view(1, 1, 1, 255)
    assert pixel_change_rate(from_uint8(level), from_uint8(level - 1)).tolist() == [1.0]
    assert pixel_change_rate(from_uint8(level), from_uint8(level)).tolist() == [0.0]


def test_noise_of_less_than_half_a_grey_level_does_not_count_and_more_does():
    image = from_uint8(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    sign = 1 - 2.0 * (torch.arange(256) % 2).view(1, 1, 16, 16)
    assert pixel_change_rate(image, image + sign * 0.49 / 127.5).tolist() == [0.0]
    changed = pixel_change_rate(image, image + sign * 0.51 / 127.5)
    assert changed.tolist() == [1.0]  # 0 goes up and 255 down: nothing is clipped


def test_what_leaves_the_range_of_images_is_clipped_on_both_sides():
    image = torch.tensor([[[[1.0, -1.0, 0.9, 1.5]]]])
    output = torch.tensor([[[[1.7, -3.0, 2.0, -9.0]]]])
    assert pixel_change_rate(image, output).tolist() == [0.5]
    assert pixel_change_rate(image, output, grey_levels=254).tolist() == [0.25]
    assert pixel_change_rate(image, output, grey_levels=255).tolist() == [0.0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tolerance", [0, 1, 2, 4])
def test_the_change_rate_is_that_of_numpy_on_files_of_bytes(channels, tolerance):
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(4, channels, 9, 7, generator=generator) * 2 - 1
    noise = 0.03 * torch.randn(4, channels, 9, 7, generator=generator)
    output = image + noise * (torch.rand(4, 1, 9, 7, generator=generator) < 0.7)
    found = pixel_change_rate(image, output, grey_levels=tolerance)
    assert found.dtype == torch.float64 and found.shape == (4,)
    before, after = (
        np.clip(np.rint((x.numpy() + 1) * 127.5), 0, 255).astype(int) for x in (image, output)
    )
    for rate, x, g in zip(found.tolist(), before, after, strict=True):
        changed = [
            max(abs(x[c, i, j] - g[c, i, j]) for c in range(channels)) > tolerance
            for i in range(9) for j in range(7)
        ]  # fmt: skip
        assert rate == pytest.approx(np.mean(changed), abs=1e-12) and 0 < rate < 1


def test_a_pixel_is_changed_if_one_of_its_channels_is_and_counts_once():
    image = torch.zeros(1, 3, 2, 2)
    output = image.clone()
    output[0, 1, 0, 0] = 0.5
    output[0, :, 1, 1] = -0.5
    assert pixel_change_rate(image, output).tolist() == [0.5]


def test_each_image_has_its_own_rate_also_in_half_precision():
    image = torch.zeros(2, 1, 4, 4)
    output = image.clone()
    output[1, 0, 0, :3] = 1
    for kind in (torch.float16, torch.float32, torch.float64):
        assert pixel_change_rate(image.to(kind), output.to(kind)).tolist() == [0, 3 / 16]
    assert pixel_change_rate(image[:0], output[:0]).shape == (0,)


def test_a_tolerance_below_none_is_refused():
    image = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"grey_levels: expected 0 or more, got -1"):
        pixel_change_rate(image, image, grey_levels=-1)


def test_an_output_that_is_not_finite_is_refused_and_not_left_out_of_the_mean():
    image, healthy, mask = lesions()
    output = healthy.clone()
    output[1, 0, 0, 0] = torch.nan
    for measure in (
        lambda: residual_lesion_ratio(image, healthy, output, mask),
        lambda: background_change(image, output, mask),
        lambda: pixel_change_rate(image, output),
    ):
        with pytest.raises(ValueError, match="output: expected finite values"):
            measure()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"healthy": (2, 3, 6, 8)}, ValueError, r"healthy: expected shape \(2, 1, 6, 8\), got"),
        ({"output": (1, 1, 6, 8)}, ValueError, r"output: expected .* got \(1, 1, 6, 8\)"),
        ({"mask": (2, 1, 6, 8)}, ValueError, r"mask: expected shape \(2, 6, 8\).* got \(2, 1"),
        ({"mask": None}, TypeError, "mask: expected torch.bool, got torch.float32"),
    ],
)
def test_what_does_not_fit_together_is_named(change, error, words):
    image, healthy, mask = lesions()
    arguments = {"image": image, "healthy": healthy, "output": image, "mask": mask}
    for name, shape in change.items():
        kind = torch.float32 if name != "mask" else torch.bool
        arguments[name] = mask.float() if shape is None else torch.zeros(shape, dtype=kind)
    with pytest.raises(error, match=words):
        inspect.unwrap(residual_lesion_ratio)(**arguments)
