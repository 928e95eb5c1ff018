"""RetinaNet from scratch: its losses, its boxes, and the traps of torchvision's."""

import math

import pytest
import torch
from baselines.squares import Squares, check_that_it_finds
from torch import nn

from cxrtut.baselines.box_detector import BoxDetector, DetectionTask
from cxrtut.engine.loop import train
from cxrtut.nn.pyramids import SmallPyramid
from cxrtut.nn.residual_attention import AttendedBackbone
from cxrtut.nn.retinanet import OFFSETS, retinanet

SIZES = [(8, 12, 16)]


def detector(seed=0, classes=2, strides=(4,), sizes=SIZES):
    torch.manual_seed(seed)
    return retinanet(SmallPyramid(1, 8, 16, strides), classes, 32, sizes=sizes)


def images(n=2):
    return list(torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(0)))


def target(boxes, labels):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def test_images_without_a_box_have_a_loss_of_classes_and_none_of_boxes():
    network = detector()
    found = network(images(), [target([], [])] * 2)
    assert set(found) == {"classification", "bbox_regression"}
    assert found["classification"] > 0 and found["bbox_regression"] == 0
    assert all(v.isfinite() for v in found.values())
    sum(found.values()).backward()
    logits = network.head.classification_head.cls_logits
    assert logits.weight.grad.abs().max() > 0


def test_labels_begin_at_0_and_the_last_class_is_known():
    network = detector()
    found = network(images(), [target([[4, 4, 14, 14]], [0]), target([[4, 4, 14, 14]], [1])])
    assert all(v.isfinite() for v in found.values())


def test_the_first_answer_is_the_rare_event_of_the_focal_loss():
    network = detector().eval()
    logits = network.head(list(network.backbone(torch.stack(images())).values()))["cls_logits"]
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.3)


def test_towers_do_not_begin_near_zero_and_have_group_norms():
    head = detector().head
    for tower in (head.classification_head.conv, head.regression_head.conv):
        convolutions = [m for m in tower.modules() if isinstance(m, nn.Conv2d)]
        norms = [m for m in tower.modules() if isinstance(m, nn.GroupNorm)]
        assert len(convolutions) == len(norms) == 4
        for layer in convolutions:
            expected = math.sqrt(2 / (16 * 9))
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)


def test_both_coders_of_boxes_are_one():
    network = detector()
    assert network.box_coder is network.head.regression_head.box_coder
    assert network.box_coder.weights == OFFSETS


def test_anchors_are_not_rounded_and_lie_where_their_cells_do():
    network = detector(sizes=[(6.5,)])
    corner = network.anchor_generator.cell_anchors[0]
    widths = corner[:, 2] - corner[:, 0]
    assert widths.tolist() == pytest.approx([6.5 / math.sqrt(r) for r in (0.7, 1.1, 1.7)], rel=1e-4)


def test_thresholds_are_those_that_were_asked_for():
    plain = detector()
    assert (plain.score_thresh, plain.nms_thresh) == (0.02, 0.3)
    torch.manual_seed(0)
    other = retinanet(
        SmallPyramid(1, 8, 16, (4,)), 1, 32, sizes=SIZES, positive=0.6, negative=0.2, overlap=0.1
    )
    matcher = other.proposal_matcher
    assert (matcher.high_threshold, matcher.low_threshold, other.nms_thresh) == (0.6, 0.2, 0.1)


def test_it_learns_two_classes_and_where_they_are():
    network = detector(sizes=[(8, 12, 16)])
    task = DetectionTask(network, learning_rate=2e-3, first=0)
    train(task, Squares(), steps=80, batch_size=9)
    system = BoxDetector(network, ("bright", "dark"), size=32, channels=1, first=0)
    check_that_it_finds(system, Squares())


def test_an_attended_backbone_fits_in():
    torch.manual_seed(0)
    attended = AttendedBackbone(SmallPyramid(1, 8, 16, (4,)), lambda x: torch.zeros_like(x))
    torch.manual_seed(1)
    network = retinanet(attended, 1, 32, sizes=SIZES).eval()
    torch.manual_seed(1)
    plain = retinanet(attended.backbone, 1, 32, sizes=SIZES).eval()
    a, b = (d.head(list(d.backbone(torch.stack(images())).values())) for d in (network, plain))
    assert torch.equal(a["cls_logits"], b["cls_logits"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 30}, "size: expected a multiple of the stride 4, got 30"),
        ({"classes": 0}, "classes: expected 1 or more, got 0"),
        ({"sizes": [(8,), (16,)]}, r"anchors for each of 1 maps, got \[1, 1\]"),
    ],
)
def test_what_makes_no_detector_is_refused(change, words):
    asked = {"classes": 1, "size": 32, "sizes": SIZES} | change
    with pytest.raises(ValueError, match=words):
        retinanet(SmallPyramid(1, 8, 16, (4,)), **asked)


def test_maps_need_as_many_anchors_each():
    with pytest.raises(ValueError, match=r"for each of 2 maps, got \[1, 2\]"):
        retinanet(SmallPyramid(1, 8, 16, (4, 8)), 1, 32, sizes=[(8,), (16, 20)])
