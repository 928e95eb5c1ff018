"""ChestX-ray8's classifier: its pooling and its limits, its maps, and that it learns."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from cxrtut import evaluation_mode
from cxrtut.baselines.chestxray8 import ChestXray8, lse_pooling
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.sample import Batch, System
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.nn.backbones import ResNet10
from cxrtut.randomness import seeded

FOR = {"classes": ("Mass", "Nodule"), "size": 64}


class Given(nn.Module):
    """A classifier whose features are the image itself."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features, self.classifier = nn.Identity(), nn.Linear(channels, classes)


class Endless:
    """The same batch for ever, as the loop's data."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def steps_per_epoch(self, batch_size: int) -> int:
        return 1

    def batches(self, **_):
        while True:
            yield self.batch


def batch_of(image: torch.Tensor, labels: list[list[float]]) -> Batch:
    n = len(image)
    return Batch(
        image=image,
        label_vector=torch.tensor(labels),
        boxes=torch.zeros(n, 0, 4),
        box_label=torch.zeros(n, 0, dtype=torch.int64),
        index=torch.arange(n),
    )


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_pooling_of_four_places_by_hand():
    x = torch.tensor([[[[0.1, 0.2], [0.4, 0.0]]]])
    expected = math.log((math.exp(1) + math.exp(2) + math.exp(4) + 1) / 4) / 10
    assert lse_pooling(x).item() == pytest.approx(expected, rel=1e-5)


def test_pooling_is_that_of_equation_2_and_of_equation_3_with_its_absolute_value():
    x = noise(2, 3, 4, 5).double()
    for r in (0.1, 1.0, 12.0):
        pooled = lse_pooling(x, r)
        torch.testing.assert_close(pooled, (r * x).exp().mean((2, 3)).log() / r)
        top = x.abs().amax((2, 3), keepdim=True)
        subtracted = (r * (x - top)).exp().mean((2, 3)).log() / r
        torch.testing.assert_close(pooled, top[:, :, 0, 0] + subtracted)


def test_pooling_goes_from_the_mean_to_the_maximum():
    x = noise(2, 3, 8, 8)
    mean = x.double().mean((2, 3))
    torch.testing.assert_close(lse_pooling(x.double(), 1e-6), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse_pooling(x, 1e4), x.amax((2, 3)), atol=1e-3, rtol=0)
    pooled = [lse_pooling(x, r) for r in (0.01, 0.1, 1.0, 10.0, 100.0)]
    for smaller, larger in pairwise(pooled):
        assert (smaller < larger).all()


def test_a_constant_map_is_pooled_to_its_constant_and_a_shift_shifts():
    assert lse_pooling(torch.full((1, 1, 7, 7), -3.5)).item() == pytest.approx(-3.5)
    x = noise(1, 2, 3, 3)
    torch.testing.assert_close(lse_pooling(x + 2), lse_pooling(x) + 2)


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_large_activations_neither_overflow_nor_underflow(value):
    x = (value + noise(1, 2, 4, 4)).requires_grad_()
    pooled = lse_pooling(x)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all() and torch.isfinite(x.grad).all()
    assert ((pooled > x.mean((2, 3))) & (pooled <= x.amax((2, 3)))).all()


def test_the_gradient_of_pooling_sums_to_one_over_the_places_and_is_the_softmax():
    x = noise(2, 3, 4, 4).requires_grad_()
    lse_pooling(x, 10.0).sum().backward()
    torch.testing.assert_close(x.grad.sum((2, 3)), torch.ones(2, 3))
    torch.testing.assert_close(x.grad.flatten(2), (10 * x.detach()).flatten(2).softmax(2))


@pytest.mark.parametrize("r", [0.0, -1.0, math.inf, math.nan])
def test_a_parameter_of_pooling_that_cannot_be_is_refused(r):
    with pytest.raises(ValueError, match="r: expected a positive finite number, got"):
        lse_pooling(noise(1, 1, 2, 2), r)
    with pytest.raises(ValueError, match="r: expected a positive finite number, got"):
        ChestXray8(Given(1, 1), **FOR, r=r)


def test_the_loss_is_the_weighted_cross_entropy_of_the_pooled_features():
    network = Given(1, 2)
    with torch.no_grad():
        network.classifier.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        network.classifier.bias.copy_(torch.tensor([0.5, 0.25]))
    x = torch.tensor([[[[0.3, -0.1]]], [[[0.0, 0.9]]]])
    loss, _ = ChestXray8(network, **FOR, r=5.0).loss(batch_of(x, [[1.0, 0.0], [0.0, 0.0]]))
    pairs = x.flatten(1).tolist()
    pooled = [math.log((math.exp(5 * a) + math.exp(5 * b)) / 2) / 5 for a, b in pairs]
    # One 1 among four labels: β_P = 4, β_N = 4 / 3; divided by the number of labels.
    positive = math.log(1 + math.exp(-(2 * pooled[0] + 0.5)))
    zeros = (-pooled[0] + 0.25, 2 * pooled[1] + 0.5, -pooled[1] + 0.25)
    negative = sum(math.log(1 + math.exp(z)) for z in zeros)
    assert loss.item() == pytest.approx((4 * positive + 4 / 3 * negative) / 4, rel=1e-5)


def test_the_gradient_raises_the_logit_of_a_disease_that_is_there_and_lowers_the_others():
    network = Given(2, 3)
    ChestXray8(network, **FOR).loss(batch_of(noise(1, 2, 4, 4), [[0.0, 1.0, 0.0]]))[0].backward()
    assert (network.classifier.bias.grad > 0).tolist() == [True, False, True]
    assert network.classifier.weight.grad.abs().sum() > 0


def test_it_is_a_task_of_one_network_with_its_optimiser():
    task = ChestXray8(Given(1, 2), **FOR)
    assert isinstance(task, Task) and task.r == 10
    check_task(task)
    (phase,) = task.phases(7, 1)
    assert (phase.name, phase.updates, phase.loss) == ("C", ("classifier",), task.loss)
    assert task.optimizers["classifier"].param_groups[0]["lr"] == 1e-4


def test_training_on_simulated_radiographs_lowers_the_loss():
    batch = ChestPhantom(64).batch(torch.arange(16))
    with seeded("chestxray8"):
        network = ResNet10(width=4, classes=8)
    task = ChestXray8(network, **FOR, learning_rate=3e-3)
    reports = train(task, Endless(batch), steps=30, batch_size=16, report_every=10)
    assert reports[-1].terms["C/loss"] < 0.6 * reports[0].terms["C/loss"]


def test_a_map_is_the_features_weighted_by_the_row_of_the_class():
    network = Given(3, 2)
    x = noise(2, 3, 4, 5)
    maps, logits = ChestXray8(network, **FOR, r=2.0).maps_and_logits(x)
    weight, bias = network.classifier.weight.detach(), network.classifier.bias.detach()
    for k in range(2):
        torch.testing.assert_close(maps[:, k], sum(weight[k, c] * x[:, c] for c in range(3)))
    torch.testing.assert_close(logits, lse_pooling(x, 2.0) @ weight.T + bias)


@pytest.mark.parametrize("mode", [True, False])
def test_reading_is_in_evaluation_mode_and_puts_the_mode_back(mode, monkeypatch):
    network = ResNet10(width=4, classes=3).train(mode)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(5, 1, 32, 32)
    task = ChestXray8(network, **FOR)
    maps, logits = task.maps_and_logits(images)
    assert maps.shape == (5, 3, 4, 4) and logits.shape == (5, 3)
    assert not maps.requires_grad and not logits.requires_grad
    monkeypatch.setattr(evaluation_mode, "_ON_A_CPU", 2 * 32 * 32)
    for whole, parts in zip((maps, logits), task.maps_and_logits(images), strict=True):
        torch.testing.assert_close(whole, parts)
    assert network.training is mode
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    maps, logits = task.maps_and_logits(images[:0])
    assert maps.shape == (0, 3, 4, 4) and logits.shape == (0, 3)


def test_the_mode_is_put_back_when_the_network_fails():
    network = ResNet10(width=4)
    with pytest.raises(RuntimeError, match="channels"):
        ChestXray8(network, **FOR).maps_and_logits(torch.rand(2, 3, 16, 16))
    assert network.training


def test_a_classifier_of_two_layers_is_refused():
    network = ResNet10(width=4)
    network.classifier = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 2))
    with pytest.raises(TypeError, match=r"expected one nn\.Linear, got Sequential"):
        ChestXray8(network, **FOR)


def test_a_prediction_has_probabilities_and_maps_of_the_images_size():
    network, images = ResNet10(width=4, classes=3).eval(), torch.rand(2, 1, 32, 32)
    task = ChestXray8(network, classes=("A", "B", "C"), size=32)
    found, (maps, logits) = task.predict(images), task.maps_and_logits(images)
    torch.testing.assert_close(found.scores, logits.double().sigmoid())
    assert found.heatmap.shape == (2, 3, 32, 32) and (found.heatmap.amin((2, 3)) == 0).all()
    assert torch.equal(found.heatmap, heatmap_from_maps(maps, (32, 32)))
    assert isinstance(task, System) and (task.classes, task.size, task.channels) == (
        ("A", "B", "C"), 32, 1,
    )  # fmt: skip
