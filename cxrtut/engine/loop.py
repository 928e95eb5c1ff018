"""The only training loop: phases, over batches, until the steps are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrtut.engine import checkpoint
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.kernels import fast_kernels
from cxrtut.engine.order import generator, uniforms
from cxrtut.engine.phase_step import Captured, PhaseStep, as_before, not_captured
from cxrtut.engine.precision import Precision
from cxrtut.engine.stopping import Interrupted, StopRequest, stop_request
from cxrtut.engine.task import Data, Report, Task, check_task

DRAWS = 4  # uniform numbers an image gets in each phase, for what its loss draws by lot
CPU = torch.device("cpu")

Schedule = Callable[[int], Mapping[str, float]]
"""step -> the factor of the learning rate of each optimiser; one that is not named keeps its own"""


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
    schedule: Schedule | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool = False,
    configuration: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callable[[Report], None]] = (),
    report_every: int = 50,
    capture: bool = False,
) -> list[Report]:
    """Trains a task in place.

    Args:
        task: networks on `device`, their optimisers, and the phases of a step.
        data: batches as a pure function of (seed, step).
        steps: of the whole run; resumed at step s, the rest is done.
        batch_size: images of a step, of all ranks together.
        seed: of the order, the augmentation, the draws and dropout.
        device: where the networks are.
        ranks: this process among several, from `distributed.joined`.
        precision: `auto`, `float32`, `bfloat16` or `float16`; see `Precision.of`.
        schedule: learning rates by step.
        checkpoint_dir: where checkpoints are; None keeps none.
        checkpoint_every: steps between two of them; the last step always has one.
        resume: go on from the newest checkpoint; with none there, begin.
        configuration: what must be the same on resume, besides what is given here: numbers,
            strings, lists, mappings.
        callbacks: told a `Report` every `report_every` steps and at the end, on rank 0.
        capture: record each phase as a CUDA graph.

    Returns:
        The reports.

    Raises:
        ValueError: arguments or a task that cannot work.
        CheckpointError: the configuration differs from that of the checkpoint; or `checkpoint_dir`
            holds a run that is not to be resumed.
        NonFiniteLoss: a loss was NaN or infinite; no checkpoint has such weights.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written, the message says how to go on.
    """
    device = torch.device(device)
    _check(task, data, device, ranks, steps, batch_size, report_every, checkpoint_every, capture)
    chosen = Precision.of(precision, device)
    settings = {
        "steps": steps, "batch_size": batch_size, "seed": seed, "precision": chosen.name,
        "processes": ranks.size, **(configuration or {}),
    }  # fmt: skip
    # The numbers of torch's own generators (dropout) belong to the run, and the caller keeps his.
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=gpus),
        fast_kernels(device, task.networks.values()),
        as_before(task),
        stop_request() as stop,
    ):
        torch.manual_seed(generator("run", seed, ranks.rank).initial_seed())
        run = _Run(task, device, ranks, chosen, settings)
        start = 0
        if checkpoint_dir is not None and checkpoint.checkpoints(checkpoint_dir):
            if not resume:
                raise checkpoint.CheckpointError(
                    f"{checkpoint_dir} holds the checkpoints of a run: resume=True (or --resume) "
                    "goes on, another folder (--out) begins"
                )
            start = run.restore(checkpoint.load(checkpoint_dir))
        ranks.start_alike(task.networks.values())
        runner = Captured(run.phase_step) if capture else run.phase_step
        rates = _initial_rates(task)
        batches = data.batches(
            batch_size=batch_size, seed=seed, start=start, device=device, rank=ranks.rank,
            ranks=ranks.size,
        )  # fmt: skip
        per_epoch, began, reported = data.steps_per_epoch(batch_size), time.perf_counter(), start
        last = began
        history: list[Report] = []
        mine = ranks.share(batch_size)
        for step in range(start, steps):
            batch = next(batches)
            if schedule is not None:
                _set_rates(task, rates, schedule(step))
            run.phase_step.step.fill_(step)
            for position, phase in enumerate(task.phases(step, step // per_epoch)):
                draws = uniforms(batch_size, DRAWS, seed=seed, step=step, position=position)[mine]
                runner.run(phase, replace(batch, draws=_sent(draws, device)))
                run.phase_step.tallies[phase.name].count += 1
            ranks.average_buffers(task.networks.values())
            done = step + 1
            asked = _asked(stop, ranks, device, done, report_every)
            saves = checkpoint_dir is not None and (
                done % checkpoint_every == 0 or done == steps or asked
            )
            if done % report_every == 0 or done == steps or saves or asked:
                terms = run.phase_step.read()  # raises before a poisoned checkpoint is written
                now = time.perf_counter()
                speed = (done - reported) * batch_size / max(now - last, 1e-9)
                report = Report(
                    step=done, steps=steps, epoch=step // per_epoch, terms=terms,
                    seconds=now - began, images_per_second=speed, memory=_memory(device),
                )  # fmt: skip
                last, reported = now, done
                history.append(report)
                if ranks.first:
                    for callback in callbacks:
                        callback(report)
            if saves and checkpoint_dir is not None:
                run.save(checkpoint_dir, done)
            if asked and done < steps:
                raise Interrupted(_how_to_go_on(done, steps, checkpoint_dir))
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
    ) -> None:
        self.task, self.device, self.ranks, self.settings = task, device, ranks, dict(settings)
        self.phase_step = PhaseStep(task, device, precision, ranks)
        self.precision = precision

    def save(self, folder: Path, step: int) -> None:
        generators = self.ranks.gather(self._generators())
        if self.ranks.first:
            state = {
                "step": step,
                "configuration": self.settings,
                "networks": {k: n.state_dict() for k, n in self.task.networks.items()},
                "optimizers": {k: o.state_dict() for k, o in self.task.optimizers.items()},
                "scalers": {k: s.state_dict() for k, s in self.phase_step.scalers.items()},
                "generators": generators,
            }
            checkpoint.save(folder, state)
        self.ranks.wait()

    def restore(self, state: Mapping[str, Any]) -> int:
        checkpoint.check_configuration(state["configuration"], self.settings)
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
            not_captured(optimizer)
        for name, scaler_state in state["scalers"].items():
            self.phase_step.scalers[name] = self.precision.scaler()
            self.phase_step.scalers[name].load_state_dict(scaler_state)
        cpu, cuda = state["generators"][self.ranks.rank]
        torch.set_rng_state(cpu)
        if cuda is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(cuda, self.device)
        return int(state["step"])

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
    capture: bool,
) -> None:
    for name, value in (
        ("steps", steps), ("batch_size", batch_size), ("report_every", report_every),
        ("checkpoint_every", checkpoint_every),
    ):  # fmt: skip
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    ranks.share(batch_size)
    if data.steps_per_epoch(batch_size) < 1:
        raise ValueError(f"batch_size: {batch_size} is more than the images of an epoch")
    if capture and (device.type != "cuda" or ranks.size > 1):
        raise ValueError(
            f"capture: expected one process on a CUDA device, got {ranks.size} on {device.type}"
        )
    check_task(task)
    for name, network in task.networks.items():
        for parameter in network.parameters():
            if parameter.device.type != device.type:
                raise ValueError(
                    f"networks[{name!r}]: expected on {device.type}, got {parameter.device.type}"
                )


def _initial_rates(task: Task) -> dict[str, list[float]]:
    """The learning rates the optimisers were made with; a checkpoint keeps them as `initial_lr`."""
    rates = {}
    for name, optimizer in task.optimizers.items():
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))
        rates[name] = [float(group["initial_lr"]) for group in optimizer.param_groups]
    return rates


def _set_rates(task: Task, rates: dict[str, list[float]], factors: Mapping[str, float]) -> None:
    for name, factor in factors.items():
        for group, rate in zip(task.optimizers[name].param_groups, rates[name], strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor


def _sent(draws: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it."""
    if device.type != "cuda":
        return draws
    return draws.pin_memory().to(device, non_blocking=True)


def _asked(stop: StopRequest, ranks: Ranks, device: torch.device, done: int, every: int) -> bool:
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
