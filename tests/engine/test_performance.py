"""Memory layout and settings of a device."""

import pytest
import torch
from engine.toy import ToyGAN
from torch import nn

from cxrtut.engine import phase_step
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.performance import performance_settings, set_fused, set_memory_format
from cxrtut.engine.precision import Precision
from cxrtut.nn.backbones import ResNet10

CPU = torch.device("cpu")
LIKED = torch.channels_last


def test_on_a_cpu_all_but_a_discriminator_get_the_layout_and_no_setting_is_changed():
    names = ("generator", "classifier", "discriminator", "discriminator_2")
    networks = {name: nn.Conv2d(4, 2, 3) for name in names}
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    with performance_settings(CPU, networks, {}):
        assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before
    liked = [n for n, c in networks.items() if c.weight.is_contiguous(memory_format=LIKED)]
    assert liked == ["generator", "classifier"]
    assert all(networks[n].weight.is_contiguous() for n in names[2:])


def test_a_network_whose_gradient_would_overrun_its_memory_stays_as_it_is():
    """ResNets of small width: the shortcut is a strided 1 x 1 convolution."""
    small, wide = ResNet10(width=12, stride=8), ResNet10(width=16, stride=8)
    set_memory_format(CPU, {"classifier": small, "classifier_2": wide})
    assert small.features.get_parameter("block1.first.weight").is_contiguous()
    assert wide.features.get_parameter("block1.first.weight").is_contiguous(memory_format=LIKED)


def test_a_network_with_group_norms_stays_as_it_is():
    normed = nn.Sequential(nn.Conv2d(4, 4, 3), nn.GroupNorm(4, 4))
    set_memory_format(CPU, {"generator": normed})
    assert normed[0].weight.is_contiguous()


def test_an_apple_gpu_is_left_alone():
    network = nn.Conv2d(4, 2, 3)
    with performance_settings(torch.device("mps"), {"generator": network}, {}):
        assert network.weight.is_contiguous()


def test_the_layout_changes_no_answer_and_the_state_keeps_its_shapes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    x = torch.randn(2, 3, 16, 16)
    before = network.eval()(x)
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    with performance_settings(CPU, {"generator": network}, {}):
        torch.testing.assert_close(network(x), before)
    assert {k: v.shape for k, v in network.state_dict().items()} == shapes


def test_for_a_gpu_the_settings_are_made_and_put_back_also_after_an_error():
    network = nn.Conv2d(4, 2, 3)
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    with (
        pytest.raises(KeyError),
        performance_settings(torch.device("cuda"), {"discriminator": network}, {}),
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


def adam(weight, layout):
    parameter = nn.Parameter(weight.clone().to(memory_format=layout))
    return parameter, torch.optim.Adam([parameter], 0.1)


def test_adam_in_one_pass_moves_as_torch_describes_it():
    """Kingma & Ba, Algorithm 1, by hand, in both layouts."""
    weight, gradients = torch.randn(8, 4, 3, 3), torch.randn(3, 8, 4, 3, 3)
    expected, m, v = weight.double(), 0.0, 0.0
    for t, g in enumerate(gradients.double(), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        expected = expected - 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    for layout in (torch.contiguous_format, LIKED):
        parameter, optimizer = adam(weight, layout)
        set_fused(CPU, optimizer)
        assert optimizer.param_groups[0]["fused"]
        for gradient in gradients:
            parameter.grad = gradient.clone().to(memory_format=layout)
            optimizer.step()
        torch.testing.assert_close(parameter.double(), expected, rtol=0, atol=2e-6)


def test_moments_of_another_layout_take_that_of_their_parameter():
    """As they come from the checkpoint of a GPU, or when the layout is set between two steps."""
    weight, gradients = torch.randn(8, 4, 3, 3), torch.randn(2, 8, 4, 3, 3)
    moved, plain = adam(weight, torch.contiguous_format), adam(weight, torch.contiguous_format)
    for (parameter, optimizer), layout in ((moved, LIKED), (plain, torch.contiguous_format)):
        parameter.grad = gradients[0].clone()
        optimizer.step()
        parameter.data = parameter.data.to(memory_format=layout)
        set_fused(CPU, optimizer)
        parameter.grad = gradients[1].clone().to(memory_format=layout)
        optimizer.step()
    torch.testing.assert_close(moved[0], plain[0])


def test_elsewhere_an_optimiser_from_a_cpu_takes_the_default_and_others_are_left_alone():
    _, optimizer = adam(torch.zeros(1, 1, 1, 1), LIKED)
    set_fused(CPU, optimizer)
    set_fused(torch.device("cuda"), optimizer)
    assert optimizer.param_groups[0]["fused"] is None
    slow = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    set_fused(CPU, slow)
    assert slow.param_groups[0]["fused"] is None
