"""RetinaNet-dagger: its size, its anchors, its losses against those of torchvision and by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from baselines.squares import Squares, check_that_it_finds
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import sigmoid_focal_loss

from cxrtut.baselines.box_detector import BoxDetector, DetectionTask
from cxrtut.engine.loop import train
from cxrtut.metrics.detection import iou_matrix
from cxrtut.nn.pyramids import SmallPyramid
from cxrtut.nn.residual_attention import AttendedBackbone
from cxrtut.nn.retinanet_dagger import (
    LEVELS,
    OFFSETS,
    WHOLE,
    RetinaNetDagger,
    SEResNeXtPyramid,
    grid_anchors,
)

CPU = torch.device("cpu")


def small(seed=0, **how):
    torch.manual_seed(seed)
    how = {"sizes": (8.0,), "norms": True, "whole": 2, "dropout": 0.0} | how
    return RetinaNetDagger(SmallPyramid(1, 8, 16, (4,)), 2, 32, **how)


def images(n=2):
    return list(torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(0)))


def target(boxes, labels):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


@pytest.fixture(scope="module")
def published():
    return RetinaNetDagger(SEResNeXtPyramid(), 1, 512, sizes=[4 * s for s in LEVELS])


def test_it_has_as_many_parameters_as_the_published_one(published):
    assert sum(p.numel() for p in published.parameters()) == 65_104_480
    encoder = published.backbone.encoder
    assert sum(p.numel() for p in encoder.parameters()) == 46_906_416


def test_an_image_of_512_pixels_has_196560_anchors_of_16_to_812_pixels():
    shapes = [(512 // s, 512 // s) for s in LEVELS]
    anchors = grid_anchors(shapes, LEVELS, [4 * s for s in LEVELS], CPU)
    area = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
    assert len(anchors) == 196_560
    assert area.min().sqrt().item() == pytest.approx(16)
    assert area.max().sqrt().item() == pytest.approx(512 * 2 ** (2 / 3))


def test_anchors_stand_around_the_middle_of_their_cells_row_by_row():
    anchors = grid_anchors([(2, 3)], [8], [6.0], CPU).view(6, 9, 4)
    middle = (anchors[..., :2] + anchors[..., 2:]) / 2
    expected = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert torch.allclose(middle, torch.tensor(expected).float()[:, None].expand(-1, 9, -1))
    width, height = (anchors[0, :, 2:] - anchors[0, :, :2]).unbind(-1)
    assert (height / width).tolist() == pytest.approx([0.5] * 3 + [1.0] * 3 + [2.0] * 3)
    sides = [6.0, 6 * 2 ** (1 / 3), 6 * 2 ** (2 / 3)] * 3
    assert (height * width).sqrt().tolist() == pytest.approx(sides)


def test_answers_stand_in_the_order_of_the_anchors():
    """The nine answers of a cell, and not those of nine cells, are its anchors'."""
    network = small().eval()
    tower = network.boxes
    tower.answer.bias.data = torch.arange(36.0)
    told = tower(list(network.backbone(torch.stack(images())).values()), 4)
    assert told.shape == (2, 8 * 8 * 9, 4)
    assert torch.equal(told[0, :9], torch.arange(36.0).view(9, 4))
    assert torch.equal(told[0, 9:18], torch.arange(36.0).view(9, 4))


def test_the_norms_of_the_encoder_stay_as_they_came(published):
    norms = [m for m in published.backbone.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    fresh = SEResNeXtPyramid()
    assert fresh.training
    assert not any(m.training for m in fresh.modules() if isinstance(m, nn.BatchNorm2d))
    published.train()
    assert norms and published.training and not any(norm.training for norm in norms)


def test_the_pyramid_has_all_levels_and_the_map_of_the_whole_image(published):
    with torch.no_grad():
        maps = published.backbone.eval()(torch.zeros(1, 1, 128, 128))
    assert list(maps) == [*map(str, LEVELS), WHOLE]
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (256, 32, 32), (256, 16, 16), (256, 8, 8), (256, 4, 4), (256, 2, 2), (256, 1, 1),
        (2048, 4, 4),
    ]  # fmt: skip


def test_the_first_answer_is_one_in_a_hundred_and_no_offset():
    network = small().eval()
    maps = list(network.backbone(torch.stack(images())).values())
    assert network.logits(maps, 2).sigmoid().unique().item() == pytest.approx(0.01)
    assert network.boxes(maps, 4).abs().max() == 0


def test_the_classification_loss_is_torchvisions_focal_loss_over_the_positive_anchors():
    torch.manual_seed(0)
    network = small()
    anchors = grid_anchors([(8, 8)], [4], [8.0], CPU)
    logits, offsets = torch.randn(1, len(anchors), 2), torch.randn(1, len(anchors), 4)
    box = torch.tensor([[6.0, 6.0, 14.0, 14.0]])
    found = network.losses(logits, offsets, anchors, [target(box.tolist(), [1])])
    overlap = iou_matrix(anchors, box)[:, 0]
    positive, counted = overlap >= 0.5, (overlap >= 0.5) | (overlap < 0.4)
    wanted = torch.zeros(len(anchors), 2)
    wanted[positive, 1] = 1
    expected = sigmoid_focal_loss(logits[0, counted], wanted[counted], reduction="sum")
    assert positive.sum() > 1 and counted.sum() < len(anchors)
    assert found["classification"].item() == pytest.approx(
        (expected / positive.sum()).item(), rel=1e-5
    )
    right = BoxCoder(OFFSETS).encode_single(box.expand(int(positive.sum()), 4), anchors[positive])
    away = (offsets[0, positive] - right).abs()
    by_hand = torch.where(away < 1 / 9, 4.5 * away**2, away - 1 / 18).mean()
    assert found["bbox_regression"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_sure_mistake_has_a_finite_loss_in_half_precision():
    network = small()
    anchors = grid_anchors([(8, 8)], [4], [8.0], CPU)
    wrong = torch.full((1, len(anchors), 2), 8.0, dtype=torch.bfloat16)
    found = network.losses(wrong, torch.zeros(1, len(anchors), 4), anchors, [target([], [])])
    exact = network.losses(
        wrong.float(), torch.zeros(1, len(anchors), 4), anchors, [target([], [])]
    )
    assert found["classification"].isfinite()
    assert found["classification"].item() == pytest.approx(exact["classification"].item())


def test_images_without_a_box_have_a_loss_and_move_the_answers():
    network = small()
    found = network(images(), [target([], []), target([], [])])
    assert found["classification"] > 0 and found["bbox_regression"] == 0
    sum(found.values()).backward()
    assert network.logits.answer.weight.grad.abs().max() > 0


def test_one_image_without_a_box_counts_as_much_as_one_with():
    network = small()
    one, other = target([[4, 4, 14, 14]], [0]), target([], [])
    with torch.no_grad():
        both = network(images(), [one, other])["classification"]
        each = [
            network([x], [t])["classification"] for x, t in zip(images(), (one, other), strict=True)
        ]
    assert both.item() == pytest.approx((each[0] + each[1]).item() / 2, rel=1e-5)


def test_the_whole_image_is_asked_for_its_class():
    network = small(whole=3)
    targets = [target([], []) | {"whole": torch.tensor(k)} for k in (2, 0)]
    seen = []
    network.whole.register_forward_hook(lambda *call: seen.append(call[2]))
    found = network(images(), targets)
    expected = 0.1 * F.cross_entropy(seen[0], torch.tensor([2, 0]))
    assert found["whole"].item() == pytest.approx(expected.item())
    assert "whole" not in small(whole=0)(images(), targets)


def test_the_whole_image_is_told_by_its_boxes_where_nothing_is_said():
    network = small()
    seen = []
    network.whole.register_forward_hook(lambda *call: seen.append(call[2]))
    found = network(images(), [target([[4, 4, 14, 14]], [0]), target([], [])])
    expected = 0.1 * F.cross_entropy(seen[0], torch.tensor([1, 0]))
    assert found["whole"].item() == pytest.approx(expected.item())


def test_dropout_acts_on_classes_and_the_whole_image_in_training_alone():
    network = small(dropout=0.5)
    dropouts = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    assert sorted(d.p for d in dropouts) == [0.0, 0.5, 0.5]
    assert isinstance(network.boxes.layers[-1], nn.Dropout) and network.boxes.layers[-1].p == 0


def answering(network, logits, offsets=None):
    """Boxes of the anchors of the only map, with these logits (anchors, classes)."""
    anchors = grid_anchors([(8, 8)], [4], [8.0], CPU)
    offsets = torch.zeros(len(anchors), 4) if offsets is None else offsets
    return anchors, network._found(logits, offsets, anchors)


def test_boxes_below_half_of_the_surest_are_dropped_unless_that_is_switched_off():
    logits = torch.full((576, 2), -20.0)
    logits[0, 0] = math.log(0.8 / 0.2)
    logits[300, 0] = math.log(0.39 / 0.61)
    logits[500, 1] = math.log(0.41 / 0.59)
    anchors, found = answering(small(), logits)
    assert found["scores"].tolist() == pytest.approx([0.8, 0.41])
    assert found["labels"].tolist() == [0, 1]
    assert torch.allclose(found["boxes"], anchors[[0, 500]].clamp(0, 32))
    _, all_of_them = answering(small(half_of_best=False), logits)
    assert all_of_them["scores"].tolist() == pytest.approx([0.8, 0.41, 0.39])


def test_of_overlapping_boxes_of_a_class_the_surest_stays():
    logits = torch.full((576, 2), -20.0)
    logits[300, 0], logits[301, 0], logits[301, 1] = 2.0, 1.0, 1.5
    _, found = answering(small(), logits)
    assert sorted(found["labels"].tolist()) == [0, 1] and found["scores"].max() > 0.88


def test_nothing_is_found_where_nothing_is_above_the_threshold():
    _, found = answering(small(), torch.full((576, 2), math.log(0.025 / 0.975) - 1e-3))
    assert len(found["boxes"]) == 0


def test_attention_acts_on_every_map_of_the_detector():
    bright = AttendedBackbone(SmallPyramid(1, 8, 16, (4,)), lambda x: torch.ones_like(x))
    network = RetinaNetDagger(bright, 2, 32, sizes=(8.0,), norms=True, whole=2).eval()
    x = torch.stack(images())
    assert torch.allclose(bright(x)["4"], 2 * bright.backbone(x)["4"])
    assert len(network(images())) == 2


def test_it_learns_two_classes_and_where_they_are():
    network = small(sizes=(9.5,))
    task = DetectionTask(network, learning_rate=2e-3, first=0)
    train(task, Squares(), steps=100, batch_size=9)
    system = BoxDetector(network, ("bright", "dark"), size=32, channels=1, first=0)
    check_that_it_finds(system, Squares())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"sizes": (8.0, 16.0)}, "sizes: expected one for each of 1 maps"),
        ({"dropout": 1.0}, "dropout in .0, 1., got 2 and 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(how, told):
    with pytest.raises(ValueError, match=told):
        small(**how)


def test_images_of_another_size_and_missing_targets_are_refused():
    with pytest.raises(ValueError, match=r"expected images of 32 px, got \(16, 16\)"):
        small()([torch.zeros(1, 16, 16)], [target([], [])])
    with pytest.raises(ValueError, match="targets: expected one for each image"):
        small()(images())
