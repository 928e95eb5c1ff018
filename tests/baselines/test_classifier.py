"""The classifiers: their losses in closed form, where gradients go, and that they learn."""

import math

import pytest
import torch
from torch import nn

from cxrtut.baselines.classifier import (
    ActivationMaps,
    BinaryClassifierTask,
    MultiLabelTask,
    logits_of,
)
from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch
from cxrtut.data.store import ArrayStore
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.gradcam import grad_cam
from cxrtut.nn.backbones import ResNet10
from cxrtut.randomness import generator, seeded, shuffled


class Looked(nn.Module):
    """A classifier whose logits are the image's first pixels, times a weight that can learn."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.weight = classes, nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.weight * image.flatten(1)[:, : self.classes]


def batch_of(pixels: list[list[float]], labels: list[list[float]]) -> Batch:
    """Images (B, 1, 2, 2), the first pixels given, the others black."""
    image = torch.full((len(pixels), 4), -1.0)
    image[:, : len(pixels[0])] = torch.tensor(pixels)
    n = len(pixels)
    return Batch(
        image=image.view(n, 1, 2, 2),
        label_vector=torch.tensor(labels),
        boxes=torch.zeros(n, 0, 4),
        box_label=torch.zeros(n, 0, dtype=torch.int64),
        index=torch.arange(n),
    )


def test_the_loss_of_normal_or_not_is_the_cross_entropy_written_out():
    batch = batch_of([[0.2, 0.9], [0.5, -0.5]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    loss, terms = BinaryClassifierTask(Looked(2)).loss(batch)
    # Softmax of two logits is the sigmoid of their difference: 0.7 for the ill, 1 for the normal.
    expected = (math.log(1 + math.exp(-0.7)) + math.log(1 + math.exp(-1.0))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert float(terms["accuracy"]) == 1.0


def test_any_disease_is_abnormal_and_two_are_no_more_than_one():
    pixels = [[0.0, 1.0]] * 3
    labels = [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    _, terms = BinaryClassifierTask(Looked(2)).loss(batch_of(pixels, labels))
    assert float(terms["accuracy"]) == pytest.approx(2 / 3)


def test_the_loss_of_diseases_is_the_mean_of_binary_cross_entropies():
    batch = batch_of([[0.5, -1.0, 0.0], [1.0, 0.25, -0.5]], [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    loss, terms = MultiLabelTask(Looked(3)).loss(batch)
    signs = ((0.5, 1), (-1.0, -1), (0.0, 1), (1.0, -1), (0.25, 1), (-0.5, -1))
    expected = sum(math.log(1 + math.exp(-sign * z)) for z, sign in signs) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert terms == {}


@pytest.mark.parametrize("make", [BinaryClassifierTask, MultiLabelTask])
def test_a_classifier_is_a_task_of_one_network_with_its_optimiser(make):
    task = make(nn.Linear(2, 2), learning_rate=3e-4)
    assert isinstance(task, Task)
    check_task(task)
    (phase,) = task.phases(7, 1)
    assert (phase.name, phase.updates) == ("C", ("classifier",))
    assert phase.loss == task.loss
    assert task.optimizers["classifier"].param_groups[0]["lr"] == 3e-4


def test_the_gradient_raises_the_logit_of_the_label_and_lowers_the_other():
    logits = nn.Linear(4, 2)
    task = BinaryClassifierTask(nn.Sequential(nn.Flatten(), logits))
    task.loss(batch_of([[0.3, 0.1]], [[1.0]]))[0].backward()
    assert logits.bias.grad is not None
    down, up = logits.bias.grad.tolist()
    assert down > 0 > up and down == pytest.approx(-up)


@pytest.mark.parametrize("make", [BinaryClassifierTask, MultiLabelTask])
def test_training_tells_bright_images_from_dark_ones(make):
    draw = generator("bright or dark", 0)
    label = torch.arange(64) % 2
    level = 90 + 60 * label[:, None, None, None]
    images = (level + 20 * torch.randn(64, 1, 8, 8, generator=draw)).clamp(0, 255).to(torch.uint8)
    labels = torch.stack([label, 1 - label] if make is MultiLabelTask else [label], 1)
    store = ArrayStore.from_arrays(
        images.numpy(), labels.to(torch.uint8).numpy(), ("a", "b")[: labels.shape[1]]
    )
    with seeded("bright or dark", 1):
        network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 2))
    task = make(network, learning_rate=0.05)
    reports = train(task, Loader(store, shuffled(torch.arange(64))), steps=80, batch_size=16)
    assert reports[-1].terms["C/loss"] < 0.1
    z = logits_of(network, images / 127.5 - 1)
    called = z[:, 0] > 0 if make is MultiLabelTask else z[:, 1] > z[:, 0]
    assert torch.equal(called, label > 0)


def test_logits_are_given_in_evaluation_mode_and_puts_the_mode_back():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    images = torch.rand(5, 1, 2, 2)
    for mode in (True, False):
        network.train(mode)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        once, twice = logits_of(network, images), logits_of(network, images)
        assert torch.equal(once, twice) and not once.requires_grad
        assert network.training is mode
        after = network.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_mode_is_put_back_when_the_network_fails():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        logits_of(network, torch.rand(2, 1, 2, 2))
    assert network.training


def test_many_images_are_asked_in_parts_in_their_order():
    images = torch.rand(50_000, 1, 2, 2)
    logits = logits_of(Looked(2), images)
    assert torch.equal(logits, images.flatten(1)[:, :2])


def test_cam_is_the_map_of_abnormal_above_its_minimum():
    network, images = ResNet10(1, 4).eval(), torch.rand(3, 1, 32, 32)
    system = ActivationMaps(network, ("Mass",), size=32, channels=1)
    found = system.predict(images)
    with torch.no_grad():
        maps = class_activation_map(network.features(images), network.classifier.weight)[:, 1:2]
        logits = network(images)
    heat = nn.functional.interpolate(maps, (32, 32), mode="bilinear")
    low = heat.amin((2, 3), keepdim=True).clamp_max(0)
    torch.testing.assert_close(found.heatmap, heat - low)
    expected = logits.double().softmax(1)[:, 1:]
    torch.testing.assert_close(found.scores, expected, rtol=1e-5, atol=1e-6)


def test_grad_cam_is_of_the_layer_that_was_named():
    torch.manual_seed(0)  # some networks have no positive evidence in either layer
    network, images = ResNet10(1, 4).eval(), torch.rand(2, 1, 32, 32)
    early, late = (
        ActivationMaps(network, ("Mass", "Nodule"), size=32, channels=1, layer=layer)
        for layer in ("block2", "block4")
    )
    assert early.classes == late.classes == ("any of Mass, Nodule",)
    maps = grad_cam(network, network.features.block4, images, torch.ones(2, dtype=torch.int64))
    heat = nn.functional.interpolate(maps[:, None], (32, 32), mode="bilinear")
    torch.testing.assert_close(late.predict(images).heatmap, heat)
    assert not torch.equal(early.predict(images).heatmap, late.predict(images).heatmap)
    assert (late.predict(images).heatmap >= 0).all() and not late.predict(images).image


def test_a_classifier_is_asked_once_for_its_answer_and_its_activation_map():
    with seeded("test", 0):
        network = ResNet10(1, width=4)
    asked = []
    network.features.register_forward_hook(lambda module, given, found: asked.append(len(found)))
    images = torch.rand(5, 1, 32, 32) * 2 - 1
    answer = ActivationMaps(network, ("A",), size=32, channels=1).predict(images)
    assert asked == [5] and network.training
    logits = logits_of(network, images)
    torch.testing.assert_close(answer.scores, torch.softmax(logits.double(), 1)[:, 1:])
    assert not answer.scores.requires_grad and not answer.heatmap.requires_grad


@pytest.mark.parametrize("layer", [None, "block4"], ids=["CAM", "Grad-CAM"])
def test_maps_of_a_network_in_training_mode_are_those_of_evaluation_mode(layer):
    with seeded("test", 0):
        network = ResNet10(1, 4)
    images = torch.rand(3, 1, 32, 32, generator=generator("images", 0))
    system = ActivationMaps(network, ("Mass",), size=32, channels=1, layer=layer)
    in_training = system.predict(images).heatmap
    assert network.training and in_training.any()
    network.eval()
    torch.testing.assert_close(in_training, system.predict(images).heatmap)


@pytest.mark.parametrize("make", [BinaryClassifierTask, MultiLabelTask])
def test_the_rate_of_each_step_is_the_one_that_was_given(make):
    task = make(nn.Linear(2, 2), rate=lambda step: 1 / (1 + step))
    assert [task.schedule(step) for step in (0, 3)] == [{"classifier": 1.0}, {"classifier": 0.25}]


def test_the_weight_decay_is_the_one_that_was_given():
    task = MultiLabelTask(nn.Linear(2, 2), weight_decay=0.0)
    assert task.optimizers["classifier"].param_groups[0]["weight_decay"] == 0
