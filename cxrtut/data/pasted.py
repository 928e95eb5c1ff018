"""Pictures pasted into normal images: a set in which every pixel of the "disease" is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from cxrtut.data.blending import crop_thumbnails, paste_thumbnails, texture_thumbnails
from cxrtut.data.device_store import pack_masks
from cxrtut.data.split import chosen_by, is_normal, row_parts
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.view import view
from cxrtut.randomness import generator

PASTED = "Pasted biomarker"
N_PICTURES = 200  # of each kind


def pasted_store(
    store: ArrayStore, size: int, *, seed: int = 0, where: Mapping[str, str] | None = None
) -> ArrayStore:
    """The second set of Zhang et al. (2019): pictures pasted into every other normal image of a
    store, the squares as ground truth, the untouched image as the healthy twin.

    The pictures are cut from the store's own images and from drawn stripes, half and half.

    Args:
        store: of any source.
        size: of the images, pixels; no larger than the store's.
        seed: of the pictures and their places.
        where: only normal images with these texts in these columns of the table.

    Raises:
        StoreError: the store has no normal images, or they are smaller than `size`.
    """
    rows = np.flatnonzero(is_normal(store) & chosen_by(store, where or {}))
    if len(rows) < 4:
        raise StoreError(f"expected at least 4 normal images to paste into, got {len(rows)}")
    shown = view(store, size=size)
    healthy = torch.cat([shown.narrowed(shown.block(part)).images for part in row_parts(rows)])
    draw = generator("pasted", seed)
    pictures = torch.cat(
        [
            crop_thumbnails(healthy, N_PICTURES, 16, generator=draw),
            texture_thumbnails(N_PICTURES, store.channels, 16, generator=draw),
        ]
    )
    abnormal = torch.arange(len(rows)) % 2 == 1
    pasted = paste_thumbnails(healthy[abnormal], pictures, generator=draw)
    images = healthy.clone()
    masks = torch.zeros(len(rows), 1, *healthy.shape[2:], dtype=torch.bool)
    images[abnormal], masks[abnormal, 0] = pasted.image, pasted.mask
    table = [{name: column[row] for name, column in store.table.items()} for row in rows]
    return ArrayStore.from_arrays(
        images.numpy(), abnormal.to(torch.uint8)[:, None].numpy(), (PASTED,), table_rows=table,
        healthy=healthy.numpy(), masks=pack_masks(masks.numpy()), source=f"pasted: {store.source}",
        licence=store.licence,
    )  # fmt: skip
