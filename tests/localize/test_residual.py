import inspect

import pytest
import torch

from cxrtut.localize.residual import largest_residual_heatmap, residual_heatmap

BOTH = (residual_heatmap, largest_residual_heatmap)


def test_channels_are_joined_by_their_mean_or_their_largest():
    image = torch.zeros(1, 3, 1, 2)
    healthy = torch.tensor([[[[0.3, 1.0]], [[-0.6, 0.0]], [[0.0, 0.5]]]])
    assert torch.allclose(residual_heatmap(image, healthy), torch.tensor([0.3, 0.5]))
    assert torch.allclose(largest_residual_heatmap(image, healthy), torch.tensor([0.6, 1.0]))


@pytest.mark.parametrize("heatmap_of", BOTH)
def test_only_what_was_changed_is_hot_whatever_the_sign(heatmap_of):
    healthy = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    image = healthy.clone()
    image[0, :, 2:4, 1:5] += 0.25
    image[1, :, 6, 6] -= 0.25
    expected = torch.zeros(2, 8, 8)
    expected[0, 2:4, 1:5] = expected[1, 6, 6] = 0.25
    assert torch.allclose(heatmap_of(image, healthy), expected, atol=1e-6)
    assert torch.equal(heatmap_of(image, healthy), heatmap_of(healthy, image))


@pytest.mark.parametrize("heatmap_of", BOTH)
def test_an_image_left_alone_is_cold_and_the_range_ends_at_two(heatmap_of):
    white = torch.ones(1, 3, 2, 2)
    assert not heatmap_of(white, white).any()
    assert (heatmap_of(white, -white) == 2).all()


@pytest.mark.parametrize("heatmap_of", BOTH)
def test_another_shape_is_named_and_not_broadcast(heatmap_of):
    with pytest.raises(ValueError, match=r"expected \(2, 3, 4, 4\).* got \(2, 1, 4, 4\)"):
        inspect.unwrap(heatmap_of)(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
