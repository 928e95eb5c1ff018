"""The pool of earlier fakes, against a loop in plain Python."""

import pytest
import torch

from cxrtut.nn.image_pool import ImagePool


def shown_by_hand(stream, slots):
    pool, shown = [], []
    for new, u, v in stream:
        if len(pool) < slots:
            pool.append(new)
            shown.append(new)
        elif u < 0.5:
            place = int(v * slots)
            shown.append(pool[place])
            pool[place] = new
        else:
            shown.append(new)
    return shown, pool


def test_it_shows_and_keeps_what_a_loop_does():
    draw = torch.Generator().manual_seed(0)
    pool, stream, shown = ImagePool(5, 1, 2), [], []
    for _ in range(12):
        images, uniforms = torch.rand(3, 1, 2, 2), torch.rand(3, 2, generator=draw)
        shown += list(pool(images, uniforms).clone())
        stream += [(x, float(u), float(v)) for x, (u, v) in zip(images, uniforms, strict=True)]
    expected, kept = shown_by_hand(stream, 5)
    assert torch.equal(torch.stack(shown), torch.stack(expected))
    assert torch.equal(pool.images, torch.stack(kept)) and int(pool.filled) == 5
    assert any(a is not b[0] for a, b in zip(expected, stream, strict=True))


def test_what_it_shows_has_no_gradient_and_is_remembered():
    pool = ImagePool(4, 1, 2)
    images = torch.rand(2, 1, 2, 2, requires_grad=True)
    shown = pool(images * 2, torch.rand(2, 2))
    assert not shown.requires_grad and torch.equal(pool.shown, 2 * images.detach())


def test_its_images_are_saved_and_what_was_shown_last_is_not():
    pool, again = ImagePool(4, 1, 2), ImagePool(4, 1, 2)
    pool(torch.rand(2, 1, 2, 2), torch.rand(2, 2))
    again.load_state_dict(pool.state_dict())
    assert torch.equal(again.images, pool.images) and int(again.filled) == 2
    assert set(pool.state_dict()) == {"images", "filled"}


def test_without_slots_the_new_ones_are_shown():
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(ImagePool(0, 1, 2)(images, torch.zeros(3, 2)), images)
    with pytest.raises(ValueError, match="slots: expected 0 or more, got -1"):
        ImagePool(-1, 1, 2)
