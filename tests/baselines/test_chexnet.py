"""CheXNet: the weights of the classes and the weighted cross-entropy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from baselines.translating import Fixed, domain_batch, moved_by
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from cxrtut.baselines.chexnet import CheXNet, class_weights
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.localize.cam import class_activation_map
from cxrtut.nn.backbones import DenseNet, ResNet10


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Means(nn.Module):
    """Logits 0 and w times the mean of the image."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x: Tensor) -> Tensor:
        z = self.w * x.mean((1, 2, 3))
        return torch.stack((0 * z, z), 1)


def test_the_weights_of_the_classes_are_the_shares_of_the_other_class():
    assert class_weights(3, 1).tolist() == [0.25, 0.75]  # w_-, w_+
    rsna = class_weights(8_851, 6_012)
    assert rsna.tolist() == pytest.approx([6_012 / 14_863, 8_851 / 14_863])
    assert rsna.sum() == 1 and rsna.dtype == torch.float32


def test_both_classes_weigh_the_same_together_and_as_in_scikit_learn():
    healthy, diseased = 30, 7
    weights = class_weights(healthy, diseased)
    assert healthy * weights[0].item() == pytest.approx(diseased * weights[1].item())
    labels = [0] * healthy + [1] * diseased
    balanced = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert (weights / weights[0]).tolist() == pytest.approx((balanced / balanced[0]).tolist())


@pytest.mark.parametrize("numbers", [(0, 3), (3, 0), (-1, 2)])
def test_a_class_without_images_is_refused(numbers):
    words = f"expected images of both kinds, got {numbers[0]} and {numbers[1]}"
    with pytest.raises(ValueError, match=words):
        class_weights(*numbers)


def test_the_loss_is_the_papers_sum_over_a_loop_of_images():
    w_minus, w_plus = 0.2, 0.8
    task = CheXNet(Means(3.0), torch.tensor([w_minus, w_plus]))
    labels = torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0]])
    batch = replace(domain_batch(5), label_vector=labels)
    batch.image.mul_(0.1).add_(torch.linspace(-0.8, 0.8, 5)[:, None, None, None])
    expected, right, surely = 0.0, 0, []
    for x, y in zip(batch.image, labels.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-3 * x.mean().item()))  # one output with a sigmoid
        expected -= (w_plus * y * math.log(p) + w_minus * (1 - y) * math.log(1 - p)) / 5
        right += (p > 0.5) == (y == 1)
        surely.append(p)
    loss, terms = task.loss(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert terms["accuracy"].item() == pytest.approx(right / 5) and 0 < right < 5
    # scikit-learn divides by the sum of the weights
    each = [w_plus if y else w_minus for y in labels.flatten().tolist()]
    oracle = log_loss(labels.flatten().numpy(), surely, sample_weight=each)
    assert loss.item() == pytest.approx(oracle * sum(each) / 5, rel=1e-5)


def test_a_blind_classifier_pays_log_2_times_the_weight_of_each_image():
    task = CheXNet(Means(0.0), torch.tensor([0.2, 0.8]))
    batch = replace(domain_batch(), label_vector=torch.tensor([[0.0], [1.0], [1.0], [1.0]]))
    loss, _ = task.loss(batch)
    assert loss.item() == pytest.approx(math.log(2) * (0.2 + 3 * 0.8) / 4, rel=1e-6)


def test_any_disease_makes_an_image_ill():
    task = CheXNet(Means(3.0), torch.tensor([0.2, 0.8]))
    batch = replace(domain_batch(), target_vector=None)
    many = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 1, 0], [0, 1, 0]])
    one = many.amax(1, keepdim=True)
    found = [task.loss(replace(batch, label_vector=labels))[0] for labels in (many, one)]
    assert torch.equal(*found)


def test_a_wrong_answer_about_the_rare_class_costs_more():
    batch = domain_batch()
    bright = replace(batch, image=torch.full_like(batch.image, 0.5))
    weights = class_weights(90, 10)
    diseased = replace(bright, label_vector=torch.ones(4, 1))
    healthy = replace(bright, label_vector=torch.zeros(4, 1))
    missed = CheXNet(Means(-4.0), weights).loss(diseased)[0]
    alarm = CheXNet(Means(4.0), weights).loss(healthy)[0]
    assert missed.item() == pytest.approx(9 * alarm.item(), rel=1e-5)


def test_it_is_a_task_in_which_the_classifier_alone_moves():
    task = CheXNet(ResNet10(1, 4, 2), class_weights(1, 1), learning_rate=3e-4)
    assert isinstance(task, Task) and task.n_uniforms == 0
    check_task(task)
    (phase,) = task.phases(3, 0)
    assert (phase.name, phase.updates, phase.loss) == ("C", ("classifier",), task.loss)
    group = task.optimizers["classifier"].param_groups[0]
    assert (group["lr"], group["betas"]) == (3e-4, (0.9, 0.999))
    assert moved_by(task, "C", domain_batch(size=32)) == {"classifier"}
    paper = CheXNet(Means(1.0), class_weights(1, 1))
    assert paper.optimizers["classifier"].param_groups[0]["lr"] == 1e-3


def test_it_learns_what_is_bright_in_twenty_steps_and_the_map_shows_it():
    network = DenseNet(1, 2, layers=21, stride=8)
    batch = domain_batch(8, size=32)
    batch.image.mul_(0.2)
    batch.image[1::2, :, 8:16, 8:16] += 0.7
    task = CheXNet(network, class_weights(3, 1), learning_rate=3e-3)
    before = task.loss(batch)[0]
    train(task, Fixed(batch), steps=20, batch_size=8)
    after, terms = task.loss(batch)
    assert after < 0.3 * before and terms["accuracy"] == 1
    maps = class_activation_map(network.features(batch.image), network.classifier.weight)
    evidence = (maps[:, 1] - maps[:, 0]).detach()
    assert evidence[1::2].mean() > evidence[0::2].mean()
