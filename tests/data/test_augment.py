from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cxrtut.data.augment import Augmentation, Transform, augment
from cxrtut.data.boxes import boxes_to_mask, mask_to_box
from cxrtut.data.sample import Batch, check_batch

SIZE = 64
STRONG = Augmentation(
    rotation=20, scale=0.2, translation=0.1, flip=0.5, brightness=0.2, contrast=0.3, gamma=0.5
)
MIRROR = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
PLAIN = torch.tensor([[0.0, 1.0, 1.0]])


def rectangles(n: int = 8) -> Batch:
    """White rectangles on noise (twins: the noise), each with its mask and its box."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(12, 28, (n, 2), generator=generator)
    extent = torch.randint(8, 24, (n, 2), generator=generator)
    boxes = torch.cat((start, start + extent), dim=1).float()[:, None]
    mask = torch.stack([boxes_to_mask(box, SIZE, SIZE) for box in boxes])[:, None]
    healthy = torch.rand(n, 1, SIZE, SIZE, generator=generator) - 1
    return Batch(
        image=torch.where(mask, 1.0, healthy),
        label_vector=torch.ones(n, 1),
        boxes=torch.cat((boxes, torch.zeros_like(boxes)), dim=1),
        box_label=torch.tensor([[0, -1]] * n),
        index=torch.arange(n),
        mask=mask,
        healthy=healthy,
    )


def test_the_identity_is_exact():
    batch = rectangles()
    batch = replace(batch, uniforms=torch.rand(len(batch), 4))
    same = augment(batch, Augmentation().draw(len(batch), seed=3, step=5))
    assert same.target_vector is batch.target_vector is None
    for name in set(Batch.__dataclass_fields__) - {"target_vector"}:
        assert torch.equal(getattr(same, name), getattr(batch, name)), name


def test_the_identity_is_exact_at_a_size_that_is_no_power_of_two():
    image = torch.rand(2, 1, 37, 53) * 2 - 1
    batch = Batch(
        image=image,
        label_vector=torch.zeros(2, 1),
        boxes=torch.tensor([[[1 / 3, 0.1, 7.7, 9.9]]] * 2),
        box_label=torch.zeros(2, 1, dtype=torch.int64),
        index=torch.arange(2),
    )
    same = augment(batch, Augmentation().draw(2, seed=0, step=0))
    assert torch.equal(same.image, image) and torch.equal(same.boxes, batch.boxes)


def test_a_draw_depends_on_seed_and_step_and_on_nothing_else():
    first = STRONG.draw(4, seed=1, step=2)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = STRONG.draw(4, seed=1, step=2)
    assert torch.equal(first.matrix, again.matrix)
    assert torch.equal(first.intensity, again.intensity)
    assert torch.equal(torch.get_rng_state(), state)
    for seed, step in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(first.matrix, STRONG.draw(4, seed=seed, step=step).matrix)


def test_the_share_of_a_rank_is_a_slice_of_the_whole_draw():
    whole = STRONG.draw(8, seed=1, step=2)
    assert torch.equal(whole[4:8].matrix, whole.matrix[4:])
    assert len(whole[4:8]) == 4


def test_draws_stay_within_their_ranges_and_reach_near_their_ends():
    drawn = STRONG.draw(4000, seed=0, step=0)
    linear, shift = drawn.matrix[:, :, :2].double(), drawn.matrix[:, :, 2]
    scale = torch.linalg.det(linear).abs().sqrt()
    assert 0.8 <= scale.min() < 0.81 and 1.19 < scale.max() <= 1.2 + 1e-6
    angle = torch.atan2(-linear[:, 0, 1], linear[:, 1, 1]).rad2deg()
    assert 19 < angle.max() <= 20 + 1e-4 and -20 - 1e-4 <= angle.min() < -19
    assert 0.19 < shift.abs().max() <= 0.2 + 1e-6  # a tenth of the width, which is 2
    assert abs((torch.linalg.det(linear) < 0).double().mean() - 0.5) < 0.03
    brightness, contrast, gamma = drawn.intensity.unbind(1)
    assert 0.19 < brightness.abs().max() <= 0.2 + 1e-6
    assert 0.7 - 1e-6 <= contrast.min() < 0.71 and 1.29 < contrast.max() <= 1.3 + 1e-6
    assert 1 / 1.5 - 1e-6 <= gamma.min() < 0.68 and 1.48 < gamma.max() <= 1.5 + 1e-6


def test_the_mask_and_the_box_still_agree_after_any_transform():
    batch = rectangles(16)
    moved = augment(batch, STRONG.draw(16, seed=0, step=1))
    check_batch(moved)
    upright = Augmentation(scale=0.2, translation=0.1, flip=0.5).draw(16, seed=0, step=1)
    shifted = augment(batch, upright)
    around = mask_to_box(shifted.mask[:, 0])
    assert (around - shifted.boxes[:, 0]).abs().max() <= 1.0  # nearest pixels
    around, boxes = mask_to_box(moved.mask[:, 0]), moved.boxes[:, 0]
    assert (around[:, :2] >= boxes[:, :2] - 1).all() and (around[:, 2:] <= boxes[:, 2:] + 1).all()
    assert (around - boxes).abs().max() <= 2.0  # the tip of a turned corner misses pixel centres


def test_the_picture_moves_with_its_mask():
    batch = rectangles()
    transform = STRONG.draw(8, seed=4, step=1)
    transform = Transform(transform.matrix, PLAIN.expand(8, 3))
    moved = augment(batch, transform)
    seen = moved.image > 0.5
    assert ((seen & moved.mask).sum() / (seen | moved.mask).sum()) > 0.9


def test_the_twin_stays_aligned_with_the_image():
    batch = rectangles()
    moved = augment(batch, STRONG.draw(8, seed=2, step=1))
    grown = torch.nn.functional.max_pool2d(moved.mask.float(), 5, 1, 2) > 0
    assert torch.equal(moved.image[~grown], moved.healthy[~grown])
    assert not torch.equal(moved.image, moved.healthy)


def test_a_flip_is_the_mirror_image_and_mirrors_box_coordinates():
    batch = rectangles(1)
    flipped = augment(batch, Transform(MIRROR, PLAIN))
    assert torch.allclose(flipped.image, batch.image.flip(-1), atol=1e-6)
    assert torch.equal(flipped.mask, batch.mask.flip(-1))
    x0, y0, x1, y1 = batch.boxes[0, 0].tolist()
    assert flipped.boxes[0, 0].tolist() == [SIZE - x1, y0, SIZE - x0, y1]


def test_two_flips_are_the_identity():
    batch = rectangles(1)
    twice = augment(augment(batch, Transform(MIRROR, PLAIN)), Transform(MIRROR, PLAIN))
    assert torch.allclose(twice.image, batch.image, atol=1e-6)
    assert torch.equal(twice.mask, batch.mask) and torch.equal(twice.boxes, batch.boxes)


def test_black_enters_from_outside():
    batch = rectangles(1)
    away = torch.tensor([[[1.0, 0, 1.0], [0, 1, 0]]])
    moved = augment(batch, Transform(away, PLAIN))
    assert (moved.image[..., : SIZE // 2 - 1] == -1).all()
    assert torch.allclose(moved.image[..., SIZE // 2 :], batch.image[..., : SIZE // 2], atol=1e-6)


@pytest.mark.parametrize(("left", "kept"), [(0.24, False), (0.26, True), (-0.5, False)])
def test_a_box_that_keeps_less_than_a_quarter_of_its_area_becomes_padding(left, kept):
    batch = rectangles(1)
    x0, _, x1, _ = batch.boxes[0, 0].tolist()
    pixels = SIZE - x0 - left * (x1 - x0)
    shift = torch.tensor([[[1.0, 0, 2 * pixels / SIZE], [0, 1, 0]]])
    moved = augment(batch, Transform(shift, PLAIN))
    check_batch(moved)
    assert (moved.box_label[0, 0] == 0) == kept
    assert moved.boxes[0].any() == kept


def test_intensity_follows_the_closed_form_and_leaves_geometry_alone():
    batch = rectangles(1)
    moved = augment(batch, Transform(torch.eye(2, 3)[None], torch.tensor([[0.1, 0.5, 2.0]])))
    level = ((batch.image + 1) / 2) ** 2
    expected = 2 * (0.1 + 0.5 + 0.5 * (level - 0.5)).clamp(0, 1) - 1
    assert torch.allclose(moved.image, expected, atol=1e-6)
    assert torch.equal(moved.mask, batch.mask) and torch.equal(moved.boxes, batch.boxes)


def test_a_batch_without_boxes_masks_and_twins_is_augmented():
    batch = rectangles(2)
    bare = Batch(
        image=batch.image,
        label_vector=batch.label_vector,
        boxes=torch.zeros(2, 0, 4),
        box_label=torch.zeros(2, 0, dtype=torch.int64),
        index=batch.index,
    )
    moved = augment(bare, STRONG.draw(2, seed=0, step=0))
    assert moved.mask is None and moved.healthy is None and moved.boxes.shape == (2, 0, 4)


def test_wrong_amounts_and_wrong_counts_are_refused():
    with pytest.raises(ValueError, match=r"flip: expected a value in \[0, 1\], got 1.5"):
        Augmentation(flip=1.5)
    with pytest.raises(ValueError, match="rotation"):
        Augmentation(rotation=-1.0)
    with pytest.raises(ValueError, match="expected 8 transforms, one per image, got 4"):
        augment(rectangles(8), STRONG.draw(4, seed=0, step=0))


def slow_geometry(batch: Batch, transform: Transform) -> dict[str, Tensor]:
    """Image, twin and masks as the formulas say them: a grid of pairs, one lookup for each mask,
    and every term of the intensity on its own.
    """
    matrix = transform.matrix
    (height, width), dtype = batch.image.shape[-2:], matrix.dtype
    (a, b, c), (d, e, f) = (row.unbind(-1) for row in matrix.unbind(1))
    p, q, r, s = (value[:, None, None] / (a * e - b * d)[:, None, None] for value in (e, -b, -d, a))
    x = (2 * torch.arange(width).to(dtype) + 1 - width) / width
    y = (2 * torch.arange(height).to(dtype) + 1 - height) / height
    x, y = x[None, None, :] - c[:, None, None], y[None, :, None] - f[:, None, None]
    grid = torch.stack((p * x + q * y, r * x + s * y), dim=-1)
    still = (matrix == torch.eye(2, 3)).flatten(1).all(dim=1)[:, None, None, None]
    brightness, contrast, gamma = (v[:, None, None, None] for v in transform.intensity.unbind(1))

    def picture(image: Tensor) -> Tensor:
        moved = F.grid_sample(image + 1.0, grid, mode="bilinear", align_corners=False) - 1.0
        moved = torch.where(still, image, moved.clamp(-1.0, 1.0))
        level = ((moved + 1.0) / 2.0).pow(gamma)
        level = (brightness + 0.5 + contrast * (level - 0.5)).clamp(0.0, 1.0)
        same = (brightness == 0) & (contrast == 1) & (gamma == 1)
        return torch.where(same, moved, 2.0 * level - 1.0)

    single = [
        F.grid_sample(one[:, None].to(dtype), grid, mode="nearest", align_corners=False)
        for one in batch.mask.unbind(1)
    ]
    moved_mask = torch.cat(single, dim=1) > 0.5
    return {
        "image": picture(batch.image),
        "healthy": picture(batch.healthy),
        "mask": torch.where(still, batch.mask, moved_mask),
    }


def many_masks(n_classes: int, dtype: torch.dtype) -> tuple[Batch, Transform]:
    """Noise of 33 x 40 pixels with noise as masks; the fourth image is not changed at all."""
    generator = torch.Generator().manual_seed(n_classes)
    noise = torch.rand(6, 1, 33, 40, generator=generator, dtype=dtype) * 2 - 1
    batch = Batch(
        image=noise,
        label_vector=torch.zeros(6, n_classes),
        boxes=torch.zeros(6, 0, 4),
        box_label=torch.zeros(6, 0, dtype=torch.int64),
        index=torch.arange(6),
        mask=torch.rand(6, n_classes, 33, 40, generator=generator) > 0.5,
        healthy=noise.flip(0),
    )
    drawn = STRONG.draw(6, seed=7, step=0)
    drawn.matrix[3], drawn.intensity[3] = torch.eye(2, 3), PLAIN[0]
    return batch, Transform(drawn.matrix.to(dtype), drawn.intensity.to(dtype))


@pytest.mark.parametrize("n_classes", [1, 7, 8, 9, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_masks_and_the_images_equal_the_slow_reference_bit_for_bit(n_classes, dtype):
    batch, transform = many_masks(n_classes, dtype)
    moved = augment(batch, transform)
    for name, expected in slow_geometry(batch, transform).items():
        assert torch.equal(getattr(moved, name), expected), name
    assert torch.equal(moved.mask[3], batch.mask[3])
    assert moved.mask.dtype == torch.bool and not torch.equal(moved.mask, batch.mask)


def test_the_default_float_type_changes_nothing():
    batch, transform = many_masks(3, torch.float32)
    expected = augment(batch, transform)
    torch.set_default_dtype(torch.float64)
    try:
        moved = augment(batch, transform)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(moved.image, expected.image) and torch.equal(moved.mask, expected.mask)


def test_a_batch_of_no_classes_keeps_its_empty_masks():
    batch, transform = many_masks(1, torch.float32)
    batch = replace(batch, mask=batch.mask[:, :0], label_vector=batch.label_vector[:, :0])
    assert augment(batch, transform).mask.shape == (6, 0, 33, 40)


def test_gradients_reach_the_image_as_through_the_slow_reference():
    batch, transform = many_masks(2, torch.float64)
    image = batch.image.clone().requires_grad_()
    weight = torch.rand(image.shape, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((moved * weight).sum(), image)[0]
        for moved in (
            augment(replace(batch, image=image), transform).image,
            slow_geometry(replace(batch, image=image), transform)["image"],
        )
    )
    assert torch.equal(found, expected) and found.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_precision_are_augmented_in_float32_and_stay_half(dtype):
    batch, transform = many_masks(3, torch.float32)
    half = replace(batch, image=batch.image.to(dtype), healthy=batch.healthy.to(dtype))
    single = replace(half, image=half.image.float(), healthy=half.healthy.float())
    moved, expected = augment(half, transform), augment(single, transform)
    for name in ("image", "healthy"):
        assert getattr(moved, name).dtype == dtype
        assert torch.equal(getattr(moved, name), getattr(expected, name).to(dtype)), name
    assert torch.equal(moved.image[3], half.image[3])  # not changed at all
    assert torch.equal(moved.mask, expected.mask)


def test_a_transform_of_half_precision_moves_as_the_same_numbers_in_float32():
    batch, transform = many_masks(3, torch.float32)
    half = Transform(transform.matrix.half(), transform.intensity.half())
    single = Transform(half.matrix.float(), half.intensity.float())
    moved, expected = augment(batch, half), augment(batch, single)
    assert torch.equal(moved.image, expected.image) and torch.equal(moved.mask, expected.mask)
