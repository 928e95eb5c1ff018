"""Memory layout and settings of a device."""

import pytest
import torch
from engine.toy import ToyGAN
from torch import nn

from cxrtut.engine import phase_step
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.performance import performance_settings
from cxrtut.engine.precision import Precision

LIKED = torch.channels_last


def test_on_a_cpu_all_but_a_discriminator_get_the_layout_and_no_setting_is_changed():
    names = ("generator", "classifier", "discriminator", "discriminator_2")
    networks = {name: nn.Conv2d(4, 2, 3) for name in names}
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    with performance_settings(torch.device("cpu"), networks):
        assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before
    liked = [n for n, c in networks.items() if c.weight.is_contiguous(memory_format=LIKED)]
    assert liked == ["generator", "classifier"]
    assert all(networks[n].weight.is_contiguous() for n in names[2:])


def test_an_apple_gpu_is_left_alone():
    network = nn.Conv2d(4, 2, 3)
    with performance_settings(torch.device("mps"), {"generator": network}):
        assert network.weight.is_contiguous()


def test_the_layout_changes_no_answer_and_the_state_keeps_its_shapes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    x = torch.randn(2, 3, 16, 16)
    before = network.eval()(x)
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    with performance_settings(torch.device("cpu"), {"generator": network}):
        torch.testing.assert_close(network(x), before)
    assert {k: v.shape for k, v in network.state_dict().items()} == shapes


def test_for_a_gpu_the_settings_are_made_and_put_back_also_after_an_error():
    network = nn.Conv2d(4, 2, 3)
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    with (
        pytest.raises(KeyError),
        performance_settings(torch.device("cuda"), {"discriminator": network}),
    ):
        assert torch.backends.cudnn.benchmark and torch.get_float32_matmul_precision() == "high"
        assert network.weight.is_contiguous(memory_format=LIKED)
        raise KeyError
    assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before


def test_scaled_gradients_cannot_be_captured():
    steps = phase_step.PhaseStep(
        ToyGAN(), torch.device("cpu"), Precision("cuda", torch.float16), Ranks()
    )
    with pytest.raises(ValueError, match="cuda_graphs: expected float32 or bfloat16, got float16"):
        phase_step.CudaGraphRunner(steps)
