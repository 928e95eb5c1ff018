"""Contrast-induced attention: by hand on 2 x 2 places, the pairs, the rule, the reference."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from cxrtut import evaluation_mode
from cxrtut.baselines.contrast_attention import (
    ContrastAttention,
    NormalImages,
    contrast_attention,
)
from cxrtut.data.average_hash import average_hash
from cxrtut.data.loader import Loader
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.sample import Batch, System, to_uint8
from cxrtut.data.store import ArrayStore
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.localize.heatmap import heatmap_from_maps
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


def compared(task: ContrastAttention, images: torch.Tensor, first: int = 100) -> ContrastAttention:
    """The task with these normal images to compare with, of rows that no batch here has."""
    task.set_normal_images(images, first + torch.arange(len(images)))
    return task


def test_partners_are_the_most_similar_normal_images_and_nobody_its_own():
    library = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    normal = NormalImages(torch.device("cpu"))
    normal.keep(library, torch.tensor([7, 3, 9, 1, 4]))
    noisy = library + 0.1 * torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(normal.partners(noisy), library)
    assert torch.equal(normal.partners(noisy, torch.arange(20, 25)), library)
    rows = torch.tensor([7, 3, 9, 1, 4])
    others = normal.partners(noisy, rows)
    bits = average_hash(library)
    for i in range(5):
        distance = [
            1e3 if j == i else int((average_hash(noisy)[i] != bits[j]).sum()) for j in range(5)
        ]
        assert torch.equal(others[i], library[distance.index(min(distance))])


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


def cells(*values: list[list[float]]) -> torch.Tensor:
    """Images of 2 x 2 cells, each 8 x 8 pixels large."""
    return torch.tensor(values)[:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_the_loss_by_hand():
    # A normal image of zeros, an abnormal one of 4 2 / 0 0; both stand beside a normal image of
    # 2 1 / 0 0, from which both differ by 2 1 / 0 0: A = 1 .5 / 0 0.
    image = cells([[0.0, 0.0], [0.0, 0.0]], [[4.0, 2.0], [0.0, 0.0]])
    task = compared(
        ContrastAttention(Plain([[1.0]], [-1.0]), **FOR), cells([[2.0, 1.0], [0.0, 0.0]])
    )
    loss, terms = task.loss(batch_of(image, [[0.0], [1.0]]))
    # patches -1 -1 / -1 -1 and 3 0 / -1 -1
    expected = weighted_bce_loss(torch.tensor([[-1.0], [0.25]]), torch.tensor([[0.0], [1.0]]))
    torch.testing.assert_close(loss, expected)
    assert terms["attention"].item() == pytest.approx(1.5 / 4)


def test_a_temperature_sharpens_by_a_softmax_over_places():
    features = torch.tensor([[[[4.0, 2.0], [0.0, 2.0]]]])
    found = contrast_attention(features, torch.zeros(1, 1, 2, 2), temperature=3.0)
    # differences 4 2 / 0 2, less their mean 2 and over their largest: .5 0 / -.5 0
    weight = [math.exp(3.0 * d) for d in (0.5, 0.0, -0.5, 0.0)]
    assert found.flatten().tolist() == pytest.approx([w / weight[0] for w in weight])
    equal = contrast_attention(features, features, temperature=3.0)
    assert equal.flatten().tolist() == [1.0] * 4  # nothing differs: all places alike
    hotter = contrast_attention(features, torch.zeros(1, 1, 2, 2), temperature=30.0)
    assert hotter[0, 0, 0, 1] < found[0, 0, 0, 1]


def test_the_temperature_is_that_of_training_and_of_reading():
    image, normal = cells([[4.0, 2.0], [0.0, 0.0]]), cells([[2.0, 1.0], [0.0, 0.0]])
    task = compared(ContrastAttention(Plain([[1.0]], [0.0]), **FOR, temperature=2.0), normal)
    attention = contrast_attention(image, normal, 2.0)
    loss, terms = task.loss(batch_of(image, [[1.0]]))
    assert terms["attention"].item() == pytest.approx(attention.mean().item())
    maps, logits = task.maps_and_logits(image)
    torch.testing.assert_close(maps, image * attention)
    torch.testing.assert_close(loss, weighted_bce_loss(logits, torch.ones(1, 1)))


def test_an_image_is_the_mean_of_its_patches_or_any_of_them():
    patches = torch.tensor([[[[3.0, 0.0], [-1.0, -90.0]]]])
    mean = ContrastAttention(small(), **FOR).image_logits(patches)
    assert mean.item() == pytest.approx(-22)
    any_of_them = ContrastAttention(small(), **FOR, pooling="noisy-or").image_logits(patches)
    p = 1 - math.prod(1 - 0.02 / (1 + math.exp(-z)) for z in (3, 0, -1, -90))
    assert any_of_them.item() == pytest.approx(math.log(p / (1 - p)), rel=1e-5)


def test_the_pooling_is_that_of_the_loss_and_of_reading():
    image = cells([[0.0, 0.0], [0.0, 0.0]], [[4.0, 2.0], [0.0, 0.0]])
    plain = Plain([[1.0]], [-1.0])
    plain.features = nn.AvgPool2d(8)  # four places, as by hand
    task = ContrastAttention(plain, **FOR, pooling="noisy-or")
    compared(task, cells([[2.0, 1.0], [0.0, 0.0]]))
    loss, _ = task.loss(batch_of(image, [[0.0], [1.0]]))
    patches = torch.tensor([[[[-1.0, -1.0], [-1.0, -1.0]]], [[[3.0, 0.0], [-1.0, -1.0]]]])
    logits = task.image_logits(patches)
    torch.testing.assert_close(loss, weighted_bce_loss(logits, torch.tensor([[0.0], [1.0]])))
    torch.testing.assert_close(task.maps_and_logits(image)[1], logits)


def test_a_normal_image_of_the_batch_is_not_its_own_partner():
    image = cells([[4.0, 0.0], [0.0, 0.0]], [[4.0, 0.0], [0.0, 6.0]])
    task = ContrastAttention(Plain([[1.0]], [0.0]), **FOR)
    task.set_normal_images(image, torch.arange(2))
    _, terms = task.loss(batch_of(image, [[0.0], [0.0]]))
    assert terms["attention"].item() == pytest.approx(1 / 4)  # each beside the other
    # At diagnosis rows are not known: the image itself is the most similar one
    assert not contrast_attention(image, task.networks["normal"].partners(image)).any()


def test_the_gradient_reaches_the_features_and_the_linear_layer():
    task, batch = ContrastAttention(small(), **FOR), ChestPhantom(64).batch(torch.arange(4))
    compared(task, torch.rand(3, 1, 64, 64))
    task.loss(batch)[0].backward()
    assert all(p.grad is not None for p in task.networks["classifier"].parameters())


def test_the_gradient_flows_through_the_partners_too():
    # Attention does not change with the scale of all features, and so has no gradient there; with
    # partners that stay as they are it would have one
    plain = Plain([[1.0]], [0.0])
    plain.features = nn.Conv2d(1, 1, 1, bias=False)
    task = compared(ContrastAttention(plain, **FOR), torch.rand(3, 1, 16, 16))
    _, terms = task.loss(batch_of(torch.rand(2, 1, 16, 16), [[1.0], [0.0]]))
    (gradient,) = torch.autograd.grad(terms["attention"], plain.features.weight)
    assert gradient.abs().max() < 1e-5
    still = plain.features(torch.rand(1, 1, 16, 16)).detach()
    alone = contrast_attention(plain.features(torch.rand(1, 1, 16, 16)), still).mean()
    assert torch.autograd.grad(alone, plain.features.weight)[0].abs().max() > 1e-3


def test_images_and_partners_are_normalised_together():
    network = small().train()
    task = compared(ContrastAttention(network, **FOR), torch.rand(3, 1, 64, 64))
    task.loss(batch_of(torch.rand(4, 1, 64, 64), [[0.0] * 8] * 4))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked) == 1 for m in norms)


def test_a_prediction_is_of_the_maps_and_their_probabilities_are_places():
    task = compared(ContrastAttention(small(), **FOR), torch.rand(3, 1, 64, 64))
    images = torch.rand(2, 1, 64, 64)
    (maps, logits), found = task.maps_and_logits(images), task.predict(images)
    torch.testing.assert_close(found.scores, logits.double().sigmoid(), check_dtype=False)
    torch.testing.assert_close(found.heatmap, heatmap_from_maps(maps, (64, 64)))
    torch.testing.assert_close(task.probability_maps(images), maps.sigmoid())
    assert isinstance(task, System) and (task.classes, task.size, task.channels) == (
        FOR["classes"], 64, 1
    )  # fmt: skip


def test_it_is_a_task_in_which_the_classifier_alone_moves():
    task = ContrastAttention(small(), **FOR, learning_rate=3e-4)
    assert isinstance(task, Task)
    check_task(task)
    (phase,) = task.phases(3, 0)
    assert (phase.name, phase.updates, phase.loss) == ("CIA", ("classifier",), task.loss)
    assert task.optimizers["classifier"].param_groups[0]["lr"] == 3e-4
    usual = ContrastAttention(small(), **FOR).optimizers["classifier"]
    assert usual.param_groups[0]["lr"] == 1e-4


def test_training_and_reading_need_normal_images():
    task = ContrastAttention(small(), **FOR)
    with pytest.raises(ValueError, match="call set_normal_images before"):
        task.maps_and_logits(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match="call set_normal_images before"):
        task.loss(batch_of(torch.rand(1, 1, 64, 64), [[0.0, 1.0]]))
    for n, rows in ((0, 0), (2, 1)):
        with pytest.raises(ValueError, match=rf"a row for each, got {n} and {rows}"):
            task.set_normal_images(torch.rand(n, 1, 64, 64), torch.arange(rows))


def test_images_of_another_size_than_the_normal_ones_are_refused():
    task = compared(ContrastAttention(small(), **FOR), torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"\(1, 32, 32\), got \(1, 64, 64\)"):
        task.maps_and_logits(torch.rand(1, 1, 64, 64))


def test_reading_by_hand_is_beside_the_most_similar_normal_image():
    task = ContrastAttention(Plain([[2.0]], [-1.0]), **FOR)
    compared(task, cells([[0.0, 2.0], [0.0, 0.0]], [[9.0, 0.0], [0.0, 0.0]]))
    # |x - the first| = 1 2 / 1 0: the place that is bright in the normal image counts less
    maps, logits = task.maps_and_logits(cells([[1.0, 4.0], [1.0, 0.0]]))
    patches = cells([[0.0, 7.0], [0.0, -1.0]])
    torch.testing.assert_close(maps, patches)
    assert logits.item() == pytest.approx(6 / 4)


@pytest.mark.parametrize("mode", [True, False])
def test_reading_is_in_evaluation_mode_part_by_part_and_puts_the_mode_back(mode, monkeypatch):
    network, images = small(), torch.rand(5, 1, 64, 64)
    task = ContrastAttention(network, **FOR)
    network.train(mode)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    compared(task, torch.rand(3, 1, 64, 64))
    monkeypatch.setattr(evaluation_mode, "_ON_A_CPU", 2 * 64 * 64)
    maps, logits = task.maps_and_logits(images)
    monkeypatch.undo()
    assert maps.shape == (5, 8, 8, 8) and logits.shape == (5, 8)
    torch.testing.assert_close(maps.mean((2, 3)), logits)
    assert not maps.requires_grad
    assert network.training is mode
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())
    for one, other in zip(task.maps_and_logits(images), (maps, logits), strict=True):
        torch.testing.assert_close(one, other)


def test_the_mode_is_put_back_when_reading_fails():
    task = ContrastAttention(small(), **FOR)
    compared(task, torch.rand(1, 3, 64, 64))
    with pytest.raises(RuntimeError):
        task.maps_and_logits(torch.rand(2, 3, 64, 64))
    assert task.networks["classifier"].training


@pytest.mark.parametrize("pooling", ["mean", "noisy-or"])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_stay_finite(scale, pooling):
    network = Plain([[scale], [-scale]], [scale, 0.0])
    task = ContrastAttention(network, **FOR, pooling=pooling)
    image = torch.rand(3, 1, 16, 16)
    compared(task, torch.rand(2, 1, 16, 16))
    loss, _ = task.loss(batch_of(image, [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    loss.backward()
    assert loss.isfinite() and network.classifier.weight.grad.isfinite().all()
    assert all(found.isfinite().all() for found in task.maps_and_logits(image))


def test_settings_outside_their_range_are_refused():
    with pytest.raises(ValueError, match=r"pooling: expected one of .*, got 'max'"):
        ContrastAttention(small(), **FOR, pooling="max")
    with pytest.raises(TypeError, match=r"expected one nn\.Linear, got Sequential"):
        ContrastAttention(VGG19(1, 8), **FOR)


def phantoms(n: int) -> Loader:
    batch = ChestPhantom(64).batch(torch.arange(n))
    images = to_uint8(batch.image).numpy()
    labels = batch.label_vector.to(torch.uint8).numpy()
    return Loader(
        ArrayStore.from_arrays(images, labels, ChestPhantom.classes), shuffled(torch.arange(n))
    )


def test_a_few_steps_lower_the_loss_on_simulated_radiographs():
    task = compared(ContrastAttention(small(), **FOR, learning_rate=3e-3), torch.rand(4, 1, 64, 64))
    reports = train(task, phantoms(16), steps=30, batch_size=16, report_every=10)
    assert reports[-1].terms["CIA/loss"] < 0.8 * reports[0].terms["CIA/loss"]


def test_a_checkpoint_brings_the_normal_images_back(tmp_path: Path):
    data, first = phantoms(8), ContrastAttention(small(0), **FOR)
    compared(first, torch.rand(2, 1, 64, 64))
    train(first, data, steps=2, batch_size=8, checkpoint_dir=tmp_path, checkpoint_every=2)
    again = ContrastAttention(small(1), **FOR)
    train(again, data, steps=2, batch_size=8, checkpoint_dir=tmp_path, resume=True)
    for name, buffer in first.networks["normal"].named_buffers():
        assert torch.equal(again.networks["normal"].get_buffer(name), buffer)
    images = torch.rand(2, 1, 64, 64)
    for one, other in zip(
        first.maps_and_logits(images), again.maps_and_logits(images), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_normal_images_go_through_a_file_of_weights_and_none_of_them_too(tmp_path: Path):
    full, empty = ContrastAttention(small(), **FOR), ContrastAttention(small(), **FOR)
    compared(full, torch.rand(2, 1, 64, 64))
    for source in (full, empty):
        path, target = tmp_path / "normal.safetensors", ContrastAttention(small(), **FOR)
        compared(target, torch.rand(3, 1, 32, 32))
        save_system(source, Description("any", "Liu", {}, source.classes), path)
        load_networks(target, path)
        for name, buffer in source.networks["normal"].named_buffers():
            assert torch.equal(target.networks["normal"].get_buffer(name), buffer)
