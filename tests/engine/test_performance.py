"""Settings of the GPU."""

import pytest
import torch
from engine.toy import ToyGAN
from torch import nn

from cxrtut.engine import phase_step
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.performance import performance_settings
from cxrtut.engine.precision import Precision


def test_on_a_cpu_nothing_is_changed():
    network = nn.Conv2d(1, 2, 3)
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    with performance_settings(torch.device("cpu"), [network]):
        assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before
        assert network.weight.is_contiguous()


def test_for_a_gpu_the_settings_are_made_and_put_back_also_after_an_error():
    network = nn.Conv2d(4, 2, 3)
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), performance_settings(torch.device("cuda"), [network]):
        assert torch.backends.cudnn.benchmark and torch.get_float32_matmul_precision() == "high"
        assert network.weight.is_contiguous(memory_format=torch.channels_last)
        raise KeyError
    assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before


def test_scaled_gradients_cannot_be_captured():
    steps = phase_step.PhaseStep(
        ToyGAN(), torch.device("cpu"), Precision("cuda", torch.float16), Ranks()
    )
    with pytest.raises(ValueError, match="cuda_graphs: expected float32 or bfloat16, got float16"):
        phase_step.CudaGraphRunner(steps)
