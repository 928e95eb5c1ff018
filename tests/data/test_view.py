"""Some rows of a store as a store of their own."""

import numpy as np
import pytest
import torch
from cxrtut.data.selection import select

from cxrtut.data.device_store import pack_masks
from cxrtut.data.store import ArrayStore, BoxRow, StoreError


def make_store():
    images = np.arange(4 * 16, dtype=np.uint8).reshape(4, 1, 4, 4)
    masks = np.zeros((4, 2, 4, 4), dtype=bool)
    masks[2, 1, :2, :2] = True
    masks[2, 1, 0, 2] = True  # a quarter of a larger pixel
    labels = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.uint8)
    boxes = [
        BoxRow(2, 1, 0, 0, 2, 2, "x"),
        BoxRow(3, 0, 1, 1, 4, 4, "x"),
        BoxRow(1, 0, 0, 0, 4, 4, "y"),
    ]
    return ArrayStore.from_arrays(
        images, labels, ("A", "B"), boxes_rows=boxes, masks=pack_masks(masks),
        healthy=images // 2, source="toy",
    )  # fmt: skip


def test_rows_come_in_the_order_given_with_everything_that_belongs_to_them():
    store = make_store()
    chosen = select(store, np.array([3, 1]))
    assert np.array_equal(chosen.images, store.images[[3, 1]])
    assert np.array_equal(chosen.healthy, store.healthy[[3, 1]])
    assert chosen.labels.tolist() == [[1, 1], [1, 0]]
    assert chosen.table["name"].tolist() == ["3", "1"]
    assert [chosen.boxes.of(i)[0].tolist() for i in (0, 1)] == [[[1, 1, 4, 4]], [[0, 0, 4, 4]]]
    assert chosen.boxes.origin.tolist() == ["x", "y"] and chosen.source == "toy"


def test_images_are_averaged_down_boxes_scaled_and_masks_kept_from_half_a_pixel_on():
    store = make_store()
    small = select(store, np.array([2]), size=2)
    expected = store.images[2, 0].reshape(2, 2, 2, 2).mean((1, 3)).round()
    assert np.array_equal(small.images[0, 0], expected)
    assert small.boxes.of(0)[0].tolist() == [[0, 0, 1, 1]]
    batch = small.batch(torch.tensor([0]))
    assert batch.mask[0, 1].tolist() == [[True, False], [False, False]]


def test_classes_can_be_chosen_and_the_boxes_of_the_others_go():
    chosen = select(make_store(), np.array([2, 3]), classes=("B",))
    assert chosen.classes == ("B",) and chosen.labels.tolist() == [[1], [1]]
    assert chosen.boxes.row.tolist() == [0] and chosen.boxes.label.tolist() == [0]
    assert chosen.batch(torch.tensor([0])).mask.sum() == 5


@pytest.mark.parametrize("classes", [None, ("A", "B"), ("B", "A"), ("B",)])
def test_masks_of_the_stores_own_size_are_copied_and_never_pooled(classes, monkeypatch):
    store = make_store()
    noise = np.random.default_rng(0).integers(0, 4, store.masks.shape, dtype=np.uint8)
    store.masks[:] = noise
    monkeypatch.setattr("torch.nn.functional.adaptive_avg_pool2d", None)
    chosen = select(store, np.array([3, 1]), classes=classes)
    names = classes or store.classes
    expected = sum(
        (noise[[3, 1]] >> store.classes.index(name) & 1) << k for k, name in enumerate(names)
    )
    assert np.array_equal(chosen.masks, expected)
    assert not np.shares_memory(chosen.masks, store.masks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": np.arange(0)}, "expected at least one row, got none"),
        ({"size": 8}, "size: expected 1 to the store's 4, got 8"),
        ({"classes": ("A", "C")}, r"expected classes of \('A', 'B'\), got C"),
    ],
)
def test_what_the_store_does_not_have_is_refused(change, words):
    with pytest.raises(StoreError, match=words):
        select(make_store(), **{"rows": np.array([0])} | change)
