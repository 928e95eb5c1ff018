"""Some rows of a store, at another size, as a store of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64

from cxrtut.data.resident import pack_masks, unpack_masks
from cxrtut.data.store import ArrayStore, BoxRow, StoreError

_BLOCK = 512  # images resized at once


def select(
    store: ArrayStore,
    rows: Int64[np.ndarray, "r"],
    *,
    size: int | None = None,
    classes: Sequence[str] | None = None,
) -> ArrayStore:
    """The rows, in the order given, as a store in memory.

    Images (and healthy twins) are averaged down by area; a mask keeps the pixels of which it has
    half or more; boxes are scaled.

    Args:
        store: where the images are.
        rows: of the store.
        size: height and width of the images; no larger than the store's.
        classes: columns of the labels, masks and boxes that are kept; all by default.

    Raises:
        StoreError: no rows, a class the store does not have, or a size above the store's.
    """
    size = store.size if size is None else size
    classes = store.classes if classes is None else tuple(classes)
    unknown = [name for name in classes if name not in store.classes]
    if unknown:
        raise StoreError(f"expected classes of {store.classes}, got {', '.join(unknown)}")
    if not len(rows):
        raise StoreError("expected at least one row, got none")
    if not 1 <= size <= store.size:
        raise StoreError(f"size: expected 1 to the store's {store.size}, got {size}")
    columns = [store.classes.index(name) for name in classes]
    images, healthy, masks = [], [], []
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        images.append(_shrunk(store.images[part], size))
        if store.healthy is not None:
            healthy.append(_shrunk(store.healthy[part], size))
        if store.masks is not None:
            masks.append(_chosen_masks(store, part, size, columns))
    selected = ArrayStore.from_arrays(
        np.concatenate(images),
        np.ascontiguousarray(store.labels[rows][:, columns]),
        classes,
        table_rows=[{name: column[row] for name, column in store.table.items()} for row in rows],
        boxes_rows=_boxes(store, rows, columns, size / store.size),
        healthy=np.concatenate(healthy) if healthy else None,
        masks=np.concatenate(masks) if masks else None,
        source=store.source,
        licence=store.licence,
    )
    selected.notes.update(store.notes)
    return selected


def _shrunk(images: np.ndarray, size: int) -> np.ndarray:
    images = np.ascontiguousarray(images)
    if images.shape[-1] == size:
        return images
    mean = F.adaptive_avg_pool2d(torch.from_numpy(images).float(), size)
    return mean.round().clamp(0, 255).to(torch.uint8).numpy()


def _chosen_masks(
    store: ArrayStore, rows: np.ndarray, size: int, columns: Sequence[int]
) -> np.ndarray:
    assert store.masks is not None
    bits = np.ascontiguousarray(store.masks[rows])
    same_classes = list(columns) == list(range(len(store.classes)))
    if store.size == size and same_classes:
        return bits
    inside = unpack_masks(torch.from_numpy(bits), len(store.classes))[:, columns]
    if store.size != size:
        inside = F.adaptive_avg_pool2d(inside.float(), size) >= 0.5
    return pack_masks(inside.numpy())


def _boxes(
    store: ArrayStore, rows: np.ndarray, columns: Sequence[int], scale: float
) -> list[BoxRow]:
    new_label = {old: new for new, old in enumerate(columns)}
    of_row: dict[int, list[int]] = {}
    for box, row in enumerate(store.boxes.row.tolist()):
        of_row.setdefault(row, []).append(box)
    table = store.boxes
    kept = []
    for new_row, row in enumerate(rows.tolist()):
        for box in of_row.get(row, []):
            label = int(table.label[box])
            if label in new_label:
                x0, y0, x1, y1 = (float(v) * scale for v in table.xyxy[box])
                kept.append(
                    BoxRow(new_row, new_label[label], x0, y0, x1, y1, str(table.origin[box]))
                )
    return kept
