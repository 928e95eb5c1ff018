"""The training loop of this book without what makes it survive: the same computation in a few lines
to read. `engine.loop.train` adds checkpoints, schedules, precision, several devices and reports.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from cxrtut.engine.task import Data, Task
from cxrtut.randomness import uniforms

CPU = torch.device("cpu")


def plain_loop(task: Task, data: Data, *, steps: int, batch_size: int, seed: int = 0) -> None:
    """Trains a task in place on a CPU, up to rounding as `engine.loop.train` does.

    Args:
        task: networks, their optimisers, and the phases of a step.
        data: batches as a pure function of (seed, step).
        steps: one batch each.
        batch_size: images of a step.
        seed: of the order of the data and of the random numbers of each phase.
    """
    per_epoch = data.steps_per_epoch(batch_size)
    batches = data.batches(batch_size=batch_size, seed=seed, start=0, device=CPU, rank=0, ranks=1)
    for step in range(steps):
        batch = next(batches)
        for turn, phase in enumerate(task.phases(step, step // per_epoch)):
            for name, network in task.networks.items():
                network.requires_grad_(name in phase.updates)  # the others are frozen
            numbers = uniforms(batch_size, task.n_uniforms, seed=seed, step=step, position=turn)
            loss, _ = phase.loss(replace(batch, uniforms=numbers))
            for name in phase.updates:
                task.optimizers[name].zero_grad()
            loss.backward()
            for name in phase.updates:
                task.optimizers[name].step()
