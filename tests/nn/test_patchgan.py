import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrtut.nn.patchgan import PatchGAN


@pytest.mark.parametrize(
    ("channels", "norm", "parameters"),
    [
        (3, nn.InstanceNorm2d, 2_764_737),
        (1, nn.InstanceNorm2d, 2_762_689),
        (6, nn.BatchNorm2d, 2_768_705),
        (2, nn.BatchNorm2d, 2_764_609),
    ],
)
def test_the_network_is_as_large_as_the_public_one(channels, norm, parameters):
    with torch.device("meta"):
        network = PatchGAN(channels, norm=norm)
        assert network(torch.empty(1, channels, 256, 256)).shape == (1, 1, 30, 30)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("halvings", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_of_the_papers_size(halvings, patch):
    """pix2pix, Section 6.1.2, names 16 x 16 and 70 x 70."""
    torch.manual_seed(0)
    network = PatchGAN(1, 2, halvings, nn.Identity)
    image = torch.randn(1, 1, 128, 128, requires_grad=True)
    logit = network(image)
    (slope,) = torch.autograd.grad(logit[0, 0, logit.shape[2] // 2, logit.shape[3] // 2], image)
    rows, columns = slope[0, 0].nonzero().T
    assert rows.max() - rows.min() + 1 == patch and columns.max() - columns.min() + 1 == patch


def normalised(x: Tensor) -> Tensor:
    centred = x - x.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


def test_the_logits_are_those_of_the_formula():
    torch.manual_seed(0)
    network = PatchGAN(2, 3, 3, nn.InstanceNorm2d)
    x = image = torch.randn(2, 2, 48, 64)
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    for k, layer in enumerate(layers):
        x = F.pad(x, (1, 1, 1, 1))
        x = F.conv2d(x, layer.weight, layer.bias, stride=2 if k < 3 else 1)
        if 0 < k < 4:
            x = normalised(x)
        if k < 4:
            x = torch.where(x > 0, x, x / 5)
    assert torch.allclose(network(image), x, atol=1e-5) and x.std() > 1e-3


def test_channels_double_up_to_eight_times_the_first():
    with torch.device("meta"):
        network = PatchGAN(1, 4, 5)
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [4, 8, 16, 32, 32, 32, 1]


@pytest.mark.parametrize(
    ("norm", "biases"),
    [
        (nn.BatchNorm2d, [True, False, False, False, True]),
        (nn.InstanceNorm2d, [True] * 5),
        (nn.Identity, [True] * 5),
    ],
)
def test_a_convolution_has_a_bias_where_no_shift_is_learnt_behind_it(norm, biases):
    layers = [part for part in PatchGAN(1, 2, norm=norm).modules() if isinstance(part, nn.Conv2d)]
    assert [layer.bias is not None for layer in layers] == biases


def test_with_instance_norm_training_and_evaluation_agree():
    torch.manual_seed(0)
    network = PatchGAN(1, 4, 2, nn.InstanceNorm2d)
    image = torch.randn(2, 1, 32, 32)
    trained = network.train()(image)
    assert torch.equal(network.eval()(image), trained)


def test_the_gradient_reaches_every_parameter_and_the_image():
    torch.manual_seed(0)
    network = PatchGAN(1, 4, 2)
    image = torch.randn(2, 1, 32, 32, requires_grad=True)
    network(image).square().mean().backward()
    for name, parameter in [*network.named_parameters(), ("image", image)]:
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_the_smallest_image_has_one_patch_and_a_smaller_one_is_refused(halvings):
    network, size = PatchGAN(1, 2, halvings), 3 * 2**halvings
    assert network(torch.zeros(2, 1, size, size)).shape == (2, 1, 1, 1)
    words = f"expected images of {size} x {size} pixels or more, got {size} x {size - 1}"
    with pytest.raises(ValueError, match=words):
        network(torch.zeros(2, 1, size, size - 1))


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"base": 0}, {"halvings": 0}])
def test_numbers_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="expected channels, base and halvings of 1 or more"):
        PatchGAN(**wrong)
