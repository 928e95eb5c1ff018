"""A network that is told where the disease is: its loss by hand, what it may not be told."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cxrtut import evaluation_mode
from cxrtut.baselines.supervised_maps import SupervisedMaps
from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch, System
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.evaluation.box_protocols import best_threshold_accuracy
from cxrtut.experiments.source import Source
from cxrtut.nn.backbones import VGG19, ResNet10
from cxrtut.randomness import seeded, shuffled

FOR = {"classes": ("A", "B"), "size": 4}


class Plain(nn.Module):
    """Features are the image; A reads them as they are, B with the other sign."""

    def __init__(self):
        super().__init__()
        self.features = nn.Identity()
        self.classifier = nn.Linear(1, 2)
        self.classifier.weight.data = torch.tensor([[1.0], [-1.0]])
        self.classifier.bias.data = torch.tensor([0.5, 0.0])


def batch_of(image, labels, boxes, box_label):
    return Batch(
        image=image, label_vector=torch.tensor(labels), boxes=torch.tensor(boxes),
        box_label=torch.tensor(box_label), index=torch.arange(len(image)),
    )  # fmt: skip


def cost(z, here):
    return math.log(1 + math.exp(-z if here else z))


def test_the_loss_is_the_mean_inside_plus_the_mean_outside():
    image = torch.arange(16.0).reshape(1, 1, 4, 4) / 8 - 1
    # A has a box over the left half of the upper rows, B is absent
    batch = batch_of(image, [[1.0, 0.0]], [[[0.0, 0.0, 2.0, 2.0]]], [[0]])
    loss, terms = SupervisedMaps(Plain(), **FOR).loss(batch)
    pixels = image[0, 0].tolist()
    inside = [cost(pixels[i][j] + 0.5, True) for i in (0, 1) for j in (0, 1)]
    outside = [
        cost(pixels[i][j] + 0.5, False) for i in range(4) for j in range(4) if i > 1 or j > 1
    ]
    outside += [cost(-p, False) for row in pixels for p in row]
    assert terms["inside"].item() == pytest.approx(sum(inside) / 4)
    assert terms["outside"].item() == pytest.approx(sum(outside) / 28)
    assert loss.item() == pytest.approx(sum(inside) / 4 + sum(outside) / 28)


def test_boxes_of_images_that_are_not_square_are_where_they_were_drawn():
    image = torch.full((1, 1, 2, 6), -2.0)
    image[..., 0:1, 3:6] = 1.0  # in the box of A; nobody knows where B is
    batch = batch_of(image, [[1.0, 1.0]], [[[3.0, 0.0, 6.0, 1.0]]], [[0]])
    _, terms = SupervisedMaps(Plain(), **FOR).loss(batch)
    assert terms["inside"].item() == pytest.approx(cost(1.5, True))
    assert terms["outside"].item() == pytest.approx(cost(-1.5, False))


def test_a_disease_without_a_box_is_left_out():
    image = torch.rand(1, 1, 4, 4)
    absent = batch_of(image, [[0.0, 0.0]], [[[0.0, 0.0, 0.0, 0.0]]], [[-1]])
    somewhere = replace(absent, label_vector=torch.tensor([[0.0, 1.0]]))
    task = SupervisedMaps(Plain(), **FOR)
    of_a = [cost(p + 0.5, False) for p in image.flatten().tolist()]
    of_b = [cost(-p, False) for p in image.flatten().tolist()]
    assert task.loss(absent)[0].item() == pytest.approx((sum(of_a) + sum(of_b)) / 32)
    assert task.loss(somewhere)[0].item() == pytest.approx(sum(of_a) / 16)


def test_at_chance_the_loss_is_two_log_two_and_an_empty_half_is_nothing():
    network = Plain()
    for parameter in network.classifier.parameters():
        parameter.data.zero_()
    task = SupervisedMaps(network, **FOR)
    box = batch_of(torch.rand(1, 1, 4, 4), [[1.0, 0.0]], [[[0.0, 0.0, 2.0, 2.0]]], [[0]])
    assert task.loss(box)[0].item() == pytest.approx(2 * math.log(2))
    none = batch_of(torch.rand(1, 1, 4, 4), [[1.0, 1.0]], [[[0.0] * 4]], [[-1]])
    assert task.loss(none)[0].item() == 0.0


def test_a_prediction_is_the_likeliest_place_and_the_maps():
    task = SupervisedMaps(Plain(), **FOR)
    image = torch.arange(16.0).reshape(1, 1, 4, 4) / 8 - 1
    found = task.predict(image)
    z = [image.max().item() + 0.5, -image.min().item()]
    assert found.scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-v)) for v in z])
    assert torch.allclose(found.heatmap[0, 0], image[0, 0] - image.min(), atol=1e-6)
    assert isinstance(task, System)


def test_places_have_the_probabilities_of_their_logits():
    task, image = SupervisedMaps(Plain(), **FOR), torch.rand(2, 1, 4, 4)
    expected = torch.cat((image + 0.5, -image), 1).sigmoid()
    torch.testing.assert_close(task.probability_maps(image), expected)


@pytest.mark.parametrize("mode", [True, False])
def test_reading_is_in_evaluation_mode_part_by_part_and_puts_the_mode_back(mode, monkeypatch):
    with seeded("supervised maps", 0):
        network = ResNet10(1, width=8, classes=2, stride=4).train(mode)
    task, images = SupervisedMaps(network, **FOR), torch.rand(5, 1, 32, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr(evaluation_mode, "_ON_A_CPU", 2 * 32 * 32)
    maps = task.maps(images)
    monkeypatch.undo()
    assert maps.shape == (5, 2, 8, 8) and not maps.requires_grad and network.training is mode
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())
    network.eval()
    torch.testing.assert_close(maps, task.place_logits(images).detach())


def test_it_is_a_task_and_other_networks_are_refused():
    task = SupervisedMaps(Plain(), **FOR, learning_rate=3e-4)
    assert isinstance(task, Task)
    check_task(task)
    assert task.optimizers["classifier"].param_groups[0]["lr"] == 3e-4
    usual = SupervisedMaps(Plain(), **FOR).optimizers["classifier"]
    assert usual.param_groups[0]["lr"] == 1e-4 and (task.size, task.channels) == (4, 1)
    with pytest.raises(TypeError, match=r"expected one nn\.Linear with a bias, got Sequential"):
        SupervisedMaps(VGG19(1, 8), **FOR)
    network = Plain()
    network.classifier = nn.Linear(1, 2, bias=False)
    with pytest.raises(TypeError, match=r"expected one nn\.Linear with a bias, got Linear without"):
        SupervisedMaps(network, **FOR)


def test_a_few_boxed_images_teach_it_where_diseases_are():
    split = Source().all_diseases(32, 0, 160)
    with seeded("supervised maps", 0):
        network = ResNet10(1, width=8, classes=8, stride=4)
    task = SupervisedMaps(network, classes=split.classes, size=32, learning_rate=3e-3)
    before = best_threshold_accuracy(task, split, "test")["max_box_acc"]
    loader = Loader(split.store, shuffled(torch.from_numpy(split.train)))
    reports = train(task, loader, steps=120, batch_size=16, report_every=20)
    assert reports[-1].terms["C/loss"] < 0.8 * reports[0].terms["C/loss"]
    assert best_threshold_accuracy(task, split, "test")["max_box_acc"] > before + 0.1
