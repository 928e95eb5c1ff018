"""Detectors from scratch: sizes, anchors, and every trap of torchvision's defaults."""

import pytest
import torch
from torch import nn

from cxrtut.nn.detectors import anchor_generator, faster_rcnn, filled_boxes, mask_rcnn
from cxrtut.nn.pyramids import ResNet50Pyramid, SmallPyramid

OF_50 = [(32,), (64,), (128,), (256,), (512,)]  # anchors of ResNet-50's maps
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
ONE = {"boxes": torch.tensor([[4.0, 8.0, 24.0, 28.0]]), "labels": torch.tensor([2])}


def masked(classes=2, size=32):
    torch.manual_seed(0)
    return mask_rcnn(SmallPyramid(1, 8, 16), classes, size, sizes=[(8, 16)], mask_pooled=4)


def small(classes=2, size=32, channels=1, **more):
    torch.manual_seed(0)
    backbone = SmallPyramid(channels, 8, 16)
    return faster_rcnn(backbone, classes, size, channels, **{"sizes": [(8, 16)], **more})


def test_anchors_keep_their_area_and_ratio_to_fractions_of_a_pixel():
    (cell,) = anchor_generator([(4.0, 7.0)], (0.5, 1.0, 2.0)).cell_anchors
    width, height = (cell[:, 2:] - cell[:, :2]).unbind(1)
    torch.testing.assert_close((width * height).sqrt(), torch.tensor([4.0, 7.0] * 3))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 0.5, 1, 1, 2, 2]))
    torch.testing.assert_close(cell[:, :2], -cell[:, 2:])  # about the corner of a cell


@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [([], (1.0,)), ([()], (1.0,)), ([(4,)], ()), ([(4,)], (0,)), ([(-1,)], (1,))],
)
def test_anchors_without_size_or_shape_are_refused(sizes, ratios):
    with pytest.raises(ValueError, match="expected sizes"):
        anchor_generator(sizes, ratios)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_reach_the_network_as_they_are_with_the_channels_they_have(channels):
    detector, seen = small(channels=channels), []
    detector.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.rand(2, channels, 32, 32) * 2 - 1
    detector.eval()(list(images))
    assert torch.equal(seen[0], images)


@pytest.mark.parametrize("targets", [[ONE, ONE], [ONE, NOTHING], [NOTHING, NOTHING]])
def test_images_without_boxes_are_learnt_from(targets):
    detector = small()
    losses = detector(list(torch.rand(2, 1, 32, 32)), targets)
    assert all(torch.isfinite(loss) for loss in losses.values()) and len(losses) == 4
    sum(losses.values()).backward()
    slopes = [p.grad for p in detector.parameters() if p.grad is not None]
    assert all(torch.isfinite(slope).all() for slope in slopes)
    stem = detector.backbone.stem[0].weight.grad
    assert stem is not None and stem.abs().max() > 0


def test_every_parameter_is_trained_and_every_norm_normalises():
    detector = small()
    assert all(p.requires_grad for p in detector.parameters())
    norms = [m for m in detector.modules() if "Norm" in type(m).__name__ and not [*m.children()]]
    assert norms and all(isinstance(norm, nn.GroupNorm) for norm in norms)
    image = 10 * torch.rand(1, 1, 32, 32)
    stem = detector.backbone.stem
    torch.testing.assert_close(stem(5 * image), stem(image), atol=1e-3, rtol=1e-3)


def test_answers_are_boxes_within_the_image_with_labels_from_one():
    found = small().eval()(list(torch.rand(3, 1, 32, 32)))
    assert len(found) == 3 and any(len(one["boxes"]) for one in found)
    for one in found:
        assert (one["boxes"] >= 0).all() and (one["boxes"] <= 32).all()
        assert set(one["labels"].tolist()) <= {1, 2}
        assert (one["scores"].diff() <= 0).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 36}, "size: expected a multiple of the stride 8, got 36"),
        ({"size": 0}, "size"),
        ({"classes": 0}, "classes: expected 1 or more, got 0"),
        ({"sizes": [(8,), (16,)]}, "sizes: expected anchors for 1 maps, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        small(**arguments)


@pytest.mark.parametrize(
    ("make", "parameters"), [(faster_rcnn, 41_346_009), (mask_rcnn, 43_969_243)]
)
def test_on_resnet_50_they_are_as_large_as_torchvisions(make, parameters):
    how = {"mask_layers": (256,) * 4} if make is mask_rcnn else {}
    network = make(ResNet50Pyramid(), 1, 64, sizes=OF_50, pooled=7, head=1024, **how)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("targets", [[ONE, ONE], [ONE, NOTHING], [NOTHING, NOTHING]])
def test_mask_rcnn_learns_masks_from_boxes_alone(targets):
    detector = masked()
    losses = detector(list(torch.rand(2, 1, 32, 32)), targets)
    assert len(losses) == 5 and all(torch.isfinite(loss) for loss in losses.values())
    assert (losses["loss_mask"] > 0) == any(len(t["boxes"]) for t in targets)
    assert "masks" not in targets[0]  # those of the caller are as they were
    sum(losses.values()).backward()
    grad = detector.backbone.stem[0].weight.grad
    assert grad is not None and torch.isfinite(grad).all() and grad.abs().max() > 0


def test_the_mask_of_a_box_has_the_pixels_whose_centres_are_in_it():
    masks = filled_boxes(torch.tensor([[1.0, 0.0, 3.0, 2.0], [1.6, 3.4, 4.0, 4.0]]), 4)
    assert masks.dtype == torch.uint8
    assert masks.tolist() == [
        [[0, 1, 1, 0], [0, 1, 1, 0], [0] * 4, [0] * 4],
        [[0] * 4, [0] * 4, [0] * 4, [0, 0, 1, 1]],
    ]
    assert filled_boxes(torch.zeros(0, 4), 4).shape == (0, 4, 4)


def test_answers_of_mask_rcnn_are_boxes_with_labels_from_one():
    found = masked().eval()(list(torch.rand(2, 1, 32, 32)))
    assert all(set(one["labels"].tolist()) <= {1, 2} for one in found)
    assert any(len(one["boxes"]) for one in found)
