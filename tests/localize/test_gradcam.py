import inspect

import pytest
import torch
from torch import nn

from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.gradcam import grad_cam

CLASSES = torch.tensor([2, 0, 1])


class PooledClassifier(nn.Module):
    """A convolution, what follows it, global average pooling and a linear layer."""

    def __init__(self, *after: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.after = nn.Sequential(*after)
        self.linear = nn.Linear(4, 3)
        self.unused = nn.Conv2d(1, 4, 3)

    def forward(self, image):
        return self.linear(self.after(self.conv(image)).mean(dim=(2, 3)))


class Broken(PooledClassifier):
    def forward(self, image):
        super().forward(image)
        raise RuntimeError("broken on purpose")


class Detached(PooledClassifier):
    def forward(self, image):
        self.conv(image)
        return self.linear(torch.ones(len(image), 4, dtype=image.dtype))


class OnePerBatch(PooledClassifier):
    def forward(self, image):
        return super().forward(image)[0]


class WithoutTheLast(PooledClassifier):
    def forward(self, image):
        return super().forward(image)[:-1]


def made(kind=PooledClassifier, *after: nn.Module):
    """A seeded network in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*after).double().eval()


@pytest.fixture
def image():
    return torch.randn(3, 1, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_at_the_last_convolution_it_is_the_positive_part_of_the_class_activation_map(image):
    network = made()
    cam = class_activation_map(network.conv(image), network.linear.weight)
    expected = cam[torch.arange(3), CLASSES].relu() / (6 * 5)
    heatmap = grad_cam(network, network.conv, image, CLASSES)
    assert torch.allclose(heatmap, expected.detach(), rtol=0, atol=1e-14)
    assert (heatmap > 0).any() and (heatmap == 0).any()


def test_a_nonlinear_network_agrees_with_differences_of_the_logit(image):
    """α_c by central differences: all of A_c is raised a little, the rest of the network runs."""
    network = made(PooledClassifier, nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.Tanh())
    heatmap = grad_cam(network, network.conv, image, CLASSES)

    def logit(activation):
        pooled = network.after(activation).mean(dim=(2, 3))
        return network.linear(pooled)[torch.arange(3), CLASSES]

    with torch.no_grad():
        activation = network.conv(image)
        total, step = torch.zeros_like(heatmap), 1e-5
        for c in range(4):
            raised, lowered = activation.clone(), activation.clone()
            raised[:, c] += step
            lowered[:, c] -= step
            alpha = (logit(raised) - logit(lowered)) / (2 * step) / (6 * 5)
            total += alpha[:, None, None] * activation[:, c]
    assert torch.allclose(heatmap, total.relu(), rtol=0, atol=1e-9)


def test_an_in_place_layer_behind_does_not_change_the_activation(image):
    network = made(PooledClassifier, nn.ReLU(inplace=True))
    same = made(PooledClassifier, nn.ReLU())
    heatmap = grad_cam(network, network.conv, image, CLASSES)
    assert torch.equal(heatmap, grad_cam(same, same.conv, image, CLASSES))
    assert (heatmap > 0).any()


def test_an_image_has_the_same_map_alone_and_in_a_batch(image):
    network = made(PooledClassifier, nn.BatchNorm2d(4).eval(), nn.ReLU())
    together = grad_cam(network, network.conv, image, CLASSES)
    for i in range(3):
        alone = grad_cam(network, network.conv, image[i : i + 1], CLASSES[i : i + 1])
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-14)


def test_the_class_asked_about_changes_the_map(image):
    network = made()
    one, other = (grad_cam(network, network.conv, image, CLASSES.roll(k)) for k in (0, 1))
    assert not torch.allclose(one, other)


def test_nothing_is_left_behind(image):
    network = made(PooledClassifier, nn.ReLU(inplace=True))
    network.linear.weight.grad = torch.ones_like(network.linear.weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    heatmap = grad_cam(network, network.conv, image, CLASSES)
    assert not heatmap.requires_grad and not image.requires_grad
    assert network.conv.weight.grad is None and (network.linear.weight.grad == 1).all()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    assert not network.conv._forward_hooks


def test_it_works_under_no_grad_and_with_frozen_parameters(image):
    network = made()
    expected = grad_cam(network, network.conv, image, CLASSES)
    with torch.no_grad():
        frozen = network.requires_grad_(False)
        assert torch.equal(grad_cam(frozen, frozen.conv, image, CLASSES), expected)
        assert not torch.is_grad_enabled()


def test_the_hook_is_removed_after_an_error(image):
    network = made(Broken)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        grad_cam(network, network.conv, image, CLASSES)
    assert not network.conv._forward_hooks


def test_training_mode_is_left_to_the_caller(image):
    network = made(PooledClassifier, nn.BatchNorm2d(4)).train()
    grad_cam(network, network.conv, image, CLASSES)
    assert network.training


def shared_layer():
    relu = nn.ReLU()
    network = made(PooledClassifier, relu, relu)
    return network, relu


@pytest.mark.parametrize(
    ("network_and_layer", "words"),
    [
        (lambda: (made(), nn.Conv2d(1, 1, 1)), "a module of the PooledClassifier, got a Conv2d"),
        (lambda: ((network := made()), network.unused), "runs once, it ran 0 times"),
        (shared_layer, "expected a ReLU that runs once, it ran 2 times"),
        (lambda: ((network := made()), network.linear), r"\(B, c, h, w\), got \(3, 3\)"),
        (lambda: ((network := made(Detached)), network.conv), "leads to the logits, got a Conv2d"),
        (lambda: ((network := made(OnePerBatch)), network.conv), r"logits \(3, K\), got \(3,\)"),
        (lambda: ((network := made(WithoutTheLast)), network.conv), r"K\), got \(2, 3\)"),
    ],
)
def test_a_layer_or_network_that_will_not_do_is_named(image, network_and_layer, words):
    network, layer = network_and_layer()
    with pytest.raises(ValueError, match=words):
        grad_cam(network, layer, image, CLASSES)
    assert not layer._forward_hooks


def test_a_frozen_network_without_a_way_to_the_logits_is_named_too(image):
    network = made(Detached).requires_grad_(False)
    with pytest.raises(ValueError, match="leads to the logits"):
        grad_cam(network, network.conv, image, CLASSES)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([0, 3, 1], "expected 0 to 2, got 3"),
        ([0, -1, 1], "expected 0 to 2, got -1"),
        ([0, 1], r"shape \(3,\), one per image, got \(2,\)"),
    ],
)
def test_a_class_that_is_missing_or_not_there_is_named(image, classes, words):
    network = made()
    with pytest.raises(ValueError, match=words):
        inspect.unwrap(grad_cam)(network, network.conv, image, torch.tensor(classes))
