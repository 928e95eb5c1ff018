"""The only training loop: phases, over batches, until the steps are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrtut.engine import checkpoint
from cxrtut.engine.distributed import BatchSizeError, Ranks, own_buffers
from cxrtut.engine.initial_weights import begin_from as load_initial
from cxrtut.engine.performance import performance_settings, set_fused
from cxrtut.engine.phase_step import (
    CudaGraphRunner,
    PhaseStep,
    reset_capturable,
    restore_requires_grad,
)
from cxrtut.engine.precision import Precision
from cxrtut.engine.stopping import Interrupted, StopRequest, graceful_interrupt
from cxrtut.engine.task import Data, Report, Scheduled, Task, check_task
from cxrtut.engine.validation import Measured, Validation
from cxrtut.evaluation_mode import evaluating
from cxrtut.randomness import generator, uniforms

CPU = torch.device("cpu")
_ARITHMETIC = ("params", "capturable", "fused", "foreach", "differentiable", "initial_lr")
SCHEDULE_SAMPLES = 33  # steps of a run at which a checkpoint remembers its schedule


def train(
    task: Task,
    data: Data,
    *,
    steps: int,
    batch_size: int,
    seed: int = 0,
    device: torch.device | str = CPU,
    ranks: Ranks = Ranks(),  # noqa: B008, a frozen value
    precision: str = "auto",
    validate: Validation | None = None,
    begin_from: Mapping[str, Path] | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool = False,
    configuration: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callable[[Report], None]] = (),
    report_every: int = 50,
    cuda_graphs: bool = False,
) -> list[Report]:
    """Trains a task in place.

    Args:
        task: networks on `device`, their optimisers, the phases of a step, and, if it has one, its
            schedule of learning rates.
        data: batches as a pure function of (seed, step).
        steps: of the whole run, a batch each; resumed at step s, the rest is done.
        batch_size: images of a step, of all ranks together.
        seed: of the order, the augmentation, the uniform numbers and dropout.
        device: where the networks are: a `torch.device` or its name, the CPU by default.
        ranks: this process among several, from `distributed.init_distributed`.
        precision: `auto`, `float32`, `bfloat16` or `float16`; see `Precision.of`.
        validate: what is measured on held-out images meanwhile, and what is decided on it.
        begin_from: files with the initial weights of some networks; see `initial_weights`. A
            checkpoint that is resumed counts more, but it must have begun from the same files.
        checkpoint_dir: where checkpoints are; None keeps none.
        checkpoint_every: steps between two of them; the last step always has one.
        resume: go on from the newest checkpoint; with none there, begin.
        configuration: what must be the same on resume, besides what is given here: numbers,
            strings, lists, mappings.
        callbacks: given a `Report` every `report_every` steps and at the end, on rank 0.
        cuda_graphs: record each phase as a CUDA graph and replay it.

    Returns:
        The reports.

    Raises:
        ValueError: arguments or a task that cannot work.
        WeightsError: a file of `begin_from` that does not fit.
        CheckpointError: the configuration differs from that of the checkpoint; or `checkpoint_dir`
            holds a run that is not to be resumed; or the ranks do not find the same step; or no
            checkpoint can be written (a full disk), and which is the last good one.
        NonFiniteLoss: a loss was NaN or infinite; no checkpoint has such weights.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written, the message says how to go on.
    """
    device = torch.device(device)
    _check(
        task, data, device, ranks, steps, batch_size, report_every, checkpoint_every, cuda_graphs
    )
    chosen = Precision.of(precision, device)
    settings = {
        "steps": steps, "batch_size": batch_size, "seed": seed, "precision": chosen.name,
        "processes": ranks.size, "schedule": _schedule_at(task, _some_steps(steps)),
        "begin_from": load_initial(task.networks, begin_from or {}),
        "validate": None if validate is None else validate.settings,
        "optimizers": _hyperparameters(task),
    }  # fmt: skip
    reserved = sorted(set(settings) & set(configuration or {}))
    if reserved:
        raise ValueError(f"configuration: {', '.join(reserved)} is the loop's own")
    settings |= dict(configuration or {})
    rates = _initial_rates(task)
    # The numbers of torch's own generators (dropout) belong to the run, and the caller keeps his.
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=gpus),
        performance_settings(device, task.networks, task.optimizers),
        restore_requires_grad(task),
        _restore_rates(task, rates),
        graceful_interrupt() as stop,
    ):
        torch.manual_seed(generator("run", seed, ranks.rank).initial_seed())
        run = _Run(task, device, ranks, chosen, settings, validate)
        start = run.begin(checkpoint_dir, resume)
        runner = CudaGraphRunner(run.phase_step) if cuda_graphs else run.phase_step
        schedule = _schedule_of(task)
        batches = data.batches(
            batch_size=batch_size, seed=seed, start=start, device=device, rank=ranks.rank,
            ranks=ranks.size,
        )  # fmt: skip
        per_epoch, began, reported = data.steps_per_epoch(batch_size), time.perf_counter(), start
        last = began
        history: list[Report] = []
        local = ranks.share(batch_size)
        for step in range(start, steps):
            batch = next(batches)
            _set_rates(task, rates, schedule(step), run.plateau_factor)
            for position, phase in enumerate(task.phases(step, step // per_epoch)):
                numbers = uniforms(
                    batch_size, task.n_uniforms, seed=seed, step=step, position=position
                )[local]
                runner.run(phase, replace(batch, uniforms=_to_device(numbers, device)))
                run.phase_step.meters[phase.name].steps.append(step)
            ranks.average_batch_norms(task.networks.values())
            done = step + 1
            stopping = _stopping(stop, ranks, device, done, report_every)
            saves = checkpoint_dir is not None and (
                done % checkpoint_every == 0 or done == steps or stopping
            )
            validates = validate is not None and (done % validate.every == 0 or done == steps)
            if done % report_every == 0 or done == steps or saves or stopping or validates:
                terms = run.phase_step.read()  # raises before a poisoned checkpoint is written
                now = time.perf_counter()
                speed = (done - reported) * batch_size / max(now - last, 1e-9)
                numbers_of = run.validated(done, checkpoint_dir) if validates else {}
                report = Report(
                    step=done, steps=steps, epoch=step // per_epoch, terms=terms,
                    seconds=now - began, images_per_second=speed, memory=_memory(device),
                    validation=numbers_of,
                )  # fmt: skip
                last, reported = time.perf_counter(), done
                history.append(report)
                if ranks.first:
                    for callback in callbacks:
                        callback(report)
            if saves and checkpoint_dir is not None:
                run.save(checkpoint_dir, done)
            if stopping and done < steps:
                raise Interrupted(_how_to_go_on(done, steps, checkpoint_dir))
    if ranks.any(stop.made, device):  # in the last step, too: what comes next was not wanted
        raise Interrupted(_how_to_go_on(steps, steps, checkpoint_dir))
    return history


class _Run:
    """What a checkpoint holds, and how it gets in and out of it."""

    def __init__(
        self,
        task: Task,
        device: torch.device,
        ranks: Ranks,
        precision: Precision,
        settings: Mapping[str, Any],
        validation: Validation | None,
    ) -> None:
        self.task, self.device, self.ranks, self.settings = task, device, ranks, dict(settings)
        self.phase_step = PhaseStep(task, device, precision, ranks)
        self.precision, self.validation = precision, validation
        self.measured: list[Measured] = []

    @property
    def plateau_factor(self) -> float:
        """What all learning rates are multiplied by after the validations so far."""
        return 1.0 if self.validation is None else self.validation.factor(self.measured)

    def begin(self, folder: Path | None, resume: bool) -> int:
        """The step to begin with: 0, or where the newest checkpoint ended. All ranks agree on it
        before anything is trained or written.
        """
        state: dict[str, Any] | None = None
        problem = ""
        try:
            if folder is not None and checkpoint.checkpoints(folder):
                if not resume:
                    raise checkpoint.CheckpointError(
                        f"{folder} holds the checkpoints of a run: resume=True (or --resume) "
                        "goes on, another folder (--out) begins"
                    )
                state = checkpoint.load(folder)
                saved = state["configuration"]
                known = [int(step) for step in saved.get("schedule", {})]
                wanted = self.settings | {"schedule": _schedule_at(self.task, known)}
                checkpoint.check_configuration(saved, wanted)
        except checkpoint.CheckpointError as error:
            problem = str(error)
        start = 0 if state is None else int(state["step"])
        begins = self.ranks.gather((start, problem))
        problems = [text for _, text in begins if text]
        if problems:
            raise checkpoint.CheckpointError(problem or f"another process: {problems[0]}")
        if len(set(begins)) > 1:
            found = ", ".join(f"{step} on rank {rank}" for rank, (step, _) in enumerate(begins))
            raise checkpoint.CheckpointError(
                f"expected checkpoints of one step on all ranks, found {found}; {folder} has to be "
                "a folder that all of them see"
            )
        if folder is not None and self.ranks.first:
            checkpoint.forget_best_after(folder, start)
        if state is not None:
            self.restore(state)
        self.ranks.broadcast_parameters(self.task.networks.values())
        for name, buffers in (state or {}).get("buffers", {}).items():
            self.task.networks[name].load_state_dict(buffers[self.ranks.rank], strict=False)
        return start

    def validated(self, step: int, folder: Path | None) -> dict[str, float]:
        """Measures on rank 0, remembers it on all; keeps the networks of the best step."""
        assert self.validation is not None
        numbers: dict[str, float] = {}
        if self.ranks.first:
            gpus = [self.device] if self.device.type == "cuda" else []
            networks = self.task.networks.values()
            with torch.random.fork_rng(devices=gpus), torch.no_grad(), evaluating(*networks):
                numbers = {k: float(v) for k, v in self.validation.measure().items()}
            self.validation.check(numbers)
        numbers = self.ranks.gather(numbers)[0]
        self.measured.append((step, numbers))
        is_best = self.validation.best_step(self.measured) == step
        if is_best and folder is not None:
            best = {k: n.state_dict() for k, n in self.task.networks.items()}
            state = {"step": step, "validation": numbers, "networks": best}
            self._write(checkpoint.save_best, folder, state)
        return numbers

    def save(self, folder: Path, step: int) -> None:
        generators = self.ranks.gather(self._generators())
        buffers = {}
        if self.ranks.size > 1:  # one process has them in its networks
            for name, network in self.task.networks.items():
                buffers[name] = self.ranks.gather(own_buffers(network))
        state = {
            "step": step,
            "configuration": self.settings,
            "networks": {k: n.state_dict() for k, n in self.task.networks.items()},
            "optimizers": {k: o.state_dict() for k, o in self.task.optimizers.items()},
            "scalers": {k: s.state_dict() for k, s in self.phase_step.scalers.items()},
            "generators": generators,
            "buffers": buffers,
            "validation": [[s, dict(numbers)] for s, numbers in self.measured],
        }
        self._write(checkpoint.save, folder, state)

    def _write(
        self, write: Callable[[Path, Mapping[str, Any]], Path], folder: Path, state: dict[str, Any]
    ) -> None:
        """Writes on rank 0. What goes wrong there (a full disk) ends all ranks, and none waits."""
        problem = ""
        if self.ranks.first:
            try:
                write(folder, state)
            except checkpoint.CheckpointError as error:
                problem = str(error)
        problem = self.ranks.gather(problem)[0]
        if problem:
            raise checkpoint.CheckpointError(problem)

    def restore(self, state: Mapping[str, Any]) -> None:
        for kind, targets in (
            ("networks", self.task.networks),
            ("optimizers", self.task.optimizers),
        ):
            if set(state[kind]) != set(targets):
                raise checkpoint.CheckpointError(
                    f"expected {kind} {sorted(targets)}, the checkpoint has {sorted(state[kind])}"
                )
            for name, target in targets.items():
                target.load_state_dict(state[kind][name])
        for optimizer in self.task.optimizers.values():
            reset_capturable(optimizer)
            set_fused(self.device, optimizer)
        for name, scaler_state in state["scalers"].items():
            self.phase_step.scalers[name] = self.precision.scaler()
            self.phase_step.scalers[name].load_state_dict(scaler_state)
        cpu, cuda = state["generators"][self.ranks.rank]
        torch.set_rng_state(cpu)
        if cuda is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(cuda, self.device)
        measured = [(int(step), numbers) for step, numbers in state.get("validation", [])]
        if self.validation is not None:
            # A run that goes on for longer had one more, at the end that is none now
            every, end = self.validation.every, self.settings["steps"]
            measured = [(step, n) for step, n in measured if step % every == 0 or step == end]
        self.measured = measured

    def _generators(self) -> list[Tensor | None]:
        on_cuda = self.device.type == "cuda"
        return [
            torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if on_cuda else None
        ]  # fmt: skip


def _check(
    task: Task,
    data: Data,
    device: torch.device,
    ranks: Ranks,
    steps: int,
    batch_size: int,
    report_every: int,
    checkpoint_every: int,
    cuda_graphs: bool,
) -> None:
    for name, value in (
        ("steps", steps), ("batch_size", batch_size), ("report_every", report_every),
        ("checkpoint_every", checkpoint_every),
    ):  # fmt: skip
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    ranks.share(batch_size)
    if data.steps_per_epoch(batch_size) < 1:
        there = data.steps_per_epoch(1)
        raise BatchSizeError(
            f"batch_size: expected at most the {there} images of an epoch, got {batch_size}"
        )
    if cuda_graphs and (device.type != "cuda" or ranks.size > 1):
        raise ValueError(
            f"cuda_graphs: expected one process on a CUDA device, got {ranks.size} on {device.type}"
        )
    check_task(task)
    for name, network in task.networks.items():
        for parameter in network.parameters():
            if parameter.device.type != device.type:
                raise ValueError(
                    f"networks[{name!r}]: expected on {device.type}, got {parameter.device.type}"
                )


def _initial_rates(task: Task) -> dict[str, list[float]]:
    """The learning rates that the optimisers have before the first step."""
    return {
        name: [float(group["lr"]) for group in optimizer.param_groups]
        for name, optimizer in task.optimizers.items()
    }


def _hyperparameters(task: Task) -> dict[str, dict[str, dict[str, Any]]]:
    """Learning rates, momenta, weight decay and the like of the optimisers: what decides how a run
    goes, unlike how its arithmetic is done.
    """
    return {
        name: {str(i): _numbers_of(group) for i, group in enumerate(optimizer.param_groups)}
        for name, optimizer in task.optimizers.items()
    }


def _numbers_of(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        {"lr": "learning_rate"}.get(key, key): list(value) if isinstance(value, tuple) else value
        for key, value in ((k, float(v) if isinstance(v, Tensor) else v) for k, v in group.items())
        if key not in _ARITHMETIC and isinstance(value, int | float | tuple)
    }


def _some_steps(steps: int) -> list[int]:
    """Steps of a run at which its schedule is remembered, the first and the last among them."""
    n = min(steps, SCHEDULE_SAMPLES)
    return sorted({round(i * (steps - 1) / max(n - 1, 1)) for i in range(n)})


def _schedule_of(task: Task) -> Callable[[int], Mapping[str, float]]:
    """Step to factors of the learning rates; none for a task without a schedule. Asked for once:
    to compare a task with a protocol takes longer than all else that the loop adds to a step.
    """
    return task.schedule if isinstance(task, Scheduled) else lambda step: {}


def _schedule_at(task: Task, steps: Sequence[int]) -> dict[str, dict[str, float]]:
    """The factors of a task's schedule at some steps; nothing for a task without one."""
    schedule = _schedule_of(task)
    return {str(step): {k: float(v) for k, v in schedule(step).items()} for step in steps}


@contextmanager
def _restore_rates(task: Task, rates: dict[str, list[float]]) -> Iterator[None]:
    """Afterwards the optimisers have the learning rates that they began with."""
    try:
        yield
    finally:
        _set_rates(task, rates, {}, 1.0)


def _set_rates(
    task: Task, rates: dict[str, list[float]], factors: Mapping[str, float], everywhere: float
) -> None:
    """The learning rates of a step: the initial ones, by the task's schedule and by a plateau."""
    for name in factors:
        if name not in rates:
            raise ValueError(f"schedule: expected one of {', '.join(rates)}, got {name!r}")
    for name, initial in rates.items():
        factor = factors.get(name, 1.0) * everywhere
        for group, rate in zip(task.optimizers[name].param_groups, initial, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor


def _to_device(numbers: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it."""
    if device.type != "cuda":
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)


def _stopping(stop: StopRequest, ranks: Ranks, device: torch.device, done: int, every: int) -> bool:
    """Whether to stop now. Several processes agree on it when they report, all at the same step."""
    if ranks.size == 1:
        return stop.made
    return done % every == 0 and ranks.any(stop.made, device)


def _memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _how_to_go_on(done: int, steps: int, folder: Path | None) -> str:
    if folder is None:
        return f"stopped after step {done} of {steps}; there was no checkpoint_dir, nothing is kept"
    return f"stopped after step {done} of {steps}; resume=True (or --resume) goes on from {folder}"
