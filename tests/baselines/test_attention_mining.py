"""Attention mining: by hand on 2 x 2 places; what is hidden, what is preserved and restored."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cxrtut import evaluation_mode
from cxrtut.baselines.attention_mining import AttentionMining, class_maps, saliency, salient_region
from cxrtut.baselines.classifier import MultiLabelTask, logits_of
from cxrtut.data.loader import Loader
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.sample import Batch, to_uint8
from cxrtut.data.store import ArrayStore
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.losses.weighted_bce import weighted_bce_loss
from cxrtut.nn.backbones import VGG19, ResNet10
from cxrtut.randomness import seeded, shuffled

FOR = {"classes": ("Mass", "Nodule"), "size": 64}


class Plain(nn.Module):
    """A classifier whose features are the image."""

    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.classifier = nn.Linear(len(weight[0]), len(weight))
        self.classifier.weight.data = torch.tensor(weight)
        self.classifier.bias.data = torch.tensor(bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


class Mirrored(nn.Module):
    """Left is right."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flip(-1)


def batch_of(image: torch.Tensor, labels: list[list[float]]) -> Batch:
    n = len(image)
    return Batch(
        image=image,
        label_vector=torch.tensor(labels),
        boxes=torch.zeros(n, 0, 4),
        box_label=torch.zeros(n, 0, dtype=torch.int64),
        index=torch.arange(n),
    )


def small(seed: int = 0, classes: int = 8) -> ResNet10:
    with seeded("attention mining", seed):
        return ResNet10(1, width=8, classes=classes, stride=8)


def everywhere(maps: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(maps, dtype=torch.bool)


IMAGE = torch.tensor([[[[4.0, 2.0], [0.0, 1.0]]]])


def test_the_mean_of_a_map_and_the_bias_are_the_logit():
    network, images = small(), torch.rand(3, 1, 32, 32) * 2 - 1
    network.eval()
    maps, bias = class_maps(network, images)
    assert maps.shape == (3, 8, 4, 4)
    torch.testing.assert_close(maps.mean((2, 3)) + bias, network(images))


def test_a_classifier_without_bias_has_a_bias_of_zero():
    network = Plain([[2.0]], [5.0])
    network.classifier.bias = None
    assert class_maps(network, IMAGE)[1].tolist() == [0.0]


def test_saliency_runs_from_zero_to_one_over_the_places_that_are_kept():
    keep = everywhere(IMAGE)
    assert saliency(IMAGE, keep).flatten().tolist() == [1.0, 0.5, 0.0, 0.25]
    keep[0, 0, 0, 0] = False
    assert saliency(IMAGE, keep).flatten().tolist() == [0.0, 1.0, 0.0, 0.5]
    without_the_lowest = torch.tensor([[[[True, True], [False, True]]]])
    found = saliency(IMAGE, without_the_lowest).flatten().tolist()
    assert found == pytest.approx([1.0, 1 / 3, 0.0, 0.0])
    # a map that is negative everywhere: the hole is not its maximum
    assert saliency(IMAGE - 9, keep).flatten().tolist() == [0.0, 1.0, 0.0, 0.5]


@pytest.mark.parametrize("level", [-1e30, -1.0, 0.0, 1e30])
def test_a_constant_map_and_a_map_without_places_point_nowhere(level):
    flat = torch.full((1, 2, 2, 2), level)
    assert not saliency(flat, everywhere(flat)).any()
    assert not saliency(torch.randn(1, 2, 2, 2), ~everywhere(flat)).any()


def test_hot_is_strictly_above_the_fraction():
    keep = everywhere(IMAGE)
    assert salient_region(IMAGE, keep, 0.5).flatten().tolist() == [True, False, False, False]
    assert salient_region(IMAGE, keep, 0.2).flatten().tolist() == [True, True, False, True]


def test_the_loss_by_hand_hides_the_hottest_place_of_what_is_found():
    # Maps 4 2 / 0 1 with bias -0.5: logit 1.25, found. Place 4 is above .7; without it 0.25.
    task = AttentionMining(Plain([[1.0]], [-0.5]), **FOR, drop=0.7, lambda_kp=3.0)
    loss, terms = task.loss(batch_of(IMAGE, [[1.0]]))
    first, last = (torch.nn.functional.softplus(torch.tensor(-z)) for z in (1.25, 0.25))
    torch.testing.assert_close(terms["first"], first)
    torch.testing.assert_close(terms["last"], last)
    torch.testing.assert_close(loss, (first + last) / 2)


def test_a_third_round_hides_what_the_second_found_and_keeps_hidden_what_was():
    # 4 2 / 0 1, then 2 / 0 1 (logit 0.25, found), then 0 1: logit 1/4 - 1/2.
    task = AttentionMining(Plain([[1.0]], [-0.5]), **FOR, drop=0.7, rounds=3)
    _, terms = task.loss(batch_of(IMAGE, [[1.0]]))
    expected = torch.nn.functional.softplus(torch.tensor(0.25))
    torch.testing.assert_close(terms["last"], expected)


@pytest.mark.parametrize(("bias", "label"), [(-9.0, 1.0), (-0.5, 0.0)])
def test_nothing_is_hidden_for_a_class_that_is_missed_or_that_is_not_there(bias, label):
    _, terms = AttentionMining(Plain([[1.0]], [bias]), **FOR).loss(batch_of(IMAGE, [[label]]))
    torch.testing.assert_close(terms["first"], terms["last"])


def test_what_is_hidden_for_one_class_is_hidden_for_all():
    # Class 1 sees half of what class 0 sees, and is not there; its logit falls in the second round.
    task = AttentionMining(Plain([[1.0], [0.5]], [0.0, 0.0]), **FOR, drop=0.7)
    _, terms = task.loss(batch_of(IMAGE, [[1.0, 0.0]]))
    second = weighted_bce_loss(torch.tensor([[0.75, 0.375]]), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(terms["last"], second)


def test_mining_equals_classifying_the_features_with_places_dropped_slowly():
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 5), [0.3, -0.1, 0.2]
    network, features = Plain(weight.tolist(), bias), torch.randn(4, 5, 3, 3)
    labels = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]
    loss, _ = AttentionMining(network, **FOR, rounds=3, drop=0.6).loss(batch_of(features, labels))

    dropped, gone, total = features.clone(), torch.zeros(4, 3, 3, dtype=torch.bool), 0.0
    for _ in range(3):
        maps = class_activation_map(dropped, weight)
        z = network.classifier(dropped.mean((2, 3)))
        total += weighted_bce_loss(z, torch.tensor(labels)).item() / 3
        for i in range(4):
            more = torch.zeros(3, 3, dtype=torch.bool)
            for k in range(3):
                left = maps[i, k][~gone[i]]
                if labels[i][k] == 1 and z[i, k] > 0 and len(left):
                    span = left.max() - left.min()
                    more |= (maps[i, k] - left.min()) / span > 0.6
            gone[i] |= more
            dropped[i][:, gone[i]] = 0
    assert gone.any() and loss.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_the_knowledge_is_preserved_entirely_at_the_start_in_both_modes(mode):
    task, batch = AttentionMining(small(), **FOR), ChestPhantom(64).batch(torch.arange(4))
    task.networks["classifier"].train(mode)
    assert task.loss(batch)[1]["KP"].item() == 0


def test_maps_that_moved_cost_their_squares_whatever_their_mean():
    # 4 2 / 0 1 became 2 4 / 1 0, of the same mean: squares 4 4 1 1
    network = Plain([[1.0]], [-0.5])
    task = AttentionMining(network, **FOR, lambda_kp=3.0)
    network.features = Mirrored()
    loss, terms = task.loss(batch_of(IMAGE, [[1.0]]))
    assert terms["KP"].item() == pytest.approx(2.5)
    rest = (terms["first"] + terms["last"]) / 2
    torch.testing.assert_close(loss, rest + 7.5)


def test_the_preserved_network_gets_no_gradient_and_its_statistics_stay():
    task, batch = AttentionMining(small(), **FOR), ChestPhantom(64).batch(torch.arange(4))
    before = {
        name: value.clone() for name, value in task.networks["preserved"].state_dict().items()
    }
    for network in task.networks.values():
        network.train()
    task.networks["classifier"].classifier.weight.data += 1
    task.loss(batch)[0].backward()
    assert all(p.grad is None for p in task.networks["preserved"].parameters())
    assert all(p.grad is not None for p in task.networks["classifier"].parameters())
    after = task.networks["preserved"].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_preserved_network_reads_as_the_classifier_did():
    network, images = small(), torch.rand(3, 1, 32, 32)
    network(images)  # moves the running statistics
    task = AttentionMining(network, **FOR)
    assert torch.equal(logits_of(task.networks["preserved"], images), logits_of(network, images))


def test_it_is_a_task_in_which_the_classifier_alone_moves():
    task = AttentionMining(small(), **FOR, learning_rate=3e-4)
    assert isinstance(task, Task)
    check_task(task)
    (phase,) = task.phases(3, 0)
    assert (phase.name, phase.updates, phase.loss) == ("AM", ("classifier",), task.loss)
    assert set(task.networks) == {"classifier", "preserved"}
    assert task.optimizers["classifier"].param_groups[0]["lr"] == 3e-4


def test_the_gradient_of_a_later_round_reaches_only_what_was_not_hidden():
    network = Plain([[1.0]], [-0.5])
    image = IMAGE.clone().requires_grad_()
    task = AttentionMining(network, **FOR, drop=0.7, lambda_kp=0.0)
    task.loss(batch_of(image, [[1.0]]))[1]["last"].backward()
    assert image.grad is not None
    assert image.grad[0, 0, 0, 0] == 0 and (image.grad.flatten()[1:] < 0).all()


def test_the_map_by_hand_has_the_second_round_as_far_as_it_is_believed():
    # saliencies 1 .5 / 0 .25 (logit 1.75), then 0 1 / 0 .5 (logit 0.75)
    maps, logits = AttentionMining(Plain([[1.0]], [0.0]), **FOR, drop=0.7).maps_and_logits(IMAGE)
    share = (torch.tensor(0.75).sigmoid() / torch.tensor(1.75).sigmoid()).item()
    assert logits.item() == pytest.approx(1.75)
    assert maps.flatten().tolist() == pytest.approx([1.0, share, 0.0, share / 2])


def test_one_round_is_the_class_activation_map_and_two_rounds_show_more():
    images = torch.rand(3, 1, 64, 64) * 2 - 1
    network = small()
    one, logits = AttentionMining(network, **FOR, rounds=1).maps_and_logits(images)
    two, same = AttentionMining(network, **FOR, rounds=2).maps_and_logits(images)
    network.eval()
    maps, _ = class_maps(network, images)
    torch.testing.assert_close(one, saliency(maps, everywhere(maps)))
    assert torch.equal(logits, same)
    assert (two >= one).all() and (two > one).flatten(2).any(2).all()


def test_each_class_hides_its_own_places_when_it_is_read():
    image = torch.tensor([[[[4.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 4.0]]]])
    maps, _ = AttentionMining(
        Plain([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), **FOR, drop=0.7
    ).maps_and_logits(image)
    torch.testing.assert_close(maps[0, 0], maps[0, 1].flip(0, 1))
    assert (maps[0, 0, 1] == 0).all() and maps[0, 0, 0, 1] > 0.5


@pytest.mark.parametrize("mode", [True, False])
def test_reading_is_in_evaluation_mode_part_by_part_and_puts_the_mode_back(mode, monkeypatch):
    network, images = small(), torch.rand(5, 1, 64, 64)
    task = AttentionMining(network, **FOR)
    network.train(mode)
    monkeypatch.setattr(evaluation_mode, "_ON_A_CPU", 2 * 64 * 64)
    maps, logits = task.maps_and_logits(images)
    monkeypatch.undo()
    assert maps.shape == (5, 8, 8, 8) and logits.shape == (5, 8)
    assert maps.amin() == 0 and maps.amax() == 1 and not maps.requires_grad
    assert network.training is mode
    torch.testing.assert_close(logits, logits_of(network, images))
    torch.testing.assert_close(maps, task.maps_and_logits(images)[0])


def test_the_mode_is_put_back_when_reading_fails():
    task = AttentionMining(small(), **FOR)
    with pytest.raises(RuntimeError):
        task.maps_and_logits(torch.rand(2, 3, 64, 64))
    assert task.networks["classifier"].training


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_stay_finite(scale):
    network = Plain([[scale], [-scale]], [scale, 0.0])
    task = AttentionMining(network, **FOR, rounds=4)
    loss, _ = task.loss(batch_of(IMAGE, [[1.0, 1.0]]))
    loss.backward()
    assert loss.isfinite() and network.classifier.weight.grad.isfinite().all()
    maps, logits = task.maps_and_logits(IMAGE)
    assert maps.isfinite().all() and logits.isfinite().all()
    assert maps.flatten(2).amax(2).tolist() == [[1.0, 1.0]]


def test_a_black_image_points_nowhere():
    maps, logits = AttentionMining(Plain([[1.0]], [0.5]), **FOR).maps_and_logits(
        torch.zeros(1, 1, 2, 2)
    )
    assert not maps.any() and logits.item() == 0.5


def test_settings_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="rounds: expected at least 1, got 0"):
        AttentionMining(small(), **FOR, rounds=0)
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1"):
        AttentionMining(small(), **FOR, drop=1.0)
    with pytest.raises(ValueError, match="0 or more, got nan"):
        AttentionMining(small(), **FOR, lambda_kp=float("nan"))
    with pytest.raises(TypeError, match=r"expected one nn\.Linear, got Sequential"):
        AttentionMining(VGG19(1, 8), **FOR)


def phantoms(n: int) -> Loader:
    batch = ChestPhantom(64).batch(torch.arange(n))
    images = to_uint8(batch.image).numpy()
    labels = batch.label_vector.to(torch.uint8).numpy()
    return Loader(
        ArrayStore.from_arrays(images, labels, ChestPhantom.classes), shuffled(torch.arange(n))
    )


def test_a_few_steps_of_mining_lower_the_loss_of_a_trained_classifier():
    network, data = small(), phantoms(32)
    train(MultiLabelTask(network, learning_rate=3e-3), data, steps=20, batch_size=32)
    task = AttentionMining(network, **FOR, learning_rate=1e-3, lambda_kp=0.05)
    reports = train(task, data, steps=40, batch_size=32, report_every=5)
    first, last = reports[0].terms, reports[-1].terms
    assert last["AM/loss"] < 0.8 * first["AM/loss"]
    assert last["AM/last"] < 0.9 * first["AM/last"]  # with places hidden, too
    assert last["AM/KP"] > 0


def test_a_checkpoint_restores_the_network_from_before_the_mining(tmp_path: Path):
    data, first = phantoms(8), AttentionMining(small(0), **FOR)
    train(first, data, steps=2, batch_size=8, checkpoint_dir=tmp_path, checkpoint_every=2)
    again = AttentionMining(small(1), **FOR)
    train(again, data, steps=2, batch_size=8, checkpoint_dir=tmp_path, resume=True)
    for name, network in first.networks.items():
        restored = again.networks[name].state_dict()
        assert all(torch.equal(restored[k], v) for k, v in network.state_dict().items())


def test_a_prediction_has_the_probability_and_the_map_of_each_class():
    image = torch.tensor([[[[4.0, 2.0], [0.0, 1.0]], [[0.0, -1.0], [-2.0, 3.0]]]])
    task = AttentionMining(Plain([[1.0, 0.0], [0.0, 1.0]], [0.3, -2.0]), **FOR)
    found, (maps, logits) = task.predict(image), task.maps_and_logits(image)
    torch.testing.assert_close(found.scores, logits.double().sigmoid())
    assert torch.equal(found.heatmap, heatmap_from_maps(maps, (2, 2)))
    assert not torch.equal(maps[:, 0], maps[:, 1]) and logits[0, 0] > 0 > logits[0, 1]
