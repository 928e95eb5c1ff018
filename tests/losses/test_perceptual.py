import inspect
import math
import re

import pytest
import torch
from torch import Tensor

from cxrtut.losses.perceptual import (
    euclidean_loss,
    perceptual_loss,
    printed_euclidean_loss,
    printed_perceptual_loss,
)

OF_LAYERS = [perceptual_loss, printed_perceptual_loss]
OF_IMAGES = [euclidean_loss, printed_euclidean_loss]
SIZES = [(4, 6, 5), (8, 3, 2)]


def layers(n: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *size, generator=generator, dtype=torch.float64) for size in SIZES]


def images(n: int, seed: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, 4, 5, generator=generator, dtype=torch.float64)


def call(loss, target: list[Tensor], value: list[Tensor]) -> Tensor:
    """Any of the four losses on layers; the losses of images take the first."""
    return loss(target[0], value[0]) if loss in OF_IMAGES else loss(target, value)


def test_a_constant_difference_by_hand():
    target = [torch.zeros(1, 2, 3, 4), torch.zeros(1, 5, 1, 2)]
    features = [torch.full((2, 2, 3, 4), 3.0), torch.full((2, 5, 1, 2), -1.0)]
    assert perceptual_loss(target, features) == (9 + 1) / 2
    expected = 3 * math.sqrt(24) / 24 + math.sqrt(10) / 10
    assert math.isclose(printed_perceptual_loss(target, features), expected, rel_tol=1e-6)


def test_a_constant_difference_of_images_by_hand():
    """√(3 · 2²) at each of the 5 x 4 pixels."""
    target, image = torch.ones(1, 3, 5, 4), torch.full((2, 3, 5, 4), -1.0)
    assert math.isclose(euclidean_loss(target, image), 2 * math.sqrt(3), rel_tol=1e-6)
    assert math.isclose(printed_euclidean_loss(target, image), 40 * math.sqrt(3), rel_tol=1e-6)


def test_the_printed_perceptual_loss_is_equation_7_term_by_term():
    target, features = layers(1, seed=1), layers(3, seed=2)
    total = 0.0
    for a, x in zip(target, features, strict=True):
        for image in x:
            squares = [v * v for v in (a[0] - image).flatten().tolist()]
            total += math.sqrt(sum(squares)) / len(squares) / 3
    assert math.isclose(printed_perceptual_loss(target, features).item(), total, rel_tol=1e-12)


def test_the_printed_euclidean_loss_is_equation_8_pixel_by_pixel():
    target, image = images(1, seed=1), images(2, seed=2)
    total = 0.0
    for x in image:
        for i in range(4):
            for j in range(5):
                difference = (target[0, :, i, j] - x[:, i, j]).tolist()
                total += math.sqrt(sum(v * v for v in difference)) / 2
    assert math.isclose(printed_euclidean_loss(target, image).item(), total, rel_tol=1e-12)


def test_the_printed_perceptual_loss_of_one_image_is_a_root_of_the_chosen_one():
    target, features = layers(1, seed=1), layers(1, seed=2)
    one_layer = [perceptual_loss([a], [x]) for a, x in zip(target, features, strict=True)]
    expected = sum(
        math.sqrt(mean / math.prod(size)) for mean, size in zip(one_layer, SIZES, strict=True)
    )
    assert math.isclose(printed_perceptual_loss(target, features).item(), expected, rel_tol=1e-12)
    assert torch.allclose(perceptual_loss(target, features), torch.stack(one_layer).mean())


def test_the_printed_euclidean_loss_is_the_number_of_pixels_times_the_chosen_one():
    target, image = images(3, seed=1), images(3, seed=2)
    chosen, printed = euclidean_loss(target, image), printed_euclidean_loss(target, image)
    assert math.isclose(printed.item(), 4 * 5 * chosen.item(), rel_tol=1e-12)


def test_each_layer_counts_alike_in_the_mean_whatever_its_size():
    target = [torch.zeros(1, 64, 8, 8), torch.zeros(1, 1, 1, 1)]
    large, small = [target[0] + 2, target[1] + 1], [target[0] + 1, target[1] + 2]
    assert perceptual_loss(target, large) == perceptual_loss(target, small) == 2.5


def test_only_the_printed_sum_depends_on_the_size_of_the_image():
    target, image = images(1, seed=1), images(2, seed=2)
    larger = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (target, image)]
    assert torch.allclose(euclidean_loss(*larger), euclidean_loss(target, image))
    printed = printed_euclidean_loss(target, image)
    assert torch.allclose(printed_euclidean_loss(*larger), 4 * printed)


def test_a_grey_image_in_three_channels_is_the_root_of_three_times_as_far():
    target, image = images(1, seed=1, channels=1), images(2, seed=2, channels=1)
    grey = euclidean_loss(target, image)
    assert torch.allclose(grey, (target - image).abs().mean())
    copied = euclidean_loss(target.expand(-1, 3, -1, -1), image.expand(-1, 3, -1, -1))
    assert torch.allclose(copied, math.sqrt(3) * grey)


@pytest.mark.parametrize("loss", [*OF_LAYERS, *OF_IMAGES])
def test_one_target_for_all_is_that_target_for_each(loss):
    target, value = layers(1, seed=1), layers(3, seed=2)
    for_each = [t.repeat(3, 1, 1, 1) for t in target]
    assert torch.allclose(call(loss, target, value), call(loss, for_each, value))


@pytest.mark.parametrize("loss", [*OF_LAYERS, *OF_IMAGES])
def test_the_size_of_the_batch_does_not_matter(loss):
    target, value = layers(3, seed=1), layers(3, seed=2)
    whole = call(loss, target, value)
    single = [call(loss, [t[[k]] for t in target], [v[[k]] for v in value]) for k in range(3)]
    assert torch.allclose(whole, torch.stack(single).mean())
    assert torch.stack(single).std() > 1e-4


@pytest.mark.parametrize("loss", [*OF_LAYERS, *OF_IMAGES])
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_inputs_cost_nothing_and_have_a_gradient_of_zero(loss, channels):
    value = images(2, seed=1, channels=channels).requires_grad_()
    result = call(loss, [value.detach().clone()], [value])
    result.backward()
    assert result == 0 and torch.equal(value.grad, torch.zeros_like(value))


@pytest.mark.parametrize("loss", [*OF_LAYERS, *OF_IMAGES])
def test_a_pixel_that_agrees_leaves_the_gradient_of_the_others_alone(loss):
    target, value = images(1, seed=1), images(2, seed=2)
    value[:, :, 0, 0] = target[:, :, 0, 0]
    value.requires_grad_()
    call(loss, [target], [value]).backward()
    slope = value.grad.abs().amax(1)
    assert value.grad.isfinite().all() and (slope[:, 0, 0] == 0).all()
    assert (slope[:, 1:] > 0).all()


@pytest.mark.parametrize("loss", [*OF_LAYERS, *OF_IMAGES])
def test_the_gradient_agrees_with_finite_differences_on_both_sides(loss):
    target, value = images(1, seed=1).requires_grad_(), images(2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, x: call(loss, [a], [x]), (target, value))


@pytest.mark.parametrize("loss", [*OF_LAYERS, *OF_IMAGES])
def test_half_precision_is_compared_in_float32(loss):
    target, value = ([x.bfloat16() for x in layers(2, seed)] for seed in (1, 2))
    result = call(loss, target, value)
    single = call(loss, [t.float() for t in target], [v.float() for v in value])
    assert result.dtype == torch.float32 and torch.equal(result, single)


@pytest.mark.parametrize("loss", OF_LAYERS)
def test_layers_that_are_missing_are_an_error(loss):
    for target, features in (([], []), (layers(1, 1), layers(1, 2)[:1]), ([], layers(1, 2))):
        words = f"at least one, got {len(target)} and {len(features)}"
        with pytest.raises(ValueError, match=words):
            loss(target, features)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ((1, 3, 4, 4), (2, 3, 4, 5)),
        ((1, 1, 4, 4), (2, 3, 4, 4)),
        ((3, 3, 4, 4), (2, 3, 4, 4)),
        ((2, 3, 4, 4), (1, 3, 4, 4)),
        ((1, 3, 4, 4), (0, 3, 4, 4)),
        ((1, 3, 0, 4), (1, 3, 0, 4)),
    ],
)
@pytest.mark.parametrize("loss", [*OF_LAYERS, *OF_IMAGES])
def test_shapes_that_do_not_agree_are_an_error(loss, target, value):
    tensors = torch.zeros(target), torch.zeros(value)
    name = "image" if loss in OF_IMAGES else "layer 0"
    words = re.escape(f"got {value} and target {target}")
    with pytest.raises(ValueError, match=f"{name}: .*{words}"):
        inspect.unwrap(loss)(*(tensors if loss in OF_IMAGES else ([x] for x in tensors)))


@pytest.mark.parametrize("loss", OF_LAYERS)
def test_the_layer_that_does_not_agree_is_named(loss):
    features = layers(2, seed=2)
    with pytest.raises(ValueError, match="layer 1: expected 2 of one shape"):
        loss(layers(1, seed=1), [features[0], features[1][:1]])
