"""For each image the most similar ones of others, by a few grey cells of each."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.data.average_hash import grey_cells
from cxrtut.data.split import Rows, Split, row_parts
from cxrtut.data.store import StoreError

SIDE = 32  # cells in a row: Section 2.2 of GRANet, "we first resize all images to 32x32"
PART = 1024  # images that are compared with all others at once


def thumbnails(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1024"]:
    """Each image averaged over its channels and over 32 x 32 cells.

    Raises:
        ValueError: images of fewer than 32 x 32 pixels.
    """
    return grey_cells(images, SIDE)


def nearest_neighbours(
    images: Float[Tensor, "B d"], pool: Float[Tensor, "N d"], k: int = 1
) -> Int[Tensor, "B {k}"]:
    """The k of the pool that are nearest to each image by Euclidean distance, nearest first.

    Args:
        images: of `thumbnails`.
        pool: of `thumbnails`; at least k of them.
        k: how many.

    Raises:
        ValueError: fewer than k in the pool, or a k below 1.
    """
    if not 1 <= k <= len(pool):
        raise ValueError(f"k: expected 1 to {len(pool)}, the size of the pool, got {k}")
    parts = [
        torch.cdist(part, pool, compute_mode="donot_use_mm_for_euclid_dist").topk(k, largest=False)
        for part in images.split(PART)
    ]
    if not parts:
        return torch.zeros(0, k, dtype=torch.int64, device=images.device)
    return torch.cat([found.indices for found in parts])


def training_neighbours(
    split: Split, rows: Rows, among: Rows, k: int = 1, device: torch.device | str = "cpu"
) -> Int[Tensor, "n {k}"]:
    """For each of the rows the k rows that look most like it, of other patients.

    Reading (data, where neighbours come from): Section 2.2 of Kim et al. (GRANet, 2020) searches
        "the nearest normal image". It is not said among which, and how an image becomes small.
        Here: It is searched among training images of other patients. An image is brought to 32 x 32
            cells by the mean of their pixels.
        Why: A neighbour of the test side would bring test pixels into the training.

    Args:
        split: gives the images.
        rows: of its training side.
        among: rows of its training side, each once.
        k: how many.
        device: where they are compared; the answer is on the CPU.

    Raises:
        ValueError: a k below 1.
        StoreError: a row that is not learnt from, or a row with fewer than k of other patients.
    """
    if k < 1:
        raise ValueError(f"k: expected 1 or more, got {k}")
    learnt = set(split.train.tolist())
    for name, asked in (("rows", rows), ("among", among)):
        if outside := [int(row) for row in asked if int(row) not in learnt]:
            raise StoreError(
                f"{name}: expected rows that are learnt from, got {len(outside)} others, "
                f"such as {outside[0]}"
            )
    of_rows, of_pool = (_thumbnails_of(split, asked, device) for asked in (rows, among))
    patients, owners = split.patients(rows), split.patients(among)
    number = {name: i for i, name in enumerate(dict.fromkeys([*patients, *owners]))}
    mine, theirs = (torch.tensor([number[p] for p in names]) for names in (patients, owners))
    same = mine[:, None] == theirs[None, :]
    spare = int(same.sum(1).max()) if same.numel() else 0
    if len(rows) and len(among) - spare < k:
        raise StoreError(f"among: expected {k} images of other patients or more for each, got less")
    order = nearest_neighbours(of_rows, of_pool, min(k + spare, len(among))) if len(rows) else None
    if order is None:
        return torch.zeros(0, k, dtype=torch.int64)
    order = order.cpu()
    own = same.gather(1, order)
    kept = (order.shape[1] * own.long() + torch.arange(order.shape[1])).argsort(1)[:, :k]
    return torch.from_numpy(among)[order.gather(1, kept)]


def _thumbnails_of(split: Split, rows: Rows, device: torch.device | str) -> Float[Tensor, "n d"]:
    found = [thumbnails(split.batch(part, device).image) for part in row_parts(rows)]
    return torch.cat(found) if found else torch.zeros(0, SIDE * SIDE, device=device)
