import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cxrtut.evaluation_mode import in_parts
from cxrtut.nn.backbones import VGG19, DenseNet, ResNet10, ResNet18, ResNet50, mean_stages, stages

ROOT = Path(__file__).resolve().parents[2]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_networks_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        assert count(ResNet18(3, 2)) == 11_177_538
        assert count(ResNet18(1, 2)) == 11_177_538 - 2 * 64 * 49
        assert count(ResNet50(3, 14)) == 23_536_718
        assert count(VGG19(3, 1000)) == 143_667_240
        assert count(VGG19(1, 1000)) == 143_667_240 - 2 * 64 * 9


def test_the_small_network_has_ten_layers_and_a_third_of_a_million_parameters():
    network = ResNet10(1, 16, 8)
    # the 1x1 convolutions of the skips are not counted, as in the names of all residual networks
    layers = [
        part
        for part in network.modules()
        if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size[0] > 1)
    ]
    assert len(layers) == 10 and count(network) == 308_072


@pytest.mark.parametrize(("stride", "cells"), [(2, 32), (4, 16), (8, 8), (16, 4)])
def test_the_stride_is_that_of_the_last_feature_map(stride, cells):
    network = ResNet10(3, 4, 5, stride)
    image = torch.zeros(2, 3, 64, 64)
    assert network.features(image).shape == (2, 32, cells, cells)
    assert network(image).shape == (2, 5) and count(network) == count(ResNet10(3, 4, 5))


def test_the_small_network_halves_early_and_keeps_its_last_maps_large():
    network = ResNet10(1, 4, 2, stride=8)
    shapes = []
    for block in network.features:
        block.register_forward_hook(lambda *seen: shapes.append(tuple(seen[-1].shape[1:3])))
    network(torch.zeros(1, 1, 64, 64))
    assert shapes == [(4, 32), (4, 32), (8, 16), (16, 8), (32, 8)]


def test_the_small_network_computes_the_formula_of_a_residual_network():
    torch.manual_seed(0)
    network = ResNet10(2, 4, 3, stride=8).eval()
    weights = network.state_dict()
    for name, values in weights.items():
        if "running_var" in name:
            values.uniform_(0.5, 1.5)
        elif "num_batches" not in name:
            values.normal_(0.0, 0.3)

    def norm(name, x):
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    image = torch.randn(2, 2, 32, 32)
    x = F.conv2d(image, weights["features.stem.weight"], weights["features.stem.bias"], 2, 1)
    for k, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
        name = f"features.block{k}"
        h = norm(f"{name}.norms.0", F.conv2d(x, weights[f"{name}.first.weight"], None, stride, 1))
        h = F.conv2d(h.clamp(min=0), weights[f"{name}.second.weight"], None, 1, 1)
        x = norm(f"{name}.norms.1", h) + F.conv2d(x, weights[f"{name}.skip.weight"], None, stride)
        x = x.clamp(min=0)
    expected = x.mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    assert torch.allclose(network(image), expected, rtol=1e-4, atol=1e-5)
    assert expected.std(0).min() > 1e-3


@pytest.mark.parametrize(
    ("make", "name", "channels"), [(ResNet18, "resnet18", 512), (ResNet50, "resnet50", 2048)]
)
def test_the_large_residual_networks_are_torchvisions(make, name: str, channels: int):
    torch.manual_seed(0)
    ours = make(3, 4)
    theirs = getattr(torchvision.models, name)(weights=None, num_classes=4)
    names = {"classifier.weight": "fc.weight", "classifier.bias": "fc.bias"}
    weights = ours.state_dict().items()
    theirs.load_state_dict({names.get(k, k.removeprefix("features.")): v for k, v in weights})
    image = torch.randn(2, 3, 64, 64)
    logits = ours(image)  # in training: the norms' statistics move in both
    assert torch.allclose(logits, theirs(image), atol=1e-6)
    assert logits.std(0).min() > 1e-3
    assert torch.allclose(ours.eval()(image), theirs.eval()(image), atol=1e-6)
    assert ours.features(image).shape == (2, channels, 2, 2)


def test_mean_stages_are_those_of_all_images_whatever_the_batches():
    C, images = ResNet10(1, 4, 2, stride=8).train(), torch.rand(70, 1, 32, 32)
    assert len(in_parts(images)) == 3 and len(in_parts(images)[-1]) == 6
    found = mean_stages(C.features, images)
    assert C.features.training  # as it was
    C.eval()
    for one, whole in zip(found, stages(C.features, images), strict=True):
        torch.testing.assert_close(one, whole.mean(0, keepdim=True))
        assert not one.requires_grad
    with pytest.raises(ValueError, match="expected images for mean features, got none"):
        mean_stages(C.features, images[:0])


def test_the_stages_of_a_residual_network_end_in_its_features():
    torch.manual_seed(0)
    image = torch.randn(2, 1, 64, 64)
    for network, channels, sides in (
        (ResNet10(1, 4, 2, stride=4), [4, 8, 16, 32], [32, 16, 16, 16]),
        (ResNet18(1, 2), [64, 128, 256, 512], [16, 8, 4, 2]),
        (ResNet50(1, 2), [256, 512, 1024, 2048], [16, 8, 4, 2]),
    ):
        network.eval()
        maps = stages(network.features, image)
        assert [tuple(m.shape) for m in maps] == [
            (2, c, s, s) for c, s in zip(channels, sides, strict=True)
        ]
        assert torch.equal(maps[-1], network.features(image))


@pytest.fixture
def kept_weights(monkeypatch):
    """Weights as torchvision would fetch them."""
    torch.manual_seed(5)
    weights = torchvision.models.resnet50(weights=None).state_dict()
    monkeypatch.setattr(
        torchvision.models.ResNet50_Weights.IMAGENET1K_V1.__class__,
        "get_state_dict",
        lambda self, *given, **named: weights,
    )
    return weights


def test_imagenets_weights_fit_grey_images_too(kept_weights):
    colour, grey = ResNet50(3, 5, imagenet=True), ResNet50(1, 5, imagenet=True)
    assert torch.equal(colour.features.conv1.weight, kept_weights["conv1.weight"])
    name = "layer3.4.conv2.weight"
    assert torch.equal(grey.features.get_parameter(name), kept_weights[name])
    colour.eval()
    grey.eval()
    image = torch.randn(1, 1, 64, 64)
    assert torch.allclose(
        colour.features(image.expand(-1, 3, -1, -1)), grey.features(image), atol=1e-4
    )


def test_imagenets_weights_that_cannot_be_had_are_named(monkeypatch):
    def offline(*given, **named):
        raise OSError("no route to host")

    monkeypatch.setattr(
        torchvision.models.ResNet50_Weights.IMAGENET1K_V1.__class__, "get_state_dict", offline
    )
    with pytest.raises(ConnectionError, match=r"no route to host.*imagenet=False"):
        ResNet50(3, 5, imagenet=True)
    with pytest.raises(ValueError, match="expected 1 or 3 channels, got 2"):
        ResNet50(2, 5, imagenet=True)


def test_vgg_19_has_torchvisions_layers_under_the_papers_names():
    with torch.device("meta"):
        ours, theirs = VGG19(3, 4), torchvision.models.vgg19(weights=None, num_classes=4)
    expected = [repr(layer).replace("inplace=True", "") for layer in theirs.features]
    assert [repr(layer) for layer in ours.features] == expected
    assert repr(ours.classifier) == repr(theirs.classifier)
    assert repr(ours.pool) == repr(theirs.avgpool)
    convolutions = [name for name, _ in ours.features.named_children() if "conv" in name]
    stages = ((1, 2), (2, 2), (3, 4), (4, 4), (5, 4))
    assert convolutions == [f"conv{s}_{k}" for s, n in stages for k in range(1, n + 1)]
    assert not any(getattr(layer, "inplace", False) for layer in ours.features)


def test_the_two_layers_of_vgg_19_for_grad_cam_have_their_sizes():
    shapes = {}
    with torch.device("meta"):
        network = VGG19(1, 2)
        for name in ("conv3_4", "conv5_4"):
            network.features.get_submodule(name).register_forward_hook(
                lambda *seen, name=name: shapes.update({name: tuple(seen[-1].shape[1:])})
            )
        assert network(torch.empty(3, 1, 128, 128)).shape == (3, 2)
    assert shapes == {"conv3_4": (256, 32, 32), "conv5_4": (512, 8, 8)}


def test_the_logits_of_vgg_19_are_its_classifier_on_its_features_pooled():
    torch.manual_seed(0)
    with torch.device("meta"):
        network = VGG19(1, 2)
    network.features.to_empty(device="cpu")
    for parameter in network.features.parameters():
        nn.init.normal_(parameter, 0.0, 0.05)
    network.classifier = nn.Linear(512 * 7 * 7, 2)
    image = torch.randn(2, 1, 32, 32)
    feature = network.features(image)[:, :, 0, 0]  # a single cell, repeated by the pooling
    expected = network.classifier(feature.repeat_interleave(49, dim=1))
    assert torch.allclose(network(image), expected, rtol=1e-4)
    assert expected.std(0).min() > 1e-3


@pytest.mark.parametrize("make", [ResNet10, ResNet18, partial(DenseNet, layers=21, stride=8)])
def test_the_mean_of_a_class_activation_map_and_the_bias_make_the_logit(make):
    torch.manual_seed(0)
    network = make(channels=2, classes=3).eval()
    image = torch.randn(2, 2, 64, 64)
    maps = torch.einsum("bchw,kc->bkhw", network.features(image), network.classifier.weight)
    assert torch.allclose(maps.mean((2, 3)) + network.classifier.bias, network(image), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "layer", "fan_out"), [(ResNet18, "conv1", 64 * 49), (VGG19, "conv1_1", 64 * 9)]
)
def test_the_first_convolution_has_the_initial_weights_of_torchvisions(
    network, layer, fan_out, monkeypatch
):
    made = {}

    def kept_alone(weight, mode="fan_in", nonlinearity="leaky_relu"):
        made[tuple(weight.shape)] = (mode, nonlinearity)

    monkeypatch.setattr(nn.init, "kaiming_normal_", kept_alone)
    with torch.device("meta"):
        first = network(5, 2).features.get_submodule(layer)
    assert first.weight.shape[1] == 5 and first.weight[:, 0].numel() == fan_out
    assert made[tuple(first.weight.shape)] == ("fan_out", "relu")


def test_the_first_convolution_of_densenet_has_the_initial_weights_of_torchvisions():
    torch.manual_seed(0)
    ours = DenseNet(3, 2).features.conv0.weight
    theirs = torchvision.models.densenet121(weights=None).features.conv0.weight
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert ours.std().item() == pytest.approx((2 / (3 * 49)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("make", "size"),
    [(ResNet10, 32), (ResNet18, 64), (partial(DenseNet, layers=21, stride=16), 64)],
)
def test_the_gradient_reaches_every_parameter_and_the_image(make, size):
    torch.manual_seed(0)
    network = make(channels=1, classes=3)
    image = torch.randn(4, 1, size, size, requires_grad=True)
    F.cross_entropy(network(image), torch.tensor([0, 1, 2, 0])).backward()
    for name, parameter in [*network.named_parameters(), ("image", image)]:
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_the_same_seed_makes_the_same_network():
    made = []
    for _ in range(2):
        torch.manual_seed(7)
        made.append(ResNet10(1, 4, 2))
    first, second = (network.state_dict().values() for network in made)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("stride", [0, 1, 6, 32])
def test_another_stride_is_refused(stride):
    with pytest.raises(ValueError, match=f"expected a stride of 2, 4, 8 or 16, got {stride}"):
        ResNet10(1, 4, 2, stride)


@pytest.mark.parametrize(
    ("channels", "classes", "parameters"),
    [(3, 2, 6_955_906), (1, 1, 6_948_609), (3, 14, 6_968_206), (3, 1, 6_954_881)],
)
def test_densenet_has_the_published_number_of_parameters(channels, classes, parameters):
    with torch.device("meta"):
        for stride in (8, 16, 32):
            assert count(DenseNet(channels, classes, stride=stride)) == parameters


def test_the_small_densenet_has_21_layers():
    with torch.device("meta"):
        for layers in (21, 121):
            network = DenseNet(1, 2, layers=layers)
            made = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            assert len(made) == layers
            assert network.features.denseblock4.denselayer2.conv2.out_channels == (
                8 if layers == 21 else 32
            )


@pytest.mark.parametrize(("layers", "channels", "last"), [(121, 3, 1024), (21, 3, 32)])
def test_densenet_at_stride_32_is_torchvisions(layers, channels, last):
    torch.manual_seed(0)
    ours = DenseNet(channels, 4, layers=layers)
    shape = {} if layers == 121 else {
        "growth_rate": 8, "block_config": (2, 2, 2, 2), "num_init_features": 16,
    }  # fmt: skip
    theirs = (
        torchvision.models.densenet121(weights=None, num_classes=4)
        if layers == 121
        else torchvision.models.DenseNet(**shape, num_classes=4)
    )
    theirs.load_state_dict(ours.state_dict())  # under their names
    image = torch.randn(2, channels, 64, 64)
    logits = ours(image)  # in training: the norms' statistics move in both
    torch.testing.assert_close(logits, theirs(image), rtol=1e-4, atol=1e-5)
    assert logits.std(0).min() > 1e-3
    torch.testing.assert_close(ours.eval()(image), theirs.eval()(image), rtol=1e-4, atol=1e-5)
    features = ours.features(image)
    assert features.shape == (2, last, 2, 2)
    torch.testing.assert_close(features, theirs.features(image).clamp(min=0))  # behind the ReLU


@pytest.mark.parametrize(
    ("size", "stride", "cells"),
    [(64, 8, 8), (128, 16, 8), (256, 32, 8), (64, 16, 4), (64, 32, 2), (128, 8, 16)],
)
def test_the_stride_of_densenet_is_that_of_the_last_feature_map(size, stride, cells):
    with torch.device("meta"):
        network = DenseNet(1, 2, stride=stride)
        image = torch.empty(2, 1, size, size)
        assert network.features(image).shape == (2, 1024, cells, cells)
        assert network(image).shape == (2, 2)


def test_densenet_halves_first_in_its_stem_and_then_between_its_blocks():
    sides = {}
    for stride in (8, 16, 32):
        network, sides[stride] = DenseNet(1, 2, layers=21, stride=stride).eval(), []
        x = torch.zeros(1, 1, 64, 64)
        for name, layer in network.features.named_children():
            x = layer(x)
            if name == "relu0" or name.startswith("denseblock"):
                sides[stride].append(x.shape[-1])
    assert sides == {8: [64, 64, 32, 16, 8], 16: [32, 32, 16, 8, 4], 32: [32, 16, 8, 4, 2]}


@pytest.mark.parametrize("stride", [0, 4, 64])
def test_another_stride_of_densenet_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride: expected 8, 16 or 32, got {stride}"):
        DenseNet(1, 2, stride=stride)


@pytest.mark.parametrize("layers", [20, 169])
def test_other_layers_of_densenet_are_refused(layers):
    with pytest.raises(ValueError, match=f"layers: expected 21 or 121, got {layers}"):
        DenseNet(1, 2, layers=layers)


def test_importing_the_networks_draws_nothing_and_does_not_load_torchvision():
    names = [f"cxrtut.nn.{path.stem}" for path in (ROOT / "cxrtut" / "nn").glob("[!_]*.py")]
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import importlib, json, torch
before = torch.get_rng_state()
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps([torch.equal(torch.get_rng_state(), before), "torchvision" in sys.modules]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [True, False] and "cxrtut.nn.backbones" in names
