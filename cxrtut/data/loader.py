"""Batches for training, without end: a source, the rows of an epoch in their order, augmentation.

Everything is a pure function of (seed, step), so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.data.augment import Augmentation, augment
from cxrtut.data.batches import batches
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import StoreView
from cxrtut.randomness import generator


@dataclass(frozen=True)
class Loader:
    """Training batches of a source.

    Attributes:
        source: an array store, or one that is resident on the device already.
        order: (seed, epoch) -> rows of one pass, the same number in each epoch. A last batch that
            is not full is left out.
        augmentation: how images are changed, if they are.
        with_targets: each batch has a `target_vector`, its label vectors in another order: what
            StarGAN takes as target domains. The order is drawn over the whole batch, of all ranks
            together, so that several ranks equal one.
    """

    source: ArrayStore | StoreView | DeviceStore
    order: Callable[[int, int], Int[Tensor, " n"]]
    augmentation: Augmentation | None = None
    with_targets: bool = False

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
            ValueError: an epoch is shorter than a batch, or a batch cannot be shared equally; or a
                share would cut a pair of a balanced order apart.
        """
        if batch_size % ranks or not 0 <= rank < ranks:
            raise ValueError(
                f"expected a rank below {ranks} and a batch_size that is a multiple of it, "
                f"got rank {rank} and batch_size {batch_size}"
            )
        group = getattr(self.order, "group", 1)
        if batch_size // ranks % group:
            raise ValueError(
                f"batch_size: expected a multiple of {group} for each of {ranks} processes, since "
                f"the order has its images in groups of {group}, got {batch_size}"
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
            by_step = rows.view(per_epoch, batch_size)
            rows = by_step[:, mine].flatten()
            for batch in batches(self.source, rows, share, device, start=step % per_epoch):
                if self.with_targets:
                    order = torch.randperm(batch_size, generator=generator("targets", seed, step))
                    chosen = by_step[step % per_epoch][order[mine]]
                    batch = replace(batch, target_vector=self._labels(chosen, device))
                if self.augmentation is not None:
                    drawn = self.augmentation.draw(batch_size, seed=seed, step=step, device=device)
                    batch = augment(batch, drawn[mine])
                yield batch
                step += 1

    def _labels(self, rows: Int[Tensor, " n"], device: torch.device) -> Float[Tensor, "n K"]:
        if isinstance(self.source, DeviceStore):
            return self.source.label_vector[rows.to(self.source.device)]
        return torch.from_numpy(self.source.labels[rows.numpy()]).float().to(device)
