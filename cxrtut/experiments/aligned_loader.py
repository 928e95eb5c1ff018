"""Training batches whose images are aligned first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch
from cxrtut.nn.spatial_transformer import align


@dataclass(frozen=True)
class AlignedLoader:
    """Batches of another loader, their images aligned.

    Boxes, masks and healthy twins are left out: they belong to the images as they were.
    """

    loader: Loader
    aligner: nn.Module

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in one pass, as of the other loader."""
        return self.loader.steps_per_epoch(batch_size)

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
        """The batches of the other loader, aligned; see `Loader.batches`."""
        for batch in self.loader.batches(
            batch_size=batch_size, seed=seed, start=start, device=device, rank=rank, ranks=ranks
        ):
            image, _ = align(self.aligner, batch.image)
            none = batch.boxes[:, :0], batch.box_label[:, :0]
            yield replace(
                batch, image=image, boxes=none[0], box_label=none[1], mask=None, healthy=None
            )
