"""YOLOv3 and PYolo: size, boxes, assignment and losses by hand."""

import math
from dataclasses import replace

import pytest
import torch
from baselines.squares import Squares, check_that_it_finds

from cxrtut.baselines.box_detector import BoxDetector, DetectionTask
from cxrtut.baselines.pyolo import Excitation, PYolo
from cxrtut.baselines.yolov3 import YOLOv3, assigned, decoded
from cxrtut.engine.loop import train
from cxrtut.metrics.detection import iou_matrix
from cxrtut.nn.darknet import Darknet53

ANCHORS = torch.tensor(
    [[4, 4], [8, 6], [6, 8], [12, 12], [20, 12], [12, 20], [30, 30], [50, 30], [30, 50]]
).float()


def small(classes=2, size=64, kind=YOLOv3, seed=0):
    torch.manual_seed(seed)
    return kind(classes, size, ANCHORS, width=4)


def target(boxes, labels):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def test_both_have_as_many_parameters_as_published_and_counted():
    assert sum(p.numel() for p in YOLOv3(1, 64, ANCHORS).parameters()) == 61_523_158
    assert sum(p.numel() for p in PYolo(1, 64, ANCHORS).parameters()) == 61_697_094


def test_an_image_of_64_pixels_has_252_answers_on_cells_of_three_sizes():
    grid = small().grid
    assert len(grid) == 252 and grid[:192, 2].unique().tolist() == [8]
    assert grid[192:240, 2].unique().tolist() == [16] and grid[240:, 2].unique().tolist() == [32]
    assert grid[3 * 9].tolist() == [1, 1, 8]  # the tenth cell: second row, second column


def test_a_raw_answer_is_decoded_as_printed():
    grid = small().grid
    raw = torch.zeros(1, 252, 7)
    raw[0, 28, :4] = torch.tensor([math.log(3), -math.log(3), math.log(2), 0.0])
    box = decoded(raw, grid, ANCHORS)[0, 28]  # its cell (1, 1), its anchor the second, 8 x 6
    x, y, w, h = (0.75 + 1) * 8, (0.25 + 1) * 8, 16, 6
    expected = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    assert box.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ([8, 8, 16, 14], 3 * (1 * 8 + 1) + 1),  # 8 x 6, middle (12, 11): cell (1, 1) of 8 px
        ([18, 2, 38, 14], 192 + 3 * (0 * 4 + 1) + 1),  # 20 x 12: 16 px
        ([34, 14, 64, 64], 240 + 3 * (1 * 2 + 1) + 2),  # 30 x 50: 32 px
        ([60, 60, 68, 68], 3 * 63 + 1),  # its middle on the far edge, clamped
    ],
)
def test_a_box_is_for_the_anchor_of_its_shape_in_the_cell_of_its_middle(box, place):
    network = small()
    which, wanted = assigned([target(box, [1])], network.grid, ANCHORS, 64)
    assert which.tolist() == [[0, place]]
    raw = torch.zeros(1, 252, 7)
    inside = wanted[0, :2].clamp(1e-6, 1 - 1e-6)
    raw[0, place, :2], raw[0, place, 2:4] = inside.logit(), wanted[0, 2:4]
    found = decoded(raw, network.grid, ANCHORS)[0, place]
    assert found.tolist() == pytest.approx(box, abs=1e-3)
    area = (box[2] - box[0]) * (box[3] - box[1])
    assert wanted[0, 4].item() == pytest.approx(2 - area / 64**2) and wanted[0, 5] == 1


def test_of_two_boxes_for_one_answer_the_later_one_stays():
    network = small()
    boxes = [[8, 8, 16, 14], [40, 40, 52, 52], [9, 8, 17, 14]]
    which, wanted = assigned([target(boxes, [0, 0, 1])], network.grid, ANCHORS, 64)
    assert len(which) == 2 and wanted[:, 5].tolist() == [0, 1]


def test_the_losses_are_those_of_the_formula():
    network = small()
    truth = [target([[8.0, 8, 16, 14]], [1]), target([], [])]
    torch.manual_seed(1)
    raw = 0.3 * torch.randn(2, 252, 7)
    found = network.losses(raw, decoded(raw, network.grid, ANCHORS), truth)

    def ce(logit, wanted):
        p = 1 / (1 + math.exp(-logit))
        return -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)

    u, v, p, q, _, k0, k1 = raw[0, 28].tolist()
    g = 2 - 48 / 64**2
    box = ce(u, 0.5) + ce(v, 3 / 8) + p**2 / 2 + q**2 / 2
    assert found["box"].item() == pytest.approx(g * box / 2, rel=1e-5)
    assert found["class"].item() == pytest.approx((ce(k0, 0) + ce(k1, 1)) / 2, rel=1e-5)
    boxes = decoded(raw, network.grid, ANCHORS)
    overlap = iou_matrix(boxes[0], truth[0]["boxes"])[:, 0]
    objects = sum(
        ce(raw[b, i, 4].item(), float(b == 0 and i == 28))
        for b in range(2)
        for i in range(252)
        if b == 1 or i == 28 or overlap[i] <= 0.7
    )
    assert found["object"].item() == pytest.approx(objects / 2, rel=1e-5)


def test_a_good_prediction_that_is_not_the_assigned_one_is_ignored():
    network = small()
    truth = [target([[8.0, 8, 16, 14]], [0])]
    raw = torch.full((1, 252, 7), 0.0)
    raw[..., 4] = -20.0
    before = network.losses(raw, decoded(raw, network.grid, ANCHORS), truth)["object"]
    raw[0, 29, :4] = torch.tensor([0.0, -math.log(5 / 3), math.log(8 / 6), math.log(6 / 8)])
    raw[0, 29, 4] = 5.0  # the third anchor of that cell, in the form of the box
    assert iou_matrix(decoded(raw, network.grid, ANCHORS)[0, 29:30], truth[0]["boxes"]) > 0.9
    after = network.losses(raw, decoded(raw, network.grid, ANCHORS), truth)["object"]
    assert after.item() == pytest.approx(before.item(), abs=1e-5)


def test_images_without_a_box_teach_that_nothing_is_there():
    network = small()
    found = network([torch.rand(1, 64, 64)] * 2, [target([], [])] * 2)
    assert found["box"] == 0 and found["class"] == 0
    assert found["object"].item() == pytest.approx(-252 * math.log(0.99), rel=0.2)
    sum(found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_answers_are_sorted_and_within_the_image():
    network = small().eval()
    torch.manual_seed(2)
    raw = 2 * torch.randn(1, 252, 7)
    found = network._found(raw[0], decoded(raw, network.grid, ANCHORS)[0])
    assert (found["scores"].diff() <= 0).all() and found["scores"].min() > 0.005
    assert found["boxes"].min() >= 0 and found["boxes"].max() <= 64 and len(found["boxes"]) > 10


class Larger:
    """Squares, twice as large."""

    def __init__(self):
        self.source = Squares()

    def batches(self, **how):
        for batch in self.source.batches(**how):
            image = batch.image.repeat_interleave(2, -1).repeat_interleave(2, -2)
            yield replace(batch, image=image, boxes=2 * batch.boxes)

    def steps_per_epoch(self, batch_size):
        return 10


@pytest.mark.parametrize("kind", [YOLOv3, PYolo])
def test_it_learns_two_classes_and_where_they_are(kind):
    network = small(kind=kind)
    task = DetectionTask(network, learning_rate=3e-3, first=0)
    train(task, Larger(), steps=150, batch_size=9)
    system = BoxDetector(network, ("bright", "dark"), size=64, channels=1, first=0)
    check_that_it_finds(system, Larger())


def test_pyolo_is_dilated_and_its_maps_are_excited():
    network = small(kind=PYolo)
    assert isinstance(network.backbone.darknet, Darknet53)
    gate = Excitation(32)
    x = torch.rand(2, 32, 3, 3)
    factor = gate(x) / x
    assert torch.allclose(factor, factor[:, :, :1, :1].expand_as(factor))
    assert factor.min() > 0 and factor.max() < 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((1, 48, ANCHORS), "size: expected a multiple of 32, got 48"),
        ((0, 64, ANCHORS), "classes: expected 1 or more, got 0"),
        ((1, 64, -ANCHORS), "anchors: expected 9 pairs of positive sides"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        YOLOv3(*arguments, width=4)


def test_images_of_another_size_and_missing_targets_are_refused():
    with pytest.raises(ValueError, match=r"expected images of 64 px, got \(32, 32\)"):
        small()([torch.zeros(1, 32, 32)], [target([], [])])
    with pytest.raises(ValueError, match="targets: expected one for each image"):
        small()([torch.zeros(1, 64, 64)])
