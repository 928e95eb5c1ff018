"""One phase: freeze, loss, gradients, average over ranks, optimiser; and what is remembered of it.

Nothing here waits for the device. `captured` records a phase as a CUDA graph and replays it; the
eager `PhaseStep.run` is the reference, and both give the same losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from cxrtut.engine.distributed import Ranks
from cxrtut.engine.precision import Precision
from cxrtut.engine.task import Batch, Phase, Task, check_phase

WARM_UP = 3  # eager runs of a phase before it is recorded


class NonFiniteLoss(ArithmeticError):
    """A loss was NaN or infinite; says in which phase and at which step."""


@dataclass
class Tally:
    """Sums of a phase's terms since the last report, and the first step with a non-finite loss
    (-1: none), all on the device.
    """

    sums: dict[str, Tensor]
    first_bad: Tensor
    count: int = 0


@contextmanager
def as_before(task: Task) -> Iterator[None]:
    """Afterwards every parameter is as frozen or free as it was."""
    parameters = [p for network in task.networks.values() for p in network.parameters()]
    free = [p.requires_grad for p in parameters]
    try:
        yield
    finally:
        for parameter, was_free in zip(parameters, free, strict=True):
            parameter.requires_grad_(was_free)


class PhaseStep:
    """Runs the phases of a task, and tallies their terms."""

    def __init__(
        self, task: Task, device: torch.device, precision: Precision, ranks: Ranks
    ) -> None:
        self.task, self.device, self.precision, self.ranks = task, device, precision, ranks
        self.tallies: dict[str, Tally] = {}
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.step = torch.zeros((), dtype=torch.int64, device=device)

    def freeze_all_but(self, updates: tuple[str, ...]) -> None:
        """Only the named networks get gradients."""
        for name, network in self.task.networks.items():
            network.requires_grad_(name in updates)

    def run(self, phase: Phase, batch: Batch) -> None:
        """One optimisation step of the phase's networks."""
        if phase.name not in self.scalers:
            check_phase(self.task, phase)
            self.scalers[phase.name] = self.precision.scaler()
        self.freeze_all_but(phase.updates)
        optimizers = [self.task.optimizers[name] for name in phase.updates]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast():
            loss, terms = phase.loss(batch)
        if loss.ndim:
            raise ValueError(
                f"phase {phase.name!r}: expected a scalar loss, got shape {tuple(loss.shape)}"
            )
        scaler = self.scalers[phase.name]
        scaler.scale(loss).backward()
        self.ranks.average_gradients(
            p for name in phase.updates for p in self.task.networks[name].parameters()
        )
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        self._remember(phase.name, loss.detach(), terms)

    def _remember(self, name: str, loss: Tensor, terms: Any) -> None:
        values = {"loss": loss, **{key: value.detach() for key, value in terms.items()}}
        if name not in self.tallies:
            sums = {key: torch.zeros((), device=self.device) for key in values}
            self.tallies[name] = Tally(sums, torch.full_like(self.step, -1))
        tally = self.tallies[name]
        for key, value in values.items():
            tally.sums[key].add_(value.float())
        bad = ~torch.isfinite(loss) & (tally.first_bad < 0)
        tally.first_bad.copy_(torch.where(bad, self.step, tally.first_bad))

    def read(self) -> dict[str, float]:
        """Means since the last call, of all terms of the phases that have run: the one place that
        waits for the device.

        Raises:
            NonFiniteLoss: on every rank, if a loss was not finite on any of them.
        """
        if not self.tallies:
            return {}
        names = [(name, key) for name, tally in self.tallies.items() for key in tally.sums]
        bad = torch.stack([tally.first_bad for tally in self.tallies.values()])
        sums = torch.stack([self.tallies[name].sums[key] for name, key in names])
        flat = self.ranks.sum(torch.cat([sums.double(), (bad >= 0).double()])).tolist()
        n = len(names)
        if any(flat[n:]):
            pairs = zip(bad.tolist(), self.tallies, strict=True)
            firsts = sorted((first, name) for first, name in pairs if first >= 0)
            where = "in another process"
            if firsts:
                where = f"in phase {firsts[0][1]!r} at step {firsts[0][0] + 1}"
            raise NonFiniteLoss(
                f"a loss is not finite, first {where}; the last checkpoint is from before. Try a "
                "smaller learning rate, or precision float32"
            )
        means = {
            f"{name}/{key}": flat[i] / (self.ranks.size * self.tallies[name].count)
            for i, (name, key) in enumerate(names)
            if self.tallies[name].count
        }
        for tally in self.tallies.values():
            tally.count = 0
            for value in tally.sums.values():
                value.zero_()
        return means


class Captured:
    """The phases of a step as CUDA graphs: no kernel is launched one by one any more.

    Small networks at small batches are bound by launches. A phase is run eagerly `WARM_UP` times,
    then recorded once and replayed ever after, on one batch in fixed memory. What a phase does must
    not depend on values: no branch, no shape that changes.
    """

    def __init__(self, steps: PhaseStep) -> None:
        """
        Raises:
            ValueError: in float16, whose scaled gradients are read back from the device.
        """
        if steps.precision.dtype is torch.float16:
            raise ValueError("capture: expected float32 or bfloat16, got float16")
        self.steps = steps
        self.stream = torch.cuda.Stream(steps.device)
        self.batch = FixedBatch()
        self.graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self.runs: dict[str, int] = {}
        for optimizer in steps.task.optimizers.values():
            for group in optimizer.param_groups:
                group["capturable"] = True
                group["lr"] = torch.tensor(float(group["lr"]), device=steps.device)
            for state in optimizer.state.values():
                state["step"] = state["step"].to(steps.device)

    def run(self, phase: Phase, batch: Batch) -> None:
        """As `PhaseStep.run`."""
        batch = self.batch.fill(batch)
        graph = self.graphs.get(phase.name)
        if graph is not None:
            graph.replay()
            return
        self.runs[phase.name] = self.runs.get(phase.name, 0) + 1
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            if self.runs[phase.name] <= WARM_UP:
                self.steps.run(phase, batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        if self.runs[phase.name] == WARM_UP:
            self._record(phase, batch)

    def _record(self, phase: Phase, batch: Batch) -> None:
        for name in phase.updates:
            self.steps.task.optimizers[name].zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.steps.run(phase, batch)
        self.graphs[phase.name] = graph


class FixedBatch:
    """A batch that stays where it is in memory while others pass through it."""

    def __init__(self) -> None:
        self.batch: Batch = None
        self.held: dict[str, Tensor] = {}

    def fill(self, batch: Batch) -> Batch:
        """The fixed batch with the content of this one. The phases of a step share their images, so
        only what is not here yet is copied; a tensor must not be changed after it was given.

        Raises:
            ValueError: a shape differs from that of the first batch.
        """
        tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
        tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
        if self.batch is None:
            self.batch = replace(batch, **{k: v.clone() for k, v in tensors.items()})
        for name, tensor in tensors.items():
            if tensor is not self.held.get(name):
                fixed = getattr(self.batch, name)
                if fixed.shape != tensor.shape:
                    raise ValueError(
                        f"{name}: expected {tuple(fixed.shape)} as in the batch before, got "
                        f"{tuple(tensor.shape)}"
                    )
                fixed.copy_(tensor)
                self.held[name] = tensor
        return self.batch


def not_captured(optimizer: torch.optim.Optimizer) -> None:
    """Brings an optimiser back to eager use: its rates and counts of steps as a CPU keeps them."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].cpu()
