import threading
import time
import weakref
from dataclasses import fields

import numpy as np
import pytest
import torch

from cxrtut.data.batches import batches, default_memory_limit
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import StoreView, view

ORDER = torch.tensor([3, 0, 10, 7, 1, 2, 9, 8, 6, 4])


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for name in set(Batch.__dataclass_fields__) - {"uniforms", "target_vector"}:
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert a.uniforms is None and b.uniforms is None


def weight(block: DeviceStore) -> int:
    tensors = [getattr(block, f.name) for f in fields(block)]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


def bytes_for(store: ArrayStore | StoreView, rows: int) -> int:
    """In flight with blocks of so many rows: one in use, two waiting, one in hand."""
    return 4 * rows * weight(store.block(np.arange(1)))


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "cxrtut-batches"]


@pytest.mark.parametrize("block_rows", [1, 4, 6, 1000])
@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_streaming_and_residence_give_the_same_batches_bit_for_bit(folder, block_rows, batch_size):
    store = ArrayStore.open(folder)
    limit = bytes_for(store, block_rows)
    streamed = list(batches(store, ORDER, batch_size, memory_limit=0, stream_bytes=limit))
    assert not store.is_on_device("cpu")
    resident = list(batches(store, ORDER, batch_size))
    assert store.is_on_device("cpu")
    assert_equal(streamed, resident)
    assert torch.cat([batch.index for batch in resident]).tolist() == ORDER.tolist()


def test_a_resident_store_is_a_source_too(store):
    assert_equal(list(batches(store.on_device("cpu"), ORDER, 4)), list(batches(store, ORDER, 4)))


def test_the_last_batch_is_short(store):
    assert [len(batch) for batch in batches(store, ORDER, 4)] == [4, 4, 2]


@pytest.mark.parametrize("memory_limit", [None, 0])
def test_a_pass_resumes_at_the_batch_asked_for(store, memory_limit):
    whole = list(batches(store, ORDER, 4))
    for start in range(4):
        rest = list(batches(store, ORDER, 4, start=start, memory_limit=memory_limit))
        assert_equal(rest, whole[start:])


@pytest.mark.parametrize("memory_limit", [None, 0])
def test_an_empty_order_has_no_batches(store, memory_limit):
    assert list(batches(store, ORDER[:0], 4, memory_limit=memory_limit)) == []


def test_an_error_in_the_thread_reaches_whoever_asks_for_the_batch(store, monkeypatch):
    gather, limit = store.block, bytes_for(store, 2)

    def broken(rows):
        if 7 in rows:
            raise OSError("the disk is gone")
        return gather(rows)

    monkeypatch.setattr(store, "block", broken)
    stream = batches(store, ORDER, 2, memory_limit=0, stream_bytes=limit)
    assert next(stream).index.tolist() == [3, 0]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert threads() == []


def test_closing_early_ends_the_thread(store):
    stream = batches(store, ORDER, 1, memory_limit=0, stream_bytes=1)
    next(stream)
    assert threads() == ["cxrtut-batches"]
    stream.close()
    assert threads() == []


def test_the_thread_works_ahead_but_not_without_bound(store, monkeypatch):
    gathered = []
    gather = store.block
    monkeypatch.setattr(store, "block", lambda rows: (gathered.append(len(rows)), gather(rows))[1])
    stream = batches(store, ORDER, 1, memory_limit=0, stream_bytes=1)
    gathered.clear()  # the row that was weighed
    next(stream)
    time.sleep(0.3)
    assert 2 <= len(gathered) <= 4  # one in use, two waiting, one in hand
    stream.close()


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("with_twin_and_masks", [False, True])
def test_the_bytes_in_flight_are_bounded_whatever_a_row_weighs(
    size, with_twin_and_masks, monkeypatch
):
    n, limit = 1_000_000 // size**2, 200_000
    images = np.zeros((n, 1, size, size), dtype=np.uint8)
    more = {"healthy": images, "masks": images[:, 0]} if with_twin_and_masks else {}
    large = ArrayStore.from_arrays(images, np.zeros((n, 2), dtype=np.uint8), ("A", "B"), **more)
    gather, alive, peak, weights = large.block, [0], [0], []

    def gathered(rows):
        block = gather(rows)
        weights.append(weight(block))
        alive[0] += weights[-1]
        peak[0] = max(peak[0], alive[0])
        weakref.finalize(block, lambda w=weights[-1]: alive.__setitem__(0, alive[0] - w))
        return block

    stream = batches(large, torch.arange(n), 4, memory_limit=0, stream_bytes=limit)
    monkeypatch.setattr(large, "block", gathered)
    for number, _ in enumerate(stream):
        if number % 10 == 0:
            time.sleep(0.005)  # a slow reader: all that may wait does wait
    # A block is a whole number of batches, so it stays a little below its quarter.
    assert limit / 4 - weight(gather(np.arange(4))) < max(weights) <= limit / 4
    assert limit / 2 < peak[0] <= limit


def test_a_batch_above_the_bound_comes_one_at_a_time(store, monkeypatch):
    rows, gather = [], store.block
    monkeypatch.setattr(store, "block", lambda r: (rows.append(len(r)), gather(r))[1])
    assert len(list(batches(store, ORDER, 4, memory_limit=0, stream_bytes=1))) == 3
    assert rows[-3:] == [4, 4, 2]


def test_a_store_larger_than_the_limit_is_streamed(store):
    list(batches(store, ORDER, 4, memory_limit=store.nbytes - 1))
    assert not store.is_on_device("cpu")
    list(batches(store, ORDER, 4, memory_limit=store.nbytes))
    assert store.is_on_device("cpu")


def test_the_default_limit_is_a_reasonable_share_of_memory():
    assert 1 << 28 < default_memory_limit("cpu") < 1 << 44


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"batch_size": 0}, ValueError, "sizes >= 1, got batch_size 0"),
        ({"stream_bytes": 0}, ValueError, "sizes >= 1.*stream_bytes 0"),
        ({"order": ORDER.int()}, ValueError, "1-D int64"),
        ({"order": ORDER + 1}, IndexError, r"rows in \[0, 11\), got 1 ... 11"),
        ({"order": ORDER - 1}, IndexError, "got -1 ... 9"),
        ({"start": 4}, ValueError, r"batch in \[0, 3\], got 4"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(store, arguments, error, words):
    with pytest.raises(error, match=words):
        batches(**({"source": store, "order": ORDER, "batch_size": 4} | arguments))


@pytest.mark.parametrize("shown", [{"size": 8}, {"classes": ("Nodule",)}])
def test_a_view_is_a_source_streamed_or_resident(store, shown):
    made = view(store, **shown)
    streamed = list(batches(made, ORDER, 4, memory_limit=0, stream_bytes=bytes_for(made, 4)))
    assert not made.is_on_device("cpu")
    assert_equal(streamed, list(batches(made, ORDER, 4)))
    assert made.is_on_device("cpu")
    assert_equal(streamed, list(batches(made.on_device("cpu"), ORDER, 4)))


def test_a_view_too_large_to_be_resident_is_streamed_by_its_own_bytes(store):
    small = view(store, size=8)
    list(batches(small, ORDER, 4, memory_limit=small.nbytes - 1))
    assert not small.is_on_device("cpu")
    list(batches(small, ORDER, 4, memory_limit=small.nbytes))
    assert small.is_on_device("cpu") and not store.is_on_device("cpu")
