"""The disease-masks paper, equation by equation."""

import copy
import math
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.data.sample import Batch, Prediction, System
from cxrtut.engine.loop import train
from cxrtut.localize.cam import class_activation_map
from cxrtut.nn.backbones import ResNet10, stages
from cxrtut.nn.spatial_transformer import align, five_parameter_matrix, invert, warp
from cxrtut.papers.disease_masks import (
    COLAB,
    PAPER,
    SMOKE,
    Alignment,
    Classification,
    Config,
    MaskAttention,
    MaskedClassifier,
    anchor_image,
    attended_features,
    binary,
    boxes_from_heat,
    disease_mask,
    make_aligner,
    make_classifier,
    maps_and_logits,
    select_confident,
    shared,
    smooth,
    steps_of,
)

TINY = replace(SMOKE, size=32, grid_size=8, classifier_width=4)


class Fixed:
    """One batch for ever."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def steps_per_epoch(self, batch_size: int) -> int:
        return 1

    def batches(self, **settings):
        while True:
            yield self.batch


def make_batch(n: int = 6, size: int = 32, classes: int = 3) -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch(
        image=torch.rand(n, 1, size, size, generator=draw) * 2 - 1,
        label_vector=(torch.rand(n, classes, generator=draw) < 0.4).float(),
        boxes=torch.zeros(n, 1, 4), box_label=torch.full((n, 1), -1), index=torch.arange(n),
    )  # fmt: skip


def network(classes: int = 3) -> MaskAttention:
    return make_classifier(TINY, classes, 0).eval()


def some_masks(classes: int = 3, cells: int = 4) -> torch.Tensor:
    return torch.rand(classes, cells, cells, generator=torch.Generator().manual_seed(3))


def test_the_presets_have_the_papers_values():
    assert (PAPER.size, PAPER.classifier_layers, PAPER.stride, PAPER.grid_size) == (512, 50, 32, 32)
    assert (PAPER.alignment_learning_rate, PAPER.alignment_batch_size) == (1e-3, 16)
    assert (PAPER.learning_rate, PAPER.batch_size, PAPER.epochs) == (1e-4, 32, 5)
    assert PAPER.min_probability == 0.8 and PAPER.anchor_images == 2000
    for preset in (COLAB, SMOKE):  # smaller and shorter, not otherwise
        for name in (
            "lambda_e", "lambda_p", "momentum", "min_probability", "mask_threshold",
            "box_threshold",
        ):  # fmt: skip
            assert getattr(preset, name) == getattr(PAPER, name)


def test_the_kernel_of_the_pooling_is_sixteen_at_512_pixels():
    image = torch.randn(1, 1, 512, 512)
    pooled = nn.functional.avg_pool2d(image, kernel_size=16, stride=16)
    expected = nn.functional.interpolate(pooled, (512, 512), mode="bilinear", align_corners=False)
    assert torch.equal(smooth(image, PAPER.grid_size), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_smoothing_of_half_precision_is_done_in_float32(dtype):
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(smooth(image, 8), smooth(image.float(), 8).to(dtype))


def test_smoothing_keeps_what_is_smooth():
    flat = torch.full((2, 1, 32, 32), 0.3)
    assert torch.allclose(smooth(flat, 8), flat)
    assert smooth(torch.randn(2, 1, 32, 32), 8).std() < 0.5


# Eqs. (1) and (2)


def test_the_logit_is_the_mean_of_the_map_and_the_bias():
    C, x = network(), make_batch().image
    f = C.features(x)
    slow = torch.stack(
        [
            torch.stack([(C.classifier.weight[c][:, None, None] * f[i]).sum(0) for c in range(3)])
            for i in range(len(x))
        ]
    )
    assert torch.allclose(C.maps(x), slow, atol=1e-5)
    logits = slow.flatten(2).mean(2) + C.classifier.bias
    assert torch.allclose(C(x), logits, atol=1e-5)
    # the sum that Eq. (2) prints is h w times the mean
    assert torch.allclose(slow.sum((2, 3)), 16 * slow.mean((2, 3)), atol=1e-4)


def test_without_masks_it_is_its_backbone():
    torch.manual_seed(0)
    backbone = ResNet10(1, 4, 3, stride=8).eval()
    x = make_batch().image
    assert torch.allclose(MaskAttention(backbone, 4)(x), backbone(x), atol=1e-5)


def test_two_classes_have_different_maps():
    # a map weighted by anything but its class's row would be the same for both
    maps, _ = maps_and_logits(network(), make_batch().image)
    first, second = maps[:, 0].flatten(1), maps[:, 1].flatten(1)
    cosine = nn.functional.cosine_similarity(
        first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    )
    assert cosine.abs().max() < 0.999 and not torch.allclose(first, second, atol=1e-3)


# Eqs. (4) and (5)


def test_a_masked_map_is_the_map_of_masked_features_exactly():
    C, x, psi = network(), make_batch().image, some_masks()
    C.masks.copy_(psi)
    f = C.features(x)
    for c in range(3):
        attended = attended_features(f, psi[c])
        assert torch.allclose(attended, psi[c] * f + f)
        expected = class_activation_map(attended, C.classifier.weight)[:, c]
        assert torch.allclose(C.maps(x)[:, c], expected, atol=1e-5)


def test_a_mask_of_ones_doubles_a_map_and_one_of_zeros_leaves_it():
    C, x = network(), make_batch().image
    before = C.maps(x)
    C.masks[1] = 1
    after = C.maps(x)
    assert torch.allclose(after[:, 1], 2 * before[:, 1], atol=1e-6)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])


def test_masks_are_part_of_the_state_and_get_no_gradient():
    C = network()
    assert "masks" in C.state_dict() and "masks" not in dict(C.named_parameters())


# Eq. (3)


def test_a_mask_by_hand():
    maps = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[-1.0, 1.0], [-1.0, -1.0]]])
    # N: [0 .25; .5 1] and [0 1; 0 0]; their mean [0 .625; .25 .5], over its maximum [0 1; .4 .8]
    expected = torch.tensor([[0.0, 1.0], [0.0, 0.8]])
    assert torch.allclose(disease_mask(maps, symmetric=False, threshold=0.5), expected)
    low = disease_mask(maps, symmetric=False, threshold=0.0)
    assert torch.allclose(low, torch.tensor([[0.0, 1.0], [0.4, 0.8]]))


def test_a_symmetric_mask_is_its_own_mirror_image_and_the_other_is_not():
    maps = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = disease_mask(maps, symmetric=True, threshold=0.3)
    assert torch.allclose(mask, mask.flip(-1)) and mask.max() == 1
    one_sided = disease_mask(maps, symmetric=False, threshold=0.3)
    assert not torch.allclose(one_sided, one_sided.flip(-1))


def test_each_map_counts_alike_whatever_its_range():
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    scaled = maps * torch.tensor([1.0, 50.0, 0.01])[:, None, None] - 7
    for symmetric in (True, False):
        one, other = (disease_mask(m, symmetric=symmetric) for m in (maps, scaled))
        assert torch.allclose(one, other, atol=1e-4)


def test_a_map_is_added_to_its_mirror_image_before_it_is_brought_to_one_range():
    mask = disease_mask(torch.tensor([[[0.0, 1.0, 4.0]]]), symmetric=True)
    assert mask.tolist() == [[1, 0, 1]]  # of 4 2 4; of the ranges 0 .25 1 it would be 1 .5 1


def test_no_maps_and_flat_maps_make_no_mask():
    assert torch.equal(disease_mask(torch.zeros(0, 4, 4), symmetric=True), torch.zeros(4, 4))
    assert torch.equal(disease_mask(torch.full((3, 4, 4), 2.0), symmetric=True), torch.zeros(4, 4))


def test_confident_maps_are_sure_and_positive():
    probability = torch.tensor([0.95, 0.7, 0.99, 0.8, 0.85, 0.1])
    positive = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    assert select_confident(probability, positive, fewest=1).tolist() == [0, 4, 3]
    # too few: the surest of the positives, never a negative
    assert select_confident(probability, positive, fewest=4).tolist() == [0, 4, 3, 1]
    assert select_confident(probability, positive, fewest=20).tolist() == [0, 4, 3, 1, 5]
    assert select_confident(probability, torch.zeros(6)).tolist() == []


def test_variants_of_the_masks():
    masks = torch.tensor(
        [
            [[0.0, 0.6], [1.0, 0.0]],
            [[0.0, 0.0], [0.0, 0.0]],
            [[0.8, 0.0], [1.0, 0.0]],
        ]
    )
    assert torch.equal(
        binary(masks), torch.tensor([[[0, 1], [1, 0]], [[0, 0], [0, 0]], [[1, 0], [1, 0]]]).float()
    )
    joint = shared(masks)
    # of the two that are there
    assert torch.allclose(joint[0], torch.tensor([[0.4, 0.3], [1.0, 0.0]]))
    assert torch.equal(joint[0], joint[1]) and torch.equal(shared(masks * 0), masks * 0)


# Eqs. (6) to (9)


def test_the_anchor_is_the_mean_of_normal_images():
    images = torch.rand(5, 1, 8, 8)
    assert torch.allclose(anchor_image(images)[0], sum(images) / 5)
    with pytest.raises(ValueError, match="expected normal images for the anchor, got none"):
        anchor_image(images[:0])


def test_the_loss_compares_with_the_features_that_are_given():
    batch, anchor = make_batch(), torch.rand(1, 1, 32, 32)
    C = network().eval()
    given = stages(C.features, torch.rand(1, 1, 32, 32))
    own = Alignment(TINY, C, anchor).loss(batch)[1]
    other = Alignment(TINY, C, anchor, anchor_features=given).loss(batch)[1]
    assert own["L_e"].item() == other["L_e"].item() and own["L_p"].item() != other["L_p"].item()


def test_the_loss_of_alignment_is_the_sum_of_eq_7_and_eq_8_as_means():
    batch, anchor = make_batch(), torch.rand(1, 1, 32, 32)
    config = replace(TINY, lambda_e=2.0, lambda_p=3.0)
    task = Alignment(config, network(), anchor, seed=1)
    nn.init.normal_(task.networks["aligner"].head[2].weight)  # else it looks at nothing
    loss, terms = task.loss(batch)
    phi = smooth(warp(batch.image, task.networks["aligner"](batch.image)), 8)
    assert terms["L_e"].item() == pytest.approx((anchor - phi).abs().mean().item(), rel=1e-5)
    f, g, layers = anchor, phi, []
    for layer in task.features:
        f, g = layer(f), layer(g)
        layers.append((f - g).square().mean())
    expected = torch.stack(layers[1:]).mean().item()  # the first is the stem
    assert terms["L_p"].item() == pytest.approx(expected, rel=1e-4)
    assert loss.item() == pytest.approx(2 * terms["L_e"].item() + 3 * terms["L_p"].item(), rel=1e-5)


def test_the_features_stay_what_they_are_while_the_aligner_learns():
    C = network().train()  # as a training before has left it
    before = copy.deepcopy(C.state_dict())
    task = Alignment(TINY, C, torch.rand(1, 1, 32, 32))
    held = copy.deepcopy(task.features.state_dict())
    train(task, Fixed(make_batch()), steps=3, batch_size=6)
    for state, now in ((before, C.state_dict()), (held, task.features.state_dict())):
        assert all(torch.equal(value, now[name]) for name, value in state.items())
    moved = task.networks["aligner"](make_batch().image)
    assert not torch.equal(moved, torch.eye(2, 3).expand(6, 2, 3))


def test_the_aligner_undoes_a_common_shift():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    image = 2 * torch.exp(-4 * ((x - 0.25) ** 2 + y**2))[None, None] - 1
    target = 2 * torch.exp(-4 * (x**2 + y**2))[None, None] - 1
    batch = replace(make_batch(), image=image.expand(6, -1, -1, -1).contiguous())
    config = replace(TINY, lambda_p=0.0, alignment_learning_rate=0.05)
    task = Alignment(config, network(), target)
    first = task.loss(batch)[0].item()
    train(task, Fixed(batch), steps=60, batch_size=6)
    assert task.loss(batch)[0].item() < 0.4 * first
    _, matrix = align(task.networks["aligner"], batch.image)
    assert matrix[0, 0, 2].item() == pytest.approx(0.25, abs=0.1)


def test_alignment_gives_sharp_images_and_puts_the_mode_back():
    aligner, x = make_aligner(TINY, 0).train(), make_batch().image
    aligned, matrix = align(aligner, x)
    assert torch.allclose(aligned, x, atol=1e-5)  # the identity at first: nothing was smoothed
    assert matrix.shape == (6, 2, 3) and aligner.training


# Eq. (10)


def test_the_classifier_is_trained_on_the_weighted_cross_entropy():
    batch, C = make_batch(), network()
    loss, _ = Classification(TINY, C).loss(batch)
    probs, y = C(batch.image).sigmoid(), batch.label_vector
    n, n1 = y.numel(), y.sum()
    printed = (
        n / n1 * -(y * probs.log()).sum() + n / (n - n1) * -((1 - y) * (1 - probs).log()).sum()
    )
    assert loss.item() == pytest.approx(printed.item() / n, rel=1e-4)


def test_the_classifier_learns_and_its_masks_do_not():
    batch, C = make_batch(), network()
    C.masks.copy_(some_masks())
    task = Classification(replace(TINY, learning_rate=0.01), C)
    first = task.loss(batch)[0].item()
    train(task, Fixed(batch), steps=25, batch_size=6)
    assert task.loss(batch)[0].item() < 0.7 * first
    assert torch.equal(C.masks, some_masks())


# Section 4.3


def test_reading_gives_maps_and_logits_part_by_part_and_puts_the_mode_back(monkeypatch):
    C, x = network().train(), make_batch().image
    C.masks.copy_(some_masks())
    monkeypatch.setattr("cxrtut.evaluation_mode._ON_A_CPU", 4 * x.shape[-1] ** 2)
    maps, logits = maps_and_logits(C, x)
    assert maps.shape == (6, 3, 4, 4) and logits.shape == (6, 3) and C.training
    assert torch.allclose(logits, C.eval()(x), atol=1e-5)


class Shown:
    """A system whose heat map is the image, from 0 up."""

    classes, size, channels, networks = ("Mass",), 64, 1, MappingProxyType({})

    def predict(self, images):
        return Prediction(scores=torch.ones(len(images), 1), heatmap=images + 1)


class Given(nn.Module):
    """An aligner that gives one matrix."""

    def __init__(self, *five):
        super().__init__()
        self.matrix = five_parameter_matrix(*torch.tensor(five)[:, None].unbind(0))

    def forward(self, images):
        return self.matrix.expand(len(images), -1, -1)


def behind(aligner, system=None):
    return Aligned(system or Shown(), aligner, torch.zeros(1, 1, 64, 64), grid_size=TINY.grid_size)


def test_boxes_of_an_aligned_image_are_found_where_the_image_has_them():
    # shifted and shrunk to be aligned
    system = behind(Given(0.8, 0.8, 0.2, -0.1, 0.0))
    image = torch.full((1, 1, 64, 64), -1.0)
    image[..., 20:36, 28:52] = 1.0
    found = system.predict(image)
    ((box, _),) = boxes_from_heat(found.heatmap[:, 0])
    assert (box[0] - torch.tensor([28.0, 20.0, 52.0, 36.0])).abs().max() <= 1.5
    aligned, _ = align(system.aligner, image)
    ((wrong, _),) = boxes_from_heat(Shown().predict(aligned).heatmap[:, 0])
    assert (wrong[0] - torch.tensor([28.0, 20.0, 52.0, 36.0])).abs().max() > 4
    assert found.heatmap.min() >= 0 and found.heatmap.max() <= 2 + 1e-5
    assert torch.equal(found.scores, torch.ones(1, 1))


def test_what_the_aligned_image_did_not_show_is_cold():
    aligner = Given(0.5, 0.5, 0.0, 0.0, 0.0)
    heat = behind(aligner).predict(torch.rand(1, 1, 32, 32) / 2).heatmap
    assert heat[0, 0, 0, 0] == 0 and heat[0, 0, 16, 16] > 0
    assert torch.allclose(invert(aligner.matrix)[0, :, :2], 2 * torch.eye(2))


def test_a_map_that_is_negative_everywhere_has_its_lowest_place_at_zero():
    C, x = network(), make_batch().image
    C.classifier.bias.data -= 50
    C.classifier.weight.data -= 5
    assert C.maps(x).max() < 0
    system = MaskedClassifier(TINY, ("A", "B", "C"), C)
    heat = system.predict(x).heatmap
    assert heat.shape == (6, 3, 32, 32)
    assert (heat.amin((2, 3)) == 0).all() and (heat.amax((2, 3)) > 0).all()
    assert (
        heat.argmax()
        == nn.functional.interpolate(
            C.maps(x) - C.maps(x).amin((2, 3), keepdim=True), (32, 32), mode="bilinear"
        ).argmax()
    )


def test_probabilities_are_those_of_the_logits_and_systems_have_their_networks():
    C, x = network(), make_batch().image
    system = MaskedClassifier(TINY, ("A", "B", "C"), C)
    expected = maps_and_logits(C, x)[1].double().sigmoid()
    torch.testing.assert_close(system.predict(x).scores, expected)
    aligned = behind(make_aligner(TINY, 0), system)
    assert isinstance(system, System) and isinstance(aligned, System)
    assert set(system.networks) == {"classifier"}
    assert set(aligned.networks) == {"classifier", "aligner", "anchor"}
    assert aligned.classes == ("A", "B", "C") and aligned.size == 32


def test_the_largest_region_above_the_threshold_is_taken_and_a_flat_map_has_none():
    heat = torch.zeros(2, 16, 16)
    heat[0, 2:4, 2:4] = 1.0  # hotter, and smaller
    heat[0, 8:12, 5:13] = 0.8
    heat[0, 8:12, 13:15] = 0.7  # below 180 / 255
    (boxes, _), (none, _) = boxes_from_heat(heat)
    assert boxes.tolist() == [[5.0, 8.0, 13.0, 12.0]] and len(none) == 0


def test_steps_of_epochs():
    assert (
        steps_of(5, 100, 32) == 15 and steps_of(0.5, 100, 32) == 1 and steps_of(0.01, 40, 32) == 1
    )
    assert steps_of(1, 86_524, 32) == math.floor(86_524 / 32)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"classifier_layers": 18}, "classifier_layers: expected 10 or 50, got 18"),
        ({"stride": 16}, r"stride: expected one of \(32,\) with 50 layers, got 16"),
        ({"classifier_layers": 10}, r"expected one of \(2, 4, 8, 16\) with 10 layers, got 32"),
        ({"anchor_features": "median"}, r"expected one of \('anchor', 'mean'\), got 'median'"),
        ({"box_threshold": 1.5}, "box_threshold: expected 0 to .*, got 1.5"),
        ({"mask_threshold": 2.0}, "mask_threshold: expected 0 to 1, got 2.0"),
        ({"min_probability": 80}, "min_probability: expected 0 to 1, got 80"),
        ({"epochs": -3.0}, "epochs: expected 0 to inf, got -3.0"),
        ({"anchor_images": 0}, "anchor_images: expected 1 to inf, got 0"),
        ({"grid_size": 30}, "grid_size: expected a divisor of the size 512, got 30"),
        ({"size": 100, "grid_size": 10}, "stride: expected a divisor of the size 100, got 32"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(setting: dict, told: str):
    with pytest.raises(ValueError, match=told):
        Config(**setting)
