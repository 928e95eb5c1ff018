"""Batches with target domains, and what a phase moves, for the tests of systems that translate."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cxrtut.data.sample import Batch
from cxrtut.engine.loop import train
from cxrtut.engine.task import Phase, Task


def domain_batch(n: int = 4, size: int = 16, channels: int = 1, seed: int = 0) -> Batch:
    """Noise in [-1, 1]; healthy and diseased in turn, targets healthy, healthy, diseased, ..."""
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        image=torch.rand(n, channels, size, size, generator=generator) * 2 - 1,
        label_vector=(torch.arange(n) % 2).float()[:, None],
        target_vector=(torch.arange(n) // 2 % 2).float()[:, None],
        boxes=torch.zeros(n, 1, 4), box_label=torch.full((n, 1), -1), index=torch.arange(n),
        uniforms=torch.rand(n, 1, generator=generator),
    )  # fmt: skip


def domains(labels: Tensor) -> Tensor:
    """(1, 0) or (0, 1) for one label an image."""
    return torch.stack((1 - labels[:, 0], labels[:, 0]), 1)


class Fixed:
    """The same batch at every step."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def steps_per_epoch(self, batch_size: int) -> int:
        return 1

    def batches(self, **asked: Any) -> Iterator[Batch]:
        while True:
            yield self.batch


class OnePhase:
    """A task of which one phase is run in every step."""

    def __init__(self, task: Task, name: str) -> None:
        self.networks, self.optimizers = task.networks, task.optimizers
        self.n_uniforms, self.task, self.name = task.n_uniforms, task, name

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        far = range(1000)
        every = (phase for later in far for phase in self.task.phases(later, 0))
        yield next(phase for phase in every if phase.name == self.name)


def moved_by(task: Task, name: str, batch: Batch) -> set[str]:
    """The networks whose parameters one step of a phase changes."""

    def state() -> dict[str, list[Tensor]]:
        return {
            key: [p.detach().clone() for p in network.parameters()]
            for key, network in task.networks.items()
        }

    before = state()
    train(OnePhase(task, name), Fixed(batch), steps=1, batch_size=len(batch))
    return {
        key
        for key, now in state().items()
        if not all(torch.equal(a, b) for a, b in zip(before[key], now, strict=True))
    }
