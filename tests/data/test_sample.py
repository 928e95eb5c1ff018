import copy
from dataclasses import replace

import pytest
import torch

from cxrtut.data.sample import Batch, check_batch, from_uint8, to_uint8


def good_batch() -> Batch:
    return Batch(
        image=torch.linspace(-1, 1, 2 * 8 * 8).reshape(2, 1, 8, 8),
        label_vector=torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
        boxes=torch.tensor([[[1.0, 2.0, 8.0, 8.0], [0, 0, 0, 0]], [[0.0] * 4, [0.0] * 4]]),
        box_label=torch.tensor([[0, -1], [-1, -1]]),
        index=torch.tensor([5, 3]),
        mask=torch.zeros(2, 2, 8, 8, dtype=torch.bool),
        healthy=torch.zeros(2, 1, 8, 8),
    )


def changed(**fields: torch.Tensor) -> Batch:
    """A good batch with fields replaced behind the back of the shape checks of the constructor."""
    batch = copy.copy(good_batch())
    for name, value in fields.items():
        object.__setattr__(batch, name, value)
    return batch


def test_all_256_levels_survive_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(levels)
    assert x.dtype == torch.float32
    assert x[0] == -1 and x[255] == 1 and x.abs().max() <= 1
    assert torch.equal(to_uint8(x), levels)


def test_to_uint8_rounds_to_the_nearest_level_and_clips():
    step = 1 / 127.5
    x = torch.tensor([-1 + 0.4 * step, -1 + 0.6 * step, -3.0, 3.0])
    assert to_uint8(x).tolist() == [0, 1, 0, 255]


def test_a_good_batch_passes_with_and_without_the_optional_fields():
    check_batch(good_batch())
    check_batch(changed(mask=None, healthy=None))


def test_a_batch_without_images_or_without_room_for_boxes_passes():
    check_batch(changed(boxes=torch.zeros(2, 0, 4), box_label=torch.zeros(2, 0, dtype=torch.int64)))
    check_batch(
        Batch(
            image=torch.zeros(0, 1, 8, 8),
            label_vector=torch.zeros(0, 2),
            boxes=torch.zeros(0, 1, 4),
            box_label=torch.zeros(0, 1, dtype=torch.int64),
            index=torch.zeros(0, dtype=torch.int64),
        )
    )


def test_boxes_of_leaves_the_padding_out():
    boxes, labels = good_batch().boxes_of(0)
    assert boxes.tolist() == [[1, 2, 8, 8]] and labels.tolist() == [0]
    boxes, labels = good_batch().boxes_of(1)
    assert boxes.shape == (0, 4) and labels.shape == (0,)


def test_length_is_the_number_of_images_and_to_moves_every_field():
    more = {"uniforms": torch.rand(2, 4), "target_vector": torch.ones(2, 2)}
    moved = replace(good_batch(), **more).to("meta")
    assert len(moved) == 2
    assert {getattr(moved, name).device.type for name in Batch.__dataclass_fields__} == {"meta"}


BOX_BEYOND = torch.tensor([[[1.0, 2.0, 8.5, 8.0], [0, 0, 0, 0]], [[0.0] * 4, [0.0] * 4]])
BOX_INSIDE_OUT = torch.tensor([[[5.0, 2.0, 5.0, 8.0], [0, 0, 0, 0]], [[0.0] * 4, [0.0] * 4]])
BOX_UNLABELLED = torch.tensor([[[1.0, 2.0, 8.0, 8.0], [1, 1, 2, 2]], [[0.0] * 4, [0.0] * 4]])


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"image": torch.full((2, 1, 8, 8), 1.5)}, ValueError, "image: expected values in"),
        ({"image": torch.full((2, 1, 8, 8), torch.nan)}, ValueError, "image: expected finite"),
        ({"image": torch.zeros(2, 1, 8, 8).double()}, TypeError, "image: expected torch.float32"),
        ({"image": torch.zeros(2, 8, 8)}, ValueError, "image: expected shape"),
        ({"healthy": torch.zeros(2, 1, 8, 4)}, ValueError, "healthy: expected shape"),
        ({"healthy": torch.full((2, 1, 8, 8), -2.0)}, ValueError, "healthy: expected values"),
        ({"mask": torch.zeros(2, 1, 8, 8).bool()}, ValueError, "mask: expected shape"),
        ({"mask": torch.zeros(2, 2, 8, 8)}, TypeError, "mask: expected torch.bool"),
        ({"label_vector": torch.full((2, 2), 0.5)}, ValueError, "only 0 and 1, got 0.5"),
        ({"label_vector": torch.zeros(3, 2)}, ValueError, "label_vector: expected shape"),
        ({"index": torch.tensor([0, -2])}, ValueError, "index: expected rows >= 0, got -2"),
        ({"index": torch.tensor([0])}, ValueError, "index: expected shape"),
        ({"box_label": torch.tensor([[2, -1], [-1, -1]])}, ValueError, "below 2 .* got 2"),
        ({"box_label": torch.tensor([[-2, -1], [-1, -1]])}, ValueError, "got -2"),
        ({"boxes": BOX_BEYOND}, ValueError, "inside 8 x 8 pixels"),
        ({"boxes": BOX_INSIDE_OUT}, ValueError, "x0 < x1"),
        ({"boxes": BOX_UNLABELLED}, ValueError, "zeros where box_label is padding"),
        ({"boxes": BOX_BEYOND * torch.nan}, ValueError, "boxes: expected finite"),
    ],
)
def test_what_breaks_the_contract_is_named(fields, error, words):
    with pytest.raises(error, match=words):
        check_batch(changed(**fields))
