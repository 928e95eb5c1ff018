import pytest
import torch

from cxrtut.data.blending import crop_thumbnails, paste_thumbnails, texture_thumbnails
from cxrtut.data.boxes import boxes_to_mask

WHITE = torch.full((1, 3, 20, 20), 255, dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def skin(n: int = 40, size: int = 64) -> torch.Tensor:
    return torch.randint(90, 110, (n, 3, size, size), generator=seeded(9), dtype=torch.uint8)


def test_only_the_squares_and_their_rim_change():
    image = skin()
    pasted = paste_thumbnails(image, WHITE, generator=seeded())
    grown = torch.nn.functional.max_pool2d(pasted.mask[:, None].float(), 5, 1, 2) > 0
    changed = (pasted.image != image).any(dim=1, keepdim=True)
    assert not (changed & ~grown).any()
    assert changed[pasted.mask[:, None]].float().mean() > 0.99


def test_the_mask_is_the_union_of_the_boxes():
    pasted = paste_thumbnails(skin(), WHITE, generator=seeded())
    for mask, boxes, labels in zip(pasted.mask, pasted.boxes, pasted.box_label, strict=True):
        assert torch.equal(boxes_to_mask(boxes[labels == 0], 64, 64), mask)
        assert not boxes[labels == -1].any()


def test_sizes_and_counts_are_the_papers_and_squares_do_not_overlap():
    pasted = paste_thumbnails(skin(300), WHITE, generator=seeded())
    sides = (pasted.boxes[..., 2] - pasted.boxes[..., 0])[pasted.box_label == 0]
    shares = [(sides == side).float().mean().item() for side in (4, 8, 16)]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0.25
    counts = (pasted.box_label == 0).sum(dim=1)
    assert counts.min() == 1 and counts.max() == 3 and 1.8 < counts.float().mean() < 2.2
    areas = (pasted.boxes[..., 2] - pasted.boxes[..., 0]) ** 2
    assert torch.equal(areas.sum(dim=1).long(), pasted.mask.sum(dim=(1, 2)))


def test_the_expected_share_of_pasted_pixels_is_the_papers():
    pasted = paste_thumbnails(skin(400, 128), WHITE, generator=seeded())
    share = pasted.mask.float().mean().item()
    assert 1 / 88 < share < 1 / 60  # 2 x (16 + 64 + 256) / 3 pixels of 16,384 are 1 : 73


def test_far_inside_the_square_stands_the_thumbnail_averaged_to_its_size():
    checks = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    checks[..., ::2] = 200  # pairs of columns average to 100
    image = torch.zeros(5, 1, 40, 40, dtype=torch.uint8)
    pasted = paste_thumbnails(image, checks, generator=seeded(), sizes=(16,), counts=(1,))
    for picture, box in zip(pasted.image[:, 0], pasted.boxes[:, 0].int().tolist(), strict=True):
        x0, y0, x1, y1 = box
        assert (picture[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] == 100).all()


def test_the_rim_is_smooth_and_without_one_the_edge_is_hard():
    image = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    options = {"sizes": (16,), "counts": (1,)}
    soft = paste_thumbnails(image, WHITE[:, :1], generator=seeded(), **options)
    hard = paste_thumbnails(image, WHITE[:, :1], generator=seeded(), rim=0, **options)
    assert torch.equal(soft.mask, hard.mask)
    assert torch.equal(hard.image == 255, hard.mask[:, None])
    x0, y0, x1, _ = soft.boxes[0, 0].int().tolist()
    line = soft.image[0, 0, y0 + 8, max(0, x0 - 3) : x1].int()
    assert line.diff().abs().max() < 150
    # a step blurred by a Gaussian of standard deviation 1 holds 30 % and 70 % beside the edge
    assert 60 < soft.image[0, 0, y0 + 8, x0 - 1] < 100 < soft.image[0, 0, y0 + 8, x0] < 190


def test_the_same_seed_gives_the_same_biomarkers_and_nothing_global_is_used():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = paste_thumbnails(skin(4), WHITE, generator=seeded(3))
    assert torch.equal(state, torch.get_rng_state())
    again = paste_thumbnails(skin(4), WHITE, generator=seeded(3))
    other = paste_thumbnails(skin(4), WHITE, generator=seeded(4))
    assert torch.equal(first.image, again.image) and not torch.equal(first.image, other.image)


def test_no_images_and_no_pastes_are_fine():
    assert paste_thumbnails(skin(0), WHITE, generator=seeded()).image.shape == (0, 3, 64, 64)
    image = skin(2)
    pasted = paste_thumbnails(image, WHITE, generator=seeded(), counts=(0,))
    assert torch.equal(pasted.image, image) and not pasted.mask.any()
    assert pasted.boxes.shape == (2, 1, 4) and (pasted.box_label == -1).all()


def test_a_crowded_image_still_gets_its_squares():
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    pasted = paste_thumbnails(image, WHITE[:, :1], generator=seeded(), sizes=(16,), counts=(3,))
    assert (pasted.box_label == 0).all() and pasted.mask.all()


def test_wrong_input_is_refused_with_words():
    with pytest.raises(ValueError, match="thumbnails: expected"):
        paste_thumbnails(skin(1), WHITE[:0], generator=seeded())
    with pytest.raises(ValueError, match="thumbnails: expected"):
        paste_thumbnails(skin(1)[:, :2], WHITE, generator=seeded())
    with pytest.raises(ValueError, match=r"sizes: expected sides in 1 ... 64"):
        paste_thumbnails(skin(1), WHITE, generator=seeded(), sizes=(65,))
    with pytest.raises(ValueError, match="counts"):
        paste_thumbnails(skin(1), WHITE, generator=seeded(), counts=(-1,))


def test_textures_vary_within_and_between_thumbnails():
    textures = texture_thumbnails(20, 3, 16, generator=seeded())
    assert textures.shape == (20, 3, 16, 16) and textures.dtype == torch.uint8
    assert textures.float().std(dim=(2, 3)).min() > 5
    assert len({tuple(texture.flatten().tolist()) for texture in textures}) == 20


def test_crops_are_parts_of_the_images():
    image = torch.arange(2 * 8 * 8, dtype=torch.uint8).reshape(2, 1, 8, 8)
    crops = crop_thumbnails(image, 30, 3, generator=seeded())
    for crop in crops:
        assert torch.equal(crop[0] - crop[0, 0, 0], image[0, 0, :3, :3])
    assert len({int(crop[0, 0, 0]) for crop in crops}) > 10
    assert crop_thumbnails(image, 0, 3, generator=seeded()).shape == (0, 1, 3, 3)
    with pytest.raises(ValueError, match="at least 9 pixels"):
        crop_thumbnails(image, 1, 9, generator=seeded())
