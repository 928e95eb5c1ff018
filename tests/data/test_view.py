"""A view of a store: what a copy of it would give, without the copy."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cxrtut.data.batches import batches
from cxrtut.data.device_store import pack_masks, unpack_masks
from cxrtut.data.sample import PADDING, Batch, check_batch
from cxrtut.data.store import ArrayStore, BoxRow, StoreError
from cxrtut.data.view import view

ORDER = torch.tensor([3, 0, 10, 7, 1, 2, 9, 8, 6, 4])
SHOWN = [
    {}, {"size": 8}, {"size": 5}, {"classes": ("Effusion", "Mass")}, {"classes": ("Nodule",)},
    {"size": 8, "classes": ("Nodule", "Mass")}, {"size": 1, "classes": ("Effusion",)},
]  # fmt: skip


def copied(store, *, size=None, classes=None):
    """The slow reference: a store of its own with what a view shows."""
    size, classes = size or store.size, classes or store.classes
    columns = [store.classes.index(name) for name in classes]

    def shrunk(images):
        mean = F.adaptive_avg_pool2d(torch.from_numpy(np.array(images)).float(), size)
        return mean.round().clamp(0, 255).to(torch.uint8).numpy()

    masks = None
    if store.masks is not None:
        inside = unpack_masks(torch.from_numpy(np.array(store.masks)), len(store.classes))
        kept = F.adaptive_avg_pool2d(inside[:, columns].float(), size) >= 0.5
        masks = pack_masks(kept.numpy())
    boxes, table = [], store.boxes
    for row, label, xyxy, origin in zip(
        table.row, table.label, table.xyxy, table.origin, strict=True
    ):
        if label in columns:
            corners = (float(v) * size / store.size for v in xyxy)
            boxes.append(BoxRow(int(row), columns.index(label), *corners, str(origin)))
    return ArrayStore.from_arrays(
        shrunk(store.images), np.ascontiguousarray(store.labels[:, columns]), classes,
        boxes_rows=boxes, healthy=None if store.healthy is None else shrunk(store.healthy),
        masks=masks,
        table_rows=[
            {name: column[row] for name, column in store.table.items()} for row in range(len(store))
        ],
    )  # fmt: skip


def assert_same(one: Batch, other: Batch, *, boxes_too=True):
    for name in ("image", "label_vector", "index", "mask", "healthy"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    if boxes_too:
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.box_label, other.box_label)


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


@pytest.mark.parametrize("shown", SHOWN)
def test_batches_are_those_of_a_copy(store, shown):
    made, reference = view(store, **shown), copied(store, **shown)
    rows = np.array([3, 0, 10, 9, 3])
    for batch in (made.batch(rows), made.on_device("cpu").batch(torch.from_numpy(rows))):
        check_batch(batch)
        other = reference.batch(rows)
        assert_same(batch, other, boxes_too=False)
        for i in range(len(rows)):  # a copy pads to fewer boxes
            for one, two in zip(batch.boxes_of(i), other.boxes_of(i), strict=True):
                assert torch.equal(one, two)
    assert np.array_equal(made.labels, reference.labels)
    for name in ("row", "label", "xyxy", "origin"):
        assert np.array_equal(getattr(made.boxes, name), getattr(reference.boxes, name)), name
    assert (len(made), made.channels, made.source) == (11, 2, store.source)
    assert made.table is store.table


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("block_rows", [1, 4, 1000])
def test_a_streamed_view_equals_one_on_the_device_bit_for_bit(folder, shown, block_rows):
    made = view(ArrayStore.open(folder), **shown)
    block = made.block(np.arange(1))
    tensors = (getattr(block, f.name) for f in fields(block))
    row = sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))
    limit = 4 * block_rows * row  # one block in use, two waiting, one in hand
    streamed = list(batches(made, ORDER, 4, memory_limit=0, stream_bytes=limit))
    assert not made.is_on_device("cpu")
    resident = list(batches(made, ORDER, 4))
    assert made.is_on_device("cpu")
    for one, other in zip(streamed, resident, strict=True):
        assert_same(one, other)
        assert one.mask is not None and one.healthy is not None
        assert_same(one, made.batch(one.index))


@pytest.mark.parametrize("lacking", ["masks", "healthy"])
def test_a_view_of_a_store_without_masks_or_twins_has_none(store, lacking):
    made = view(replace(store, **{lacking: None}), size=8, classes=("Mass",))
    streamed = list(batches(made, ORDER, 4, memory_limit=0))
    for one, other in zip(streamed, batches(made, ORDER, 4), strict=True):
        assert_same(one, other)
        assert getattr(one, {"masks": "mask"}.get(lacking, lacking)) is None


def test_a_smaller_view_is_made_resident_piece_by_piece_and_once(store, monkeypatch):
    whole = view(store, size=8).on_device("cpu")
    monkeypatch.setattr("cxrtut.data.view._BLOCK_BYTES", 3 * store.nbytes // len(store))
    made = view(store, size=8)
    pieces = made.on_device("cpu")
    assert_same(pieces.batch(ORDER), whole.batch(ORDER))
    assert made.on_device("cpu") is pieces


def test_at_its_own_size_a_view_shares_the_pixels(store):
    made = view(store, classes=("Effusion",))
    on_device = made.on_device("cpu")
    for name in ("images", "healthy", "masks"):
        assert np.shares_memory(getattr(on_device, name).numpy(), getattr(store, name))
    assert made.is_on_device("cpu") and store.is_on_device("cpu")
    assert made.nbytes == store.nbytes and view(store, size=8).nbytes * 4 == store.nbytes


def test_images_are_averaged_down_boxes_scaled_and_masks_kept_from_half_a_pixel_on():
    store = make_store()
    small = view(store, size=2)
    batch = small.batch(np.array([2]))
    expected = store.images[2, 0].reshape(2, 2, 2, 2).mean((1, 3)).round()
    assert torch.equal(small.on_device("cpu").images[2, 0], torch.from_numpy(expected).byte())
    assert small.boxes.of(2)[0].tolist() == [[0, 0, 1, 1]] == batch.boxes_of(0)[0].tolist()
    assert batch.mask[0, 1].tolist() == [[True, False], [False, False]]


def test_classes_can_be_chosen_and_the_boxes_of_the_others_go():
    chosen = view(make_store(), classes=("B",))
    assert chosen.classes == ("B",) and chosen.labels.tolist() == [[0], [0], [1], [1]]
    assert chosen.boxes.row.tolist() == [2] and chosen.boxes.label.tolist() == [0]
    batch = chosen.batch(np.array([2, 3, 1]))
    assert batch.mask[0].sum() == 5
    assert batch.box_label.tolist() == [[0], [PADDING], [PADDING]]
    assert not batch.boxes[1:].any()


def test_classes_come_in_the_order_asked_for():
    batch = view(make_store(), classes=("B", "A")).batch(np.array([1, 2, 3]))
    assert batch.label_vector.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert batch.mask[1, 0].sum() == 5 and not batch.mask[1, 1].any()
    assert batch.box_label[:, 0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 8}, "size: expected 1 to the store's 4, got 8"),
        ({"size": 0}, "size: expected 1 to the store's 4, got 0"),
        ({"classes": ("A", "C")}, r"expected classes of \('A', 'B'\), got C"),
    ],
)
def test_what_the_store_does_not_have_is_refused(change, words):
    with pytest.raises(StoreError, match=words):
        view(make_store(), **change)


def test_a_row_that_is_not_there_is_refused(store):
    with pytest.raises(IndexError, match=r"expected rows in \[0, 11\)"):
        view(store, size=8).batch(np.array([11]))
