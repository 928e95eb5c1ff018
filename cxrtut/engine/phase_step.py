"""One phase: freeze, loss, gradients, average over ranks, optimiser; and what is remembered of it.

Nothing here waits for the device. `CudaGraphRunner` records a phase as a CUDA graph and replays it;
the eager `PhaseStep.run` is the reference, and both give the same losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace

import torch
from torch import Tensor, nn

from cxrtut.engine.distributed import Ranks
from cxrtut.engine.precision import Precision
from cxrtut.engine.task import Batch, Phase, Task, Terms, check_phase
from cxrtut.evaluation_mode import evaluating

WARM_UP = 3  # eager runs of a phase before it is recorded


class NonFiniteLoss(ArithmeticError):
    """A loss was NaN or infinite; says in which phase and at which step."""


@dataclass
class Meter:
    """What a phase has done since the last report.

    Attributes:
        names: of its terms, the loss first.
        sums: of each term, and last the number of runs before the first non-finite loss; one
            tensor on the device, so that a run costs one addition.
        steps: in which the phase ran, once for each run; known without asking the device.
    """

    names: tuple[str, ...]
    sums: Tensor
    steps: list[int] = field(default_factory=list)


@contextmanager
def restore_requires_grad(task: Task) -> Iterator[None]:
    """Afterwards every parameter is as frozen or free as it was."""
    parameters = [p for network in task.networks.values() for p in network.parameters()]
    free = [p.requires_grad for p in parameters]
    try:
        yield
    finally:
        for parameter, was_free in zip(parameters, free, strict=True):
            parameter.requires_grad_(was_free)


class PhaseStep:
    """Runs the phases of a task, and meters their terms."""

    def __init__(
        self, task: Task, device: torch.device, precision: Precision, ranks: Ranks
    ) -> None:
        self.task, self.device, self.precision, self.ranks = task, device, precision, ranks
        self.meters: dict[str, Meter] = {}
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.parameters = {k: list(n.parameters()) for k, n in task.networks.items()}
        self.trainable = {k: [p for p in v if p.requires_grad] for k, v in self.parameters.items()}
        self._free: tuple[str, ...] | None = None

    def freeze_all_but(self, updates: tuple[str, ...]) -> None:
        """Only the named networks get gradients; of them, what was free when training began."""
        if updates == self._free:
            return
        for name, parameters in self.trainable.items():
            for parameter in parameters:
                parameter.requires_grad = name in updates
        self._free = updates

    def run(self, phase: Phase, batch: Batch) -> None:
        """One optimisation step of the phase's networks."""
        if phase.name not in self.scalers:
            check_phase(self.task, phase)
            self.scalers[phase.name] = self.precision.scaler()
        self.freeze_all_but(phase.updates)
        optimizers = [self.task.optimizers[name] for name in phase.updates]
        moving = [p for name in phase.updates for p in self.parameters[name]]
        for parameter in moving:
            parameter.grad = None
        with evaluating(*[self.task.networks[name] for name in phase.eval_mode]):
            with self.precision.autocast():
                loss, terms = phase.loss(batch)
            if loss.ndim:
                raise ValueError(
                    f"phase {phase.name!r}: expected a scalar loss, got shape {tuple(loss.shape)}"
                )
            scaler = self.scalers[phase.name]
            scaler.scale(loss).backward()
        self.ranks.average_gradients(moving)
        if phase.max_norm is not None:
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(moving, phase.max_norm, foreach=True)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        self._accumulate(phase.name, loss.detach(), terms)

    def _accumulate(self, name: str, loss: Tensor, terms: Terms) -> None:
        names = ("loss", *terms)
        meter = self.meters.get(name)
        if meter is None:
            sums = torch.zeros(len(names) + 1, device=self.device)
            meter = self.meters[name] = Meter(names, sums)
        elif meter.names != names:
            raise ValueError(
                f"phase {name!r}: expected the terms {', '.join(meter.names)} as before, got "
                f"{', '.join(names)}"
            )
        values = [loss, *(value.detach() for value in terms.values())]
        values = [value.to(self.device, torch.float32) for value in values]
        total = meter.sums[0] + values[0]  # once it is not finite, it stays so
        meter.sums.add_(torch.stack([*values, (total - total == 0).float()]))

    def read(self) -> dict[str, float]:
        """Means since the last call, of all terms of the phases that have run: the one place that
        waits for the device.

        Raises:
            NonFiniteLoss: on every rank, if a loss was not finite on any of them.
        """
        if not self.meters:
            return {}
        sums = torch.cat([meter.sums for meter in self.meters.values()])
        lengths = [len(meter.sums) for meter in self.meters.values()]
        parts = self.ranks.sum(sums.double()).cpu().split(lengths)
        means: dict[str, float] = {}
        firsts: list[tuple[int, str]] = []
        bad = False
        for (phase, meter), part in zip(self.meters.items(), parts, strict=True):
            *totals, finite = part.tolist()
            runs = self.ranks.size * len(meter.steps)
            if finite < runs:
                bad = True
                here = int(meter.sums[-1])
                firsts += [(step, phase) for step in meter.steps[here : here + 1]]
            elif runs:
                pairs = zip(meter.names, totals, strict=True)
                means |= {f"{phase}/{name}": total / runs for name, total in pairs}
        if bad:
            where = "in another process"
            if firsts:
                step, phase = min(firsts, key=lambda first: first[0])
                where = f"in phase {phase!r} at step {step + 1}"
            raise NonFiniteLoss(
                f"a loss is not finite, first {where}; the last checkpoint is from before. Try a "
                "smaller learning rate, or precision float32"
            )
        for meter in self.meters.values():
            meter.steps.clear()
            meter.sums.zero_()
        return means


class CudaGraphRunner:
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
            raise ValueError("cuda_graphs: expected float32 or bfloat16, got float16")
        self.steps = steps
        self.stream = torch.cuda.Stream(steps.device)
        self.batch = StaticBatch()
        self.graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self.recorded: dict[str, Phase] = {}
        self.runs: dict[str, int] = {}
        for optimizer in steps.task.optimizers.values():
            for group in optimizer.param_groups:
                group["capturable"] = True
                group["lr"] = torch.tensor(float(group["lr"]), device=steps.device)
            for state in optimizer.state.values():
                state["step"] = state["step"].to(steps.device)

    def run(self, phase: Phase, batch: Batch) -> None:
        """As `PhaseStep.run`.

        Raises:
            ValueError: the batch, or a phase of a name known before, is not what was recorded.
        """
        batch = self.batch.fill(batch)
        check_same_phase(self.recorded.setdefault(phase.name, phase), phase)
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


def check_same_phase(first: Phase, phase: Phase) -> None:
    """Raises ValueError where two phases of one name move, freeze or clip differently: a recording
    of the first would be replayed for both.
    """
    for name in ("updates", "eval_mode", "max_norm"):
        old, new = getattr(first, name), getattr(phase, name)
        if old != new:
            raise ValueError(
                f"phase {phase.name!r}, {name}: expected {old!r} as in the recording of this "
                f"name, got {new!r}; give another name to what is another computation"
            )


class StaticBatch:
    """A batch that stays where it is in memory while others pass through it.

    A batch is tensors, None, numbers and strings that stay what they are, and batches of these:
    dataclasses, mappings, tuples and lists, however deep.
    """

    def __init__(self) -> None:
        self.batch: Batch = None
        self.held: dict[str, Tensor] = {}

    def fill(self, batch: Batch) -> Batch:
        """The static batch with the content of this one. The phases of a step share their images,
        so only what is not here yet is copied; a tensor must not be changed after it was given.

        Raises:
            ValueError: something differs from the first batch that a recording cannot follow: a
                shape or type of a tensor, a number, what is there and what is None.
            TypeError: something in it is none of these, so that nobody could say if it changed.
        """
        if self.batch is None:
            self.batch = self._cloned(batch, "batch")
        self._fill(self.batch, batch, "")
        return self.batch

    def _cloned(self, value: Batch, name: str) -> Batch:
        if isinstance(value, Tensor):
            return value.clone()
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if is_dataclass(value) and not isinstance(value, type):
            inside = {f.name: self._cloned(getattr(value, f.name), f.name) for f in fields(value)}
            return replace(value, **inside)
        if isinstance(value, Mapping):
            return {key: self._cloned(inside, f"{name}[{key!r}]") for key, inside in value.items()}
        if isinstance(value, (tuple, list)):
            items = [self._cloned(v, f"{name}[{i}]") for i, v in enumerate(value)]
            return value._make(items) if hasattr(value, "_make") else type(value)(items)
        raise TypeError(
            f"{name}: expected tensors, numbers, strings, None, or dataclasses, mappings, tuples "
            f"and lists of them, got {type(value).__name__}: a CUDA graph cannot replay it"
        )

    def _fill(self, static: Batch, value: Batch, name: str) -> None:
        if isinstance(static, Tensor) and isinstance(value, Tensor):
            if value is self.held.get(name):
                return
            if (static.shape, static.dtype) != (value.shape, value.dtype):
                raise ValueError(
                    f"{name}: expected {static.dtype} {tuple(static.shape)} as in the batch "
                    f"before, got {value.dtype} {tuple(value.shape)}"
                )
            static.copy_(value, non_blocking=True)
            self.held[name] = value
        elif type(static) is not type(value) and not (
            isinstance(static, Mapping) and isinstance(value, Mapping)
        ):
            raise ValueError(
                f"{name}: expected {type(static).__name__} as in the batch before, got "
                f"{type(value).__name__}"
            )
        elif is_dataclass(static):
            for f in fields(static):
                inner = f"{name}.{f.name}" if name else f.name
                self._fill(getattr(static, f.name), getattr(value, f.name), inner)
        elif isinstance(static, (Mapping, tuple, list)):
            _check_alike(static, value, name)
            keys = list(static) if isinstance(static, Mapping) else range(len(static))
            for key in keys:
                self._fill(static[key], value[key], f"{name}[{key!r}]")
        elif static != value:
            raise ValueError(f"{name}: expected {static!r} as in the batch before, got {value!r}")


def _check_alike(static: Batch, value: Batch, name: str) -> None:
    """Raises ValueError where a mapping has other keys, or a sequence another length."""
    if isinstance(static, Mapping):
        old, new = sorted(map(str, static)), sorted(map(str, value))
    else:
        old, new = [str(len(static))], [str(len(value))]
    if old != new:
        raise ValueError(f"{name}: expected {old} as in the batch before, got {new}")


def reset_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Brings an optimiser back to eager use: its rates and counts of steps as a CPU keeps them."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].cpu()
