"""SSD: its size, and what images without a box teach it."""

import pytest
import torch
import torch.nn.functional as F
from baselines.squares import Squares, check_that_it_finds

from cxrtut.baselines.box_detector import BoxDetector, DetectionTask
from cxrtut.engine.loop import train
from cxrtut.nn.pyramids import SmallStages
from cxrtut.nn.ssd import small_ssd, ssd300

NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
ONE = {"boxes": torch.tensor([[4.0, 8.0, 16.0, 20.0]]), "labels": torch.tensor([2])}


def small(seed=0, **how):
    torch.manual_seed(seed)
    return small_ssd(SmallStages(1, 8, (4, 8)), 2, 32, **{"scales": (0.25, 0.4, 0.6)} | how)


def images():
    return list(torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_ssd300_has_as_many_parameters_as_the_published_network():
    assert sum(p.numel() for p in ssd300(1).parameters()) == 23_744_756
    assert sum(p.numel() for p in ssd300(1, 3).parameters()) == 23_745_908


def test_an_image_without_a_box_teaches_the_published_loss_nothing():
    detector = small(negatives="published")
    found = detector(images(), [NOTHING, NOTHING])
    assert sum(found.values()) == 0
    sum(found.values()).backward()
    assert detector.backbone.stem[0].weight.grad.abs().max() == 0


def test_the_mended_loss_takes_the_three_worst_negatives_of_it():
    detector, logits = small(), []
    detector.head.register_forward_hook(lambda *call: logits.append(call[2]["cls_logits"]))
    found = detector(images(), [NOTHING, NOTHING])
    loss = -F.log_softmax(logits[0], dim=-1)[..., 0]
    worst = loss.sort(dim=1, descending=True).values[:, :3]
    assert found["classification"].item() == pytest.approx(worst.sum().item(), rel=1e-5)
    found["classification"].backward()
    assert detector.backbone.stem[0].weight.grad.abs().max() > 0


def test_images_with_boxes_are_as_in_the_published_loss():
    one, other = (small(negatives=n)(images(), [ONE, ONE]) for n in ("mended", "published"))
    for name in other:
        torch.testing.assert_close(one[name], other[name])


def test_of_a_mixed_batch_the_empty_image_adds_to_the_loss_of_the_other():
    logits, detector = [], small()
    detector.head.register_forward_hook(lambda *call: logits.append(call[2]["cls_logits"]))
    mended = detector(images(), [ONE, NOTHING])["classification"]
    published = small(negatives="published")(images(), [ONE, NOTHING])["classification"]
    worst = (-F.log_softmax(logits[0][1], dim=-1)[:, 0]).sort(descending=True).values[:3]
    positives = worst.sum() / (mended - published)
    assert mended > published and positives.item() == pytest.approx(round(positives.item()))


def test_it_learns_two_classes_and_where_they_are():
    detector = small(scales=(0.35, 0.5, 0.7))
    train(DetectionTask(detector, learning_rate=2e-3), Squares(), steps=150, batch_size=9)
    system = BoxDetector(detector, ("bright", "dark"), size=32, channels=1)
    check_that_it_finds(system, Squares())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"scales": (0.3, 0.6)}, "scales: expected 3, one more than maps, got 2"),
        ({"negatives": "all"}, "negatives: expected one of mended, published, got 'all'"),
    ],
)
def test_what_does_not_fit_is_refused(how, told):
    with pytest.raises(ValueError, match=told):
        small(**how)


def test_a_size_that_maps_do_not_divide_and_no_class_are_refused():
    with pytest.raises(ValueError, match="size: expected a multiple of the stride 8, got 36"):
        small_ssd(SmallStages(1, 8, (4, 8)), 2, 36, scales=(0.2, 0.4, 0.6))
    with pytest.raises(ValueError, match="classes: expected 1 or more, got 0"):
        ssd300(0)
