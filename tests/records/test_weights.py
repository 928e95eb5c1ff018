"""Weights as files."""

import pytest
import torch
from cxrtut.engine.weights import WeightsError, load_weights, save_weights
from torch import nn


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    one, other = network(), network()
    one(torch.randn(4, 1, 8, 8))  # moves the running statistics
    sha256 = save_weights(one, tmp_path / "weights" / "g.safetensors")
    load_weights(other, tmp_path / "weights" / "g.safetensors", sha256)
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["g.safetensors"]


def test_a_network_in_the_layout_of_a_gpu_is_saved_too(tmp_path):
    one = nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
    other = nn.Conv2d(3, 2, 3)
    load_weights(other, tmp_path / "g", save_weights(one, tmp_path / "g"))
    assert torch.equal(one.weight, other.weight)


def test_another_file_and_another_network_are_refused(tmp_path):
    path = tmp_path / "g.safetensors"
    sha256 = save_weights(network(), path)
    with pytest.raises(
        WeightsError, match=r"g.safetensors: expected SHA-256 000000000000\.\.\., got"
    ):
        load_weights(network(), path, "0" * 64)
    with pytest.raises(WeightsError, match="holds another network"):
        load_weights(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), path, sha256)
