"""What the loop trains: a task is networks, their optimisers, and the phases of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Terms = Mapping[str, Tensor]
"""Named scalars of a loss, for the report; they stay on the device until then."""

Batch = Any
"""The engine never looks inside a batch. It is a frozen dataclass of tensors, of other such batches
(one of each domain), or None, with a field `uniforms`; see `cxrtut.data.sample.Batch`."""


@dataclass(frozen=True)
class Phase:
    """One optimisation step of some of the networks, while all the others are frozen.

    Attributes:
        name: such as "D". Phases of one name are one computation: with CUDA graphs the first
            becomes the recording of all.
        updates: keys of the networks that move. All others get no gradients, nor does a parameter
            that did not require any when training began.
        loss: a batch to the scalar to minimise and the terms to report.
        eval_mode: keys of networks that are in evaluation mode meanwhile: no dropout, batch norm
            with its running statistics, which stay what they are. A network that a paper calls
            frozen, or unchanged, is named here: without gradients alone, its batch norms would
            still follow the data.
        max_norm: gradients of everything that moves are scaled down together to this norm at most.
    """

    name: str
    updates: tuple[str, ...]
    loss: Callable[[Batch], tuple[Tensor, Terms]]
    eval_mode: tuple[str, ...] = ()
    max_norm: float | None = None


@runtime_checkable
class Task(Protocol):
    """What can be trained.

    Attributes:
        networks: all of them, by name. State without parameters that belongs to the run (a pool of
            images, a reference) is a network without an optimiser: checkpoints hold it.
        optimizers: `optimizers[k]` owns exactly the parameters of `networks[k]`.
        n_uniforms: how many random numbers an image gets in each phase (`Batch.uniforms`).
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    n_uniforms: int

    def phases(self, step: int, epoch: int) -> Iterable[Phase]:
        """The phases of one step, in order. A step is one batch: five steps of a critic are five
        batches. The alternation of a paper is written here, in plain lines of `step` and `epoch`.
        """
        ...


@runtime_checkable
class Scheduled(Protocol):
    """A task whose learning rates change with the step."""

    def schedule(self, step: int) -> Mapping[str, float]:
        """The factor of the learning rate of each optimiser at a step; one that is not named keeps
        its own. A pure function: a run that is resumed with another schedule is refused.
        """
        ...


@runtime_checkable
class Data(Protocol):
    """Where batches come from, as a pure function: nothing has to be saved to resume."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in one pass over the data."""
        ...

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        start: int,
        device: torch.device,
        rank: int,
        ranks: int,
    ) -> Iterator[Batch]:
        """The batches of steps `start`, `start + 1`, ... without end; each rank gets its share of
        `batch_size // ranks` images.
        """
        ...


@dataclass(frozen=True)
class Report:
    """What happened since the report before. Numbers only: a callback never sees a network.

    Attributes:
        step: steps done so far, of `steps`.
        epoch: passes over the data begun before this one.
        terms: "phase/term" -> mean since the report before.
        seconds: since the run (or its resumption) began.
        images_per_second: images of steps, each counted once.
        memory: peak of allocated memory on the GPU, in bytes; None on a CPU.
        validation: what was measured on a held-out split after this step; empty where nothing was.
    """

    step: int
    steps: int
    epoch: int
    terms: dict[str, float]
    seconds: float
    images_per_second: float
    memory: int | None
    validation: Mapping[str, float] = field(default_factory=dict)


def check_task(task: Task) -> None:
    """Raises ValueError where an optimiser does not own exactly its network's parameters."""
    for name in task.optimizers:
        if name not in task.networks:
            known = ", ".join(task.networks)
            raise ValueError(f"optimizers: expected keys among the networks {known}, got {name!r}")
    for name, optimizer in task.optimizers.items():
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        expected = {id(p) for p in task.networks[name].parameters()}
        if owned != expected:
            raise ValueError(
                f"optimizers[{name!r}]: expected exactly the {len(expected)} parameters of the "
                f"network, got {len(owned & expected)} of them and {len(owned - expected)} others"
            )


def check_phase(task: Task, phase: Phase) -> None:
    """Raises ValueError where a phase updates what has no network or no optimiser, keeps a network
    in evaluation mode that is not there, or clips at a norm that is not positive.
    """
    for name in phase.updates:
        if name not in task.networks or name not in task.optimizers:
            raise ValueError(
                f"phase {phase.name!r} updates {name!r}: expected a network with an optimiser, "
                f"there are {', '.join(task.optimizers)}"
            )
    for name in phase.eval_mode:
        if name not in task.networks:
            raise ValueError(
                f"phase {phase.name!r}, eval_mode: expected one of {', '.join(task.networks)}, "
                f"got {name!r}"
            )
    if phase.max_norm is not None and not phase.max_norm > 0:
        raise ValueError(
            f"phase {phase.name!r}, max_norm: expected a norm above 0, got {phase.max_norm}"
        )
