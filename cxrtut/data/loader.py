"""Batches for training, without end: a source, the rows of an epoch in their order, augmentation.

Everything is a pure function of (seed, step), so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from cxrtut.data.augment import Augmentation, augment
from cxrtut.data.batches import batches
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import StoreView


@dataclass(frozen=True)
class Loader:
    """Training batches of a source.

    Attributes:
        source: an array store, or one that is resident on the device already.
        order: (seed, epoch) -> rows of one pass, the same number in each epoch. A last batch that
            is not full is left out.
        augmentation: how images are changed, if they are.
    """

    source: ArrayStore | StoreView | DeviceStore
    order: Callable[[int, int], Int[Tensor, " n"]]
    augmentation: Augmentation | None = None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in one pass."""
        return len(self.order(0, 0)) // batch_size

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        ranks: int = 1,
    ) -> Iterator[Batch]:
        """The batches of steps `start`, `start + 1`, ...: of each, this rank's share.

        Args:
            batch_size: of all ranks together, a multiple of `ranks`.

        Raises:
            ValueError: an epoch is shorter than a batch, or a batch cannot be shared equally.
        """
        if batch_size % ranks or not 0 <= rank < ranks:
            raise ValueError(
                f"expected a rank below {ranks} and a batch_size that is a multiple of it, "
                f"got rank {rank} and batch_size {batch_size}"
            )
        per_epoch = self.steps_per_epoch(batch_size)
        if per_epoch < 1:
            raise ValueError(
                f"expected an epoch of at least one batch of {batch_size}, got "
                f"{len(self.order(0, 0))} images"
            )
        return self._endless(batch_size, per_epoch, seed, start, torch.device(device), rank, ranks)

    def _endless(
        self,
        batch_size: int,
        per_epoch: int,
        seed: int,
        start: int,
        device: torch.device,
        rank: int,
        ranks: int,
    ) -> Iterator[Batch]:
        share = batch_size // ranks
        mine = slice(rank * share, (rank + 1) * share)
        step = start
        while True:
            rows = self.order(seed, step // per_epoch)[: per_epoch * batch_size]
            rows = rows.view(per_epoch, batch_size)[:, mine].flatten()
            for batch in batches(self.source, rows, share, device, start=step % per_epoch):
                if self.augmentation is not None:
                    drawn = self.augmentation.draw(batch_size, seed=seed, step=step, device=device)
                    batch = augment(batch, drawn[mine])
                yield batch
                step += 1
