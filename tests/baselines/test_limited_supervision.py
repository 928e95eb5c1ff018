"""Limited supervision: its probabilities multiplied out, the patches that a box covers, where
gradients go, and that it learns.
"""

import math

import pytest
import torch
from torch import nn

from cxrtut import evaluation_mode
from cxrtut.baselines.limited_supervision import (
    LimitedSupervision,
    log_box_probability,
    patches_in_boxes,
)
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.sample import Batch
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.nn.backbones import ResNet10
from cxrtut.randomness import seeded

FOR = {"classes": ("Mass", "Nodule"), "size": 64}


class Given(nn.Module):
    """A classifier whose patch logits are the channels of the image, one for each class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features, self.classifier = nn.Identity(), nn.Linear(classes, classes)
        nn.init.eye_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)


class Endless:
    """The same batch for ever, as the loop's data."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def steps_per_epoch(self, batch_size: int) -> int:
        return 1

    def batches(self, **_):
        while True:
            yield self.batch


def batch_of(logits, labels, boxes=(), box_label=()) -> Batch:
    """Images whose pixels are patch logits (B, K, h, w), all with one number of boxes."""
    n = len(logits)
    return Batch(
        image=torch.as_tensor(logits, dtype=torch.float32),
        label_vector=torch.as_tensor(labels, dtype=torch.float32),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(n, -1, 4),
        box_label=torch.tensor(box_label, dtype=torch.int64).reshape(n, -1),
        index=torch.arange(n),
    )


def logit(p: float) -> float:
    return math.log(p / (1 - p))


PATCHES = (0.9, 0.2, 0.3, 0.6)
Z = torch.tensor([logit(p) for p in PATCHES]).view(1, 1, 2, 2)
NONE = 0.1 * 0.8 * 0.7 * 0.4


def normalised(p: float) -> float:
    return 0.98 + 0.02 * p


NORMALISED_NONE = math.prod(normalised(1 - p) for p in PATCHES)


def test_a_box_of_two_of_four_patches_by_hand():
    inside = torch.tensor([[[[True, False], [False, True]]]])
    present, absent = (torch.nn.functional.logsigmoid(z) for z in (Z, -Z))
    probability = log_box_probability(present, absent, inside).exp()
    assert probability.item() == pytest.approx(0.9 * 0.6 * 0.8 * 0.7, rel=1e-5)


def test_without_boxes_the_loss_is_that_of_multiple_instances():
    z = torch.cat((Z, Z), 1)  # the same patches for a disease that is there and one that is not
    loss, terms = LimitedSupervision(Given(2), **FOR).loss(batch_of(z, [[1, 0]]))
    expected = (-math.log(1 - NORMALISED_NONE) - math.log(NORMALISED_NONE)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert terms["box"].item() == 0 and terms["label"].item() == loss.item()


def test_a_box_replaces_the_label_of_its_class_alone_and_weighs_five():
    z = torch.cat((Z, Z), 1)
    batch = batch_of(z, [[1, 1]], [[[0, 0, 1, 2]]], [[1]])  # the left column, of class 1
    loss, terms = LimitedSupervision(Given(2), **FOR).loss(batch)
    with_box = normalised(0.9) * normalised(0.3) * normalised(0.8) * normalised(0.4)
    assert terms["box"].item() == pytest.approx(-5 * math.log(with_box) / 2, rel=1e-5)
    assert terms["label"].item() == pytest.approx(-math.log(1 - NORMALISED_NONE) / 2, rel=1e-5)
    assert loss.item() == pytest.approx((terms["box"] + terms["label"]).item())
    other, _ = LimitedSupervision(Given(2), **FOR, lambda_bbox=0.0).loss(batch)
    assert other.item() == pytest.approx(terms["label"].item())


def test_the_loss_is_the_mean_over_images_and_padding_is_no_box():
    one = batch_of(Z, [[1]], [[[0, 0, 1, 1]]], [[0]])
    two = batch_of(Z, [[0]], [[[0, 0, 0, 0]]], [[-1]])
    both = batch_of(torch.cat((Z, Z)), [[1], [0]], [[[0, 0, 1, 1]], [[0, 0, 0, 0]]], [[0], [-1]])
    task = LimitedSupervision(Given(1), **FOR)
    single = [task.loss(batch)[0].item() for batch in (one, two)]
    assert task.loss(both)[0].item() == pytest.approx(sum(single) / 2, rel=1e-6)
    assert single[1] == pytest.approx(-math.log(NORMALISED_NONE), rel=1e-5)


def test_the_box_of_an_oblong_image_is_where_it_was_drawn():
    batch = batch_of(torch.zeros(1, 1, 2, 6), [[1]], [[[4, 0, 6, 1]]], [[0]])
    batch.image.requires_grad_()
    LimitedSupervision(Given(1), **FOR).loss(batch)[0].backward()
    up = (batch.image.grad[0, 0] < 0).int().tolist()
    assert up == [[0, 0, 0, 0, 1, 1], [0] * 6]


def covered(boxes, labels=None, classes=1, image=(8, 8), grid=(4, 4)) -> list[list[list[int]]]:
    """The patches of one image."""
    labels = [0] * len(boxes) if labels is None else labels
    inside = patches_in_boxes(
        torch.tensor([boxes], dtype=torch.float32).reshape(1, -1, 4),
        torch.tensor([labels], dtype=torch.int64), classes, image, grid,
    )  # fmt: skip
    return inside[0].int().tolist()


def test_a_patch_is_inside_when_a_box_covers_half_of_it():
    # Patches have 2 x 2 pixels. Rows: the upper is whole, the lower one half. Columns: half, whole.
    assert covered([[1, 0, 4, 3]])[0][:2] == [[1, 1, 0, 0], [0, 1, 0, 0]]
    assert covered([[1.01, 0, 4, 2]])[0][0] == [0, 1, 0, 0]
    assert covered([[0, 0, 8, 8]]) == [[[1] * 4] * 4]


def test_a_small_box_has_the_patch_of_its_centre():
    only = [[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]
    assert covered([[4.4, 5, 4.9, 5.5]]) == only
    # Across a corner of four patches, a third of one at most.
    assert covered([[3.2, 3.2, 5.1, 5.0]]) == [[[0] * 4, [0] * 4, [0, 0, 1, 0], [0] * 4]]
    assert covered([[7.5, 7.5, 8, 8]])[0][3] == [0, 0, 0, 1]


def test_an_oblong_image_has_patches_of_its_own_shape():
    # 4 x 12 pixels in 2 x 3 patches: each is 2 high and 4 wide.
    assert covered([[4, 0, 8, 2]], image=(4, 12), grid=(2, 3)) == [[[0, 1, 0], [0, 0, 0]]]
    assert covered([[8, 0, 12, 4]], image=(4, 12), grid=(2, 3)) == [[[0, 0, 1], [0, 0, 1]]]


def test_boxes_of_one_class_are_joined_and_of_two_kept_apart():
    boxes = [[0, 0, 2, 2], [6, 6, 8, 8], [0, 6, 2, 8], [0, 0, 0, 0]]
    first, second, third = covered(boxes, [0, 0, 2, -1], classes=3)
    assert first == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0, 0, 0, 1]]
    assert second == [[0] * 4] * 4
    assert third == [[0] * 4, [0] * 4, [0] * 4, [1, 0, 0, 0]]


def test_no_boxes_at_all_cover_nothing():
    assert covered([], classes=2) == [[[0] * 4] * 4] * 2


def test_many_images_are_each_as_if_alone():
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(9, 5, 2, generator=draw) * 40
    boxes = torch.cat((corner, corner + 0.5 + torch.rand(9, 5, 2, generator=draw) * 23), 2)
    labels = torch.randint(-1, 3, (9, 5), generator=draw)
    inside = patches_in_boxes(boxes, labels, 3, (64, 64), (8, 8))
    expected = torch.zeros(9, 3, 8, 8, dtype=torch.bool)
    for image in range(9):
        for (x0, y0, x1, y1), k in zip(boxes[image].tolist(), labels[image].tolist(), strict=True):
            patches = [
                (i, j) for i in range(8) for j in range(8)
                if max(0, min(x1, 8 * j + 8) - max(x0, 8 * j))
                * max(0, min(y1, 8 * i + 8) - max(y0, 8 * i)) >= 32
            ] or [(int((y0 + y1) / 16), int((x0 + x1) / 16))]  # fmt: skip
            for i, j in patches if k >= 0 else ():
                expected[image, k, i, j] = True
    assert torch.equal(inside, expected) and 0 < inside.float().mean() < 0.5


@pytest.mark.parametrize("z", [-200.0, -50.0, 50.0, 200.0])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("boxes", [((), ()), ([[[0, 0, 4, 4]]], [[0]])], ids=["label", "box"])
def test_nothing_overflows_on_a_grid_of_16_by_16(z, label, boxes):
    batch = batch_of(torch.full((1, 1, 16, 16), z), [[label]], *boxes)
    batch.image.requires_grad_()
    task = LimitedSupervision(Given(1), **FOR)
    loss, _ = task.loss(batch)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(batch.image.grad).all()
    maps, logits = task.maps_and_logits(batch.image.detach())
    assert torch.isfinite(logits).all() and ((maps >= 0) & (maps <= 1)).all()


def test_a_missed_disease_still_pulls_when_every_patch_denies_it():
    batch = batch_of(torch.full((1, 1, 16, 16), -50.0), [[1]])
    batch.image.requires_grad_()
    LimitedSupervision(Given(1), **FOR).loss(batch)[0].backward()
    # d/dz log Σ 0.02 e^z is the share of the patch.
    assert batch.image.grad.flatten().tolist() == pytest.approx([-1 / 256] * 256, rel=1e-3)


def test_a_box_pulls_its_patches_up_and_all_others_down():
    batch = batch_of(torch.zeros(1, 2, 4, 4), [[1, 0]], [[[1, 1, 3, 3]]], [[0]])
    batch.image.requires_grad_()
    LimitedSupervision(Given(2), **FOR).loss(batch)[0].backward()
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[1:3, 1:3] = True
    up = batch.image.grad[0] < 0
    assert torch.equal(up[0], inside) and not up[1].any()
    assert (batch.image.grad != 0).all()


def test_a_label_pulls_all_patches_one_way():
    batch = batch_of(torch.randn(1, 2, 4, 4), [[1, 0]])
    batch.image.requires_grad_()
    LimitedSupervision(Given(2), **FOR).loss(batch)[0].backward()
    assert (batch.image.grad[0, 0] < 0).all() and (batch.image.grad[0, 1] > 0).all()


def test_it_is_a_task_of_one_network_with_its_optimiser():
    task = LimitedSupervision(Given(2), **FOR)
    assert isinstance(task, Task)
    check_task(task)
    (phase,) = task.phases(7, 1)
    assert (phase.name, phase.updates, phase.loss) == ("C", ("classifier",), task.loss)
    assert task.optimizers["classifier"].param_groups[0]["lr"] == 1e-4


def test_training_on_simulated_radiographs_lowers_the_loss_of_boxes_and_of_labels():
    batch = ChestPhantom(64).batch(torch.arange(16))
    some = torch.where(torch.arange(16)[:, None] < 8, batch.box_label, -1)  # half show their boxes
    batch = Batch(
        image=batch.image, label_vector=batch.label_vector, index=batch.index, box_label=some,
        boxes=batch.boxes * (some >= 0)[..., None],
    )  # fmt: skip
    with seeded("limited supervision"):
        network = ResNet10(width=4, classes=8)
    task = LimitedSupervision(network, **FOR, learning_rate=3e-3)
    reports = train(task, Endless(batch), steps=30, batch_size=16, report_every=10)
    first, last = reports[0].terms, reports[-1].terms
    assert first["C/box"] > 0
    for name in ("C/loss", "C/box", "C/label"):
        assert last[name] < 0.8 * first[name]


def test_reading_gives_patch_probabilities_and_the_logit_of_the_plain_rule():
    maps, logits = LimitedSupervision(Given(1), **FOR).maps_and_logits(Z)
    assert maps.flatten().tolist() == pytest.approx(PATCHES, rel=1e-6)
    assert logits.item() == pytest.approx(math.log((1 - NONE) / NONE), rel=1e-5)


def test_the_bias_of_a_class_is_in_each_of_its_patches():
    network = Given(2)
    nn.init.constant_(network.classifier.bias, logit(0.75))
    maps, _ = LimitedSupervision(network, **FOR).maps_and_logits(torch.zeros(1, 2, 3, 3))
    assert maps.flatten().tolist() == pytest.approx([0.75] * 18)


@pytest.mark.parametrize("mode", [True, False])
def test_reading_is_in_evaluation_mode_and_puts_the_mode_back(mode, monkeypatch):
    network = ResNet10(width=4, classes=3).train(mode)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(5, 1, 32, 32)
    task = LimitedSupervision(network, **FOR)
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
        LimitedSupervision(network, **FOR).maps_and_logits(torch.rand(2, 3, 16, 16))
    assert network.training


def test_a_classifier_of_two_layers_and_one_without_bias_are_refused():
    network = ResNet10(width=4)
    network.classifier = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 2))
    with pytest.raises(TypeError, match=r"expected one nn\.Linear with a bias, got Sequential"):
        LimitedSupervision(network, **FOR)
    network.classifier = nn.Linear(32, 2, bias=False)
    with pytest.raises(TypeError, match="with a bias"):
        LimitedSupervision(network, **FOR)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lowest": 0.0}, r"lowest: expected a number in \(0, 1\), got 0.0"),
        ({"lowest": 1.0}, r"lowest: expected a number in \(0, 1\), got 1.0"),
        ({"lambda_bbox": -1.0}, "lambda_bbox: expected no less than 0, got -1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        LimitedSupervision(Given(1), **FOR, **setting)


def test_scores_keep_the_order_of_the_logits_and_their_side_of_a_half():
    z = torch.tensor([-9.0, -2.0, 3.0, 40.0])[:, None, None, None].expand(4, 1, 16, 16)
    task = LimitedSupervision(Given(1), classes=("Mass",), size=16)
    found, (_, logits) = task.predict(z), task.maps_and_logits(z)
    scores = found.scores[:, 0].tolist()
    assert scores == sorted(scores) and len(set(scores)) == 4
    assert [s > 0.5 for s in scores] == (logits[:, 0] > 0).tolist()
    assert found.heatmap.shape == (4, 1, 16, 16)


def test_what_a_probability_of_zero_becomes_in_training_can_be_chosen():
    loss, _ = LimitedSupervision(Given(1), **FOR, lowest=0.5).loss(batch_of(Z, [[0]]))
    expected = -math.log(math.prod(0.5 + 0.5 * (1 - p) for p in PATCHES))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_prediction_has_the_score_and_the_map_of_each_class():
    images = torch.cat((Z, -Z - 1), 1)
    task = LimitedSupervision(Given(2), classes=("A", "B"), size=2)
    found, (maps, logits) = task.predict(images), task.maps_and_logits(images)
    torch.testing.assert_close(found.scores, (logits / 4).double().sigmoid())  # of four patches
    assert torch.equal(found.heatmap, heatmap_from_maps(maps, (2, 2)))
    assert not torch.allclose(maps[:, 0], maps[:, 1])
