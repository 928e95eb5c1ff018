"""The paper's detector: its size, its strides, and what its first stage looks at."""

import sys

import pytest
import torch

from cxrtut.nn.inception_rcnn import inception_rcnn

timm = pytest.importorskip("timm", reason="timm is not installed (pip install 'cxrtut[inception]')")


@pytest.mark.parametrize(("classes", "numbers"), [(1, 59_366_054), (6, 59_404_479)])
def test_it_has_the_parameters_of_tensorflows(classes, numbers):
    with torch.device("meta"):
        detector = inception_rcnn(classes, 256)
    assert sum(p.numel() for p in detector.parameters()) == numbers


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return inception_rcnn(2, 64, stride=16, crop=5, regions=4, proposals=4)


@pytest.mark.parametrize("stride", [8, 16])
def test_a_map_is_the_image_over_the_stride(stride):
    with torch.device("meta"):
        backbone = inception_rcnn(1, 256, stride=stride).backbone
        maps = backbone(torch.zeros(1, 1, 96, 64))
    assert maps.shape == (1, 1088, 96 // stride, 64 // stride)


def test_anchors_are_tensorflows_for_smaller_images():
    with torch.device("meta"):
        (cell,) = inception_rcnn(1, 256).rpn.anchor_generator.cell_anchors
    width, height = (cell[:, 2:] - cell[:, :2]).unbind(1)
    assert len(cell) == 12
    root = (width * height).sqrt().unique()
    assert root.numel() >= 4 and root.min() == pytest.approx(64 * 256 / 600, rel=1e-4)
    assert root.max() == pytest.approx(512 * 256 / 600, rel=1e-4)


def test_it_learns_from_images_with_and_without_boxes_and_answers(detector):
    images = list(torch.rand(2, 1, 64, 64) * 2 - 1)
    targets = [
        {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    losses = detector.train()(images, targets)
    assert len(losses) == 4 and all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    first = detector.backbone.layers[0].conv.weight.grad
    last = detector.roi_heads.box_head.layers[-1].conv.weight.grad
    assert first.abs().max() > 0 and last.abs().max() > 0
    with torch.no_grad():
        found = detector.eval()(images)
    assert [set(one) for one in found] == [{"boxes", "labels", "scores"}] * 2


@pytest.mark.parametrize(
    "wrong", [{"size": 40}, {"stride": 4}, {"crop": 4}, {"classes": 0}, {"size": 0}]
)
def test_what_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a size that is a multiple of 16"):
        inception_rcnn(**{"classes": 1, "size": 64, **wrong})


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models.inception_resnet_v2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'cxrtut\[inception\]'"):
        inception_rcnn(1, 64)
