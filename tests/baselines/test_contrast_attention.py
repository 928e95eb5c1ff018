"""Contrast-induced attention: by hand on 2 x 2 places, the pairs, the rule, the reference."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from cxrtut.baselines.contrast_attention import (
    ContrastAttention,
    contrast_attention,
    normal_partners,
)
from cxrtut.data.loader import Loader
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.sample import Batch, to_uint8
from cxrtut.data.store import ArrayStore
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.losses.weighted_bce import weighted_bce_loss
from cxrtut.nn.backbones import VGG19, ResNet10
from cxrtut.randomness import seeded, shuffled
from cxrtut.records.weights import Description, load_networks, save_system

FOR = {"classes": ("Mass", "Nodule"), "size": 64}


class Plain(nn.Module):
    """A classifier whose features are the image."""

    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.classifier = nn.Linear(len(weight[0]), len(weight))
        self.classifier.weight.data = torch.tensor(weight)
        self.classifier.bias.data = torch.tensor(bias)


def batch_of(image: torch.Tensor, labels: list[list[float]]) -> Batch:
    n = len(image)
    return Batch(
        image=image,
        label_vector=torch.tensor(labels),
        boxes=torch.zeros(n, 0, 4),
        box_label=torch.zeros(n, 0, dtype=torch.int64),
        index=torch.arange(n),
    )


def small(seed: int = 0) -> ResNet10:
    with seeded("contrast attention", seed):
        return ResNet10(1, width=8, classes=8, stride=8)


def test_every_image_has_a_normal_partner_in_turn_and_no_normal_image_itself():
    abnormal = torch.tensor([1, 0, 1, 1, 0, 1, 0, 1, 1])
    labels = torch.stack([abnormal, torch.zeros_like(abnormal)], 1).float()
    row, there = normal_partners(labels)
    assert there.all() and (abnormal[row] == 0).all()
    assert row[abnormal == 1].tolist() == [1, 4, 6, 1, 4, 6]
    assert row[abnormal == 0].tolist() == [4, 6, 1]


def test_any_disease_makes_an_image_ill():
    row, there = normal_partners(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]))
    assert row[1:].tolist() == [0, 0, 0]
    assert there.tolist() == [False, True, True, True]  # the only normal image has no other


@pytest.mark.parametrize("n", [1, 3])
def test_without_normal_images_there_is_no_partner_and_the_row_is_a_row(n):
    row, there = normal_partners(torch.ones(n, 2))
    assert not there.any() and (row >= 0).all() and (row < n).all()


def test_all_normal_images_stand_in_a_ring():
    row, there = normal_partners(torch.zeros(4, 2))
    assert row.tolist() == [1, 2, 3, 0] and there.all()


def test_partners_are_chosen_without_reading_a_value():
    # Tensors on the meta device have no values: whoever reads one is told so.
    row, there = normal_partners(torch.zeros(5, 2, device="meta"))
    assert row.shape == there.shape == (5,)


def test_attention_is_the_summed_difference_over_its_largest():
    features = torch.tensor([[[[1.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [2.0, -1.0]]]])
    attention = contrast_attention(features, torch.zeros(1, 2, 2, 2))
    assert attention.tolist() == [[[[0.25, 0.0], [1.0, 0.25]]]]
    torch.testing.assert_close(attention, contrast_attention(torch.zeros(1, 2, 2, 2), features))


def test_features_equal_to_the_partners_have_no_attention_and_no_nan_in_the_gradient():
    features = torch.rand(2, 3, 2, 2, requires_grad=True)
    attention = contrast_attention(features, features.detach())
    assert not attention.any()
    attention.sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_the_loss_by_hand():
    # A normal image of zeros, an abnormal one of 4 2 / 0 0. Each one's attention: the normal image
    # has no other normal one, so it stands beside the mean 2 1 / 0 0; both have A = 1 .5 / 0 0.
    image = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]], [[[4.0, 2.0], [0.0, 0.0]]]])
    task = ContrastAttention(Plain([[1.0]], [-1.0]), **FOR)
    loss, terms = task.loss(batch_of(image, [[0.0], [1.0]]))
    # patches -1 -1 / -1 -1 and 3 0 / -1 -1
    expected = weighted_bce_loss(torch.tensor([[-1.0], [0.25]]), torch.tensor([[0.0], [1.0]]))
    torch.testing.assert_close(loss, expected)
    assert terms["attention"].item() == pytest.approx(1.5 / 4)


def test_an_image_is_the_mean_of_its_patches_or_any_of_them():
    patches = torch.tensor([[[[3.0, 0.0], [-1.0, -90.0]]]])
    mean = ContrastAttention(small(), **FOR).image_logits(patches)
    assert mean.item() == pytest.approx(-22)
    any_of_them = ContrastAttention(small(), **FOR, pooling="noisy-or").image_logits(patches)
    p = 1 - math.prod(1 - 0.02 / (1 + math.exp(-z)) for z in (3, 0, -1, -90))
    assert any_of_them.item() == pytest.approx(math.log(p / (1 - p)), rel=1e-5)


def test_the_pooling_is_that_of_the_loss_and_of_reading():
    image = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]], [[[4.0, 2.0], [0.0, 0.0]]]])
    task = ContrastAttention(Plain([[1.0]], [-1.0]), **FOR, pooling="noisy-or")
    loss, _ = task.loss(batch_of(image, [[0.0], [1.0]]))
    patches = torch.tensor([[[[-1.0, -1.0], [-1.0, -1.0]]], [[[3.0, 0.0], [-1.0, -1.0]]]])
    logits = task.image_logits(patches)
    torch.testing.assert_close(loss, weighted_bce_loss(logits, torch.tensor([[0.0], [1.0]])))
    task.set_reference(image[:1])
    torch.testing.assert_close(task.maps_and_logits(image[1:])[1], logits[1:])


def test_without_any_normal_image_the_partner_is_the_mean_of_the_batch():
    # Pixels 3 0 / 0 0, 0 0 / 0 6 and 0 0 / 0 0; their mean is 1 0 / 0 2.
    image = torch.zeros(3, 1, 2, 2)
    image[0, 0, 0, 0], image[1, 0, 1, 1] = 3.0, 6.0
    shifted = image + 1  # nowhere zero; the differences stay 2 0 / 0 2, 1 0 / 0 4 and 1 0 / 0 2
    loss, terms = ContrastAttention(Plain([[1.0]], [0.0]), **FOR).loss(
        batch_of(shifted, [[1.0]] * 3)
    )
    attention = torch.tensor(
        [[[[1.0, 0.0], [0.0, 1.0]]], [[[0.25, 0.0], [0.0, 1.0]]], [[[0.5, 0.0], [0.0, 1.0]]]]
    )
    assert terms["attention"].item() == pytest.approx(attention.mean().item())
    logits = (shifted * attention).mean((2, 3))
    torch.testing.assert_close(loss, weighted_bce_loss(logits, torch.ones(3, 1)))


def test_the_gradient_reaches_the_features_and_the_linear_layer():
    task, batch = ContrastAttention(small(), **FOR), ChestPhantom(64).batch(torch.arange(4))
    task.loss(batch)[0].backward()
    assert all(p.grad is not None for p in task.networks["classifier"].parameters())


def test_it_is_a_task_in_which_the_classifier_alone_moves():
    task = ContrastAttention(small(), **FOR, learning_rate=3e-4)
    assert isinstance(task, Task)
    check_task(task)
    (phase,) = task.phases(3, 0)
    assert (phase.name, phase.updates, phase.loss) == ("CIA", ("classifier",), task.loss)
    assert task.optimizers["classifier"].param_groups[0]["lr"] == 3e-4


def test_reading_needs_a_reference():
    with pytest.raises(ValueError, match="call set_reference before"):
        ContrastAttention(small(), **FOR).maps_and_logits(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match="at least one, got none"):
        ContrastAttention(small(), **FOR).set_reference(torch.rand(0, 1, 64, 64))


def test_a_reference_of_another_size_is_refused():
    task = ContrastAttention(small(), **FOR)
    task.set_reference(torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"\(64, 4, 4\), got \(64, 8, 8\)"):
        task.maps_and_logits(torch.rand(1, 1, 64, 64))


def test_reading_by_hand_is_beside_the_mean_of_the_reference():
    task = ContrastAttention(Plain([[2.0]], [-1.0]), **FOR)
    normal = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]], [[[0.0, 3.0], [0.0, 0.0]]]])
    task.set_reference(normal, batch_size=1)
    assert task.networks["reference"].mean.tolist() == [[[[0.0, 2.0], [0.0, 0.0]]]]
    # |x - reference| = 1 2 / 4 0: the bright place of all normal images is not what is looked at
    maps, logits = task.maps_and_logits(torch.tensor([[[[1.0, 4.0], [4.0, 0.0]]]]))
    patches = torch.tensor([[[[-0.5, 3.0], [7.0, -1.0]]]])
    torch.testing.assert_close(maps, patches)
    assert logits.item() == pytest.approx(8.5 / 4)


@pytest.mark.parametrize("mode", [True, False])
def test_read_gives_maps_and_logits_in_evaluation_mode_and_puts_the_mode_back(mode):
    network, images = small(), torch.rand(5, 1, 64, 64)
    task = ContrastAttention(network, **FOR)
    network.train(mode)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    task.set_reference(torch.rand(3, 1, 64, 64), batch_size=2)
    maps, logits = task.maps_and_logits(images, batch_size=2)
    assert maps.shape == (5, 8, 8, 8) and logits.shape == (5, 8)
    torch.testing.assert_close(maps.mean((2, 3)), logits)
    assert not maps.requires_grad
    assert network.training is mode
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())
    for one, other in zip(task.maps_and_logits(images), (maps, logits), strict=True):
        torch.testing.assert_close(one, other)


def test_the_mode_is_put_back_when_reading_fails():
    task = ContrastAttention(small(), **FOR)
    task.set_reference(torch.rand(1, 1, 64, 64))
    with pytest.raises(RuntimeError):
        task.maps_and_logits(torch.rand(2, 3, 64, 64))
    assert task.networks["classifier"].training


@pytest.mark.parametrize("pooling", ["mean", "noisy-or"])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_stay_finite(scale, pooling):
    network = Plain([[scale], [-scale]], [scale, 0.0])
    task = ContrastAttention(network, **FOR, pooling=pooling)
    image = torch.rand(3, 1, 4, 4)
    loss, _ = task.loss(batch_of(image, [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    loss.backward()
    assert loss.isfinite() and network.classifier.weight.grad.isfinite().all()
    task.set_reference(image)
    assert all(found.isfinite().all() for found in task.maps_and_logits(image))


def test_settings_outside_their_range_are_refused():
    with pytest.raises(ValueError, match=r"pooling: expected one of .*, got 'max'"):
        ContrastAttention(small(), **FOR, pooling="max")
    with pytest.raises(TypeError, match=r"expected nn\.Linear, got Sequential"):
        ContrastAttention(VGG19(1, 8), **FOR)


def phantoms(n: int) -> Loader:
    batch = ChestPhantom(64).batch(torch.arange(n))
    images = to_uint8(batch.image).numpy()
    labels = batch.label_vector.to(torch.uint8).numpy()
    return Loader(
        ArrayStore.from_arrays(images, labels, ChestPhantom.classes), shuffled(torch.arange(n))
    )


def test_a_few_steps_lower_the_loss_on_simulated_radiographs():
    task = ContrastAttention(small(), **FOR, learning_rate=3e-3)
    reports = train(task, phantoms(16), steps=30, batch_size=16, report_every=10)
    assert reports[-1].terms["CIA/loss"] < 0.8 * reports[0].terms["CIA/loss"]


def test_a_checkpoint_restores_the_reference(tmp_path: Path):
    data, first = phantoms(8), ContrastAttention(small(0), **FOR)
    first.set_reference(torch.rand(2, 1, 64, 64))
    train(first, data, steps=2, batch_size=8, checkpoint_dir=tmp_path, checkpoint_every=2)
    again = ContrastAttention(small(1), **FOR)
    train(again, data, steps=2, batch_size=8, checkpoint_dir=tmp_path, resume=True)
    images = torch.rand(2, 1, 64, 64)
    for one, other in zip(
        first.maps_and_logits(images), again.maps_and_logits(images), strict=True
    ):
        assert torch.equal(one, other)


def test_a_reference_goes_through_a_file_of_weights_and_an_empty_one_too(tmp_path: Path):
    full, empty = ContrastAttention(small(), **FOR), ContrastAttention(small(), **FOR)
    full.set_reference(torch.rand(2, 1, 64, 64))
    for source in (full, empty):
        path, target = tmp_path / "reference.safetensors", ContrastAttention(small(), **FOR)
        target.set_reference(torch.rand(2, 1, 32, 32))
        save_system(source, Description("any", "Liu", {}, source.classes), path)
        load_networks(target, path)
        mean = source.networks["reference"].mean
        assert torch.equal(target.networks["reference"].mean, mean)
