import inspect

import pytest
import torch

from cxrtut.localize.cam import class_activation_map


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_mean_of_the_map_plus_the_bias_is_the_logit_of_the_classifier():
    linear = torch.nn.Linear(6, 4).double()
    features = numbers(3, 6, 5, 7)
    logits = linear(features.mean(dim=(2, 3)))
    cam = class_activation_map(features, linear.weight)
    assert torch.allclose(cam.mean(dim=(2, 3)) + linear.bias, logits, rtol=0, atol=1e-12)


def test_the_map_is_the_weighted_sum_written_out():
    features, weight = numbers(2, 3, 2, 2), numbers(5, 3)
    cam = class_activation_map(features, weight)
    assert cam.shape == (2, 5, 2, 2)
    for b, k, i, j in torch.cartesian_prod(*map(torch.arange, cam.shape)).tolist():
        written_out = sum(weight[k, c] * features[b, c, i, j] for c in range(3))
        assert torch.isclose(cam[b, k, i, j], written_out, rtol=1e-12)


def test_two_classes_have_two_maps_and_negative_evidence_stays():
    features = numbers(1, 2, 3, 3).abs()
    cam = class_activation_map(features, torch.tensor([[1.0, 0.0], [0.0, -2.0]]).double())
    assert torch.equal(cam[0, 0], features[0, 0]) and torch.equal(cam[0, 1], -2 * features[0, 1])


def test_another_number_of_channels_is_named():
    with pytest.raises(ValueError, match=r"expected 6 columns.* got 5"):
        inspect.unwrap(class_activation_map)(numbers(1, 6, 2, 2), numbers(4, 5))
