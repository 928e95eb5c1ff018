"""Batches of a store in a given order: resident on the device if the store fits, else streamed
ahead of use.

No worker processes. Both ways give the same batches, bit for bit, and the order of the data is the
caller's.
"""

import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import StoreView

_BLOCKS_WAITING = 2
_BLOCKS_IN_FLIGHT = _BLOCKS_WAITING + 2  # and one being used, and one being gathered


def batches(
    source: ArrayStore | StoreView | DeviceStore,
    order: Int[Tensor, "n"],
    batch_size: int,
    device: str | torch.device = "cpu",
    start: int = 0,
    memory_limit: int | None = None,
    stream_bytes: int = 128 << 20,
) -> Iterator[Batch]:
    """The batches of one pass over `order`.

    Args:
        source: a store, or a store that is resident already (then where it is, is where the batches
            are).
        order: rows of the source, shuffled or not; batch b is `order[b * batch_size : (b + 1) *
            batch_size]`, and the last one is short if the length is no multiple.
        batch_size: images per batch.
        device: where the batches shall be.
        start: number of the first batch (to resume in the middle of a pass).
        memory_limit: bytes a resident store may take on `device`; None for
            `default_memory_limit(device)`.
        stream_bytes: of images, twins, masks, labels and boxes that streaming holds in the host's
            memory at once, beside the batch itself (for a GPU one of the four blocks is there
            twice while it is pinned); at least four batches, whatever they weigh.

    Raises:
        ValueError: a size below 1, an order that is not 1-D, or a start beyond the end.
        IndexError: an order with rows that the source does not have.
    """
    if batch_size < 1 or stream_bytes < 1:
        raise ValueError(
            f"expected sizes >= 1, got batch_size {batch_size}, stream_bytes {stream_bytes}"
        )
    if order.ndim != 1 or order.dtype != torch.int64:
        raise ValueError(f"order: expected 1-D int64, got {order.dtype} {tuple(order.shape)}")
    n_batches = -(-len(order) // batch_size)
    if not 0 <= start <= n_batches:
        raise ValueError(f"start: expected a batch in [0, {n_batches}], got {start}")
    if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(source):
        low, high = int(order.min()), int(order.max())
        raise IndexError(f"order: expected rows in [0, {len(source)}), got {low} ... {high}")
    order = order[start * batch_size :]
    device = torch.device(device)
    if isinstance(source, DeviceStore):
        return _batches_on_device(source, order, batch_size)
    limit = default_memory_limit(device) if memory_limit is None else memory_limit
    if source.nbytes <= limit or (memory_limit is None and source.is_on_device(device)):
        return _batches_on_device(source.on_device(device), order, batch_size)
    per_block = stream_bytes // (_BLOCKS_IN_FLIGHT * _row_bytes(source))
    per_block = max(1, per_block // batch_size) * batch_size
    return _streamed_batches(source, order.cpu(), batch_size, device, per_block)


def default_memory_limit(device: str | torch.device) -> int:
    """Bytes: half of a CUDA device's free memory, or a quarter of the machine's (2 GiB if it will
    not say).
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0] // 2
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, OSError, ValueError):
        return 2 << 30


def _row_bytes(store: ArrayStore | StoreView) -> int:
    """What one row of a block weighs, at least 1."""
    first = store.block(np.arange(min(1, len(store))))
    tensors = (getattr(first, f.name) for f in fields(first))
    return max(1, sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor)))


def _batches_on_device(
    resident: DeviceStore, order: Int[Tensor, "n"], batch_size: int
) -> Iterator[Batch]:
    order = order.to(resident.device)
    for first in range(0, len(order), batch_size):
        yield resident.batch(order[first : first + batch_size])


def _streamed_batches(
    store: ArrayStore | StoreView,
    order: Int[Tensor, "n"],
    batch_size: int,
    device: torch.device,
    per_block: int,
) -> Iterator[Batch]:
    blocks: queue.Queue[DeviceStore | BaseException | None] = queue.Queue(_BLOCKS_WAITING)
    stop = threading.Event()

    def hand_over(item: DeviceStore | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return blocks.put(item, timeout=0.05)
            except queue.Full:
                continue

    def gather() -> None:
        try:
            for first in range(0, len(order), per_block):
                if stop.is_set():
                    return
                block = store.block(order[first : first + per_block].numpy())
                if device.type == "cuda":
                    block = block.moved(lambda tensor: tensor.pin_memory())
                hand_over(block)
            hand_over(None)
        except (
            BaseException
        ) as error:  # whatever it is, it belongs to whoever asks for the next batch
            hand_over(error)

    thread = threading.Thread(target=gather, name="cxrtut-batches", daemon=True)
    thread.start()
    try:
        while (item := blocks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            block = store.narrowed(item.moved(lambda tensor: tensor.to(device, non_blocking=True)))
            positions = torch.arange(len(block), device=device)
            for first in range(0, len(block), batch_size):
                yield block.batch(positions[first : first + batch_size])
    finally:
        stop.set()
        thread.join()
