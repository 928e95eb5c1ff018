"""A cycle of training steps of each system, on a batch that stays where it is: what `make bench`
times. Every registered comparison is asked to train its arms; in place of the training loop stands
what times its stages.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from cxrtut.engine.distributed import Ranks
from cxrtut.engine.performance import performance_settings
from cxrtut.engine.phase_step import CudaGraphRunner, PhaseStep
from cxrtut.engine.precision import Precision
from cxrtut.engine.task import Data, Report, Task
from cxrtut.experiments.comparison import Comparison
from cxrtut.experiments.registered import COMPARISONS
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.randomness import uniforms

IMAGES = 64  # simulated ones, enough for a batch


@dataclass(frozen=True)
class TrainingStep:
    """A step to time.

    Attributes:
        name: paper, arm, stage and preset, and how it runs.
        parameters: trainable numbers of all its networks.
        images: of all steps of a cycle.
        steps: of the cycle.
        run: does a whole cycle of steps; it does not wait for the device.
        published_steps: of a whole training as it was published, where there is such a number.
        threads: of torch; as set for None.
    """

    name: str
    parameters: int
    images: int
    steps: int
    run: Callable[[], None]
    published_steps: int | None = None
    threads: int | None = None


def training_steps(device: torch.device) -> Iterator[TrainingStep]:
    """The own arm of every paper at the size that fits the device: `smoke` everywhere, `paper` on a
    GPU, there also as CUDA graphs.
    """
    for chosen in COMPARISONS.values():
        presets = ("smoke", "paper") if device.type == "cuda" else ("smoke",)
        for preset in presets:
            for cuda_graphs in (False, True) if device.type == "cuda" else (False,):
                yield from steps_of(chosen, preset, device, cuda_graphs=cuda_graphs)


def published_steps(device: torch.device, sizes: int) -> Iterator[TrainingStep]:
    """The steps of every system that a comparison wants timed at the sizes of publications; on a
    CPU with one thread, so that machines can be compared, on a GPU also as CUDA graphs.

    Args:
        device: where.
        sizes: how many of them on a CPU, the smallest first; on a GPU all, unless it is 0.
    """
    on_cuda = device.type == "cuda"
    for chosen in COMPARISONS.values():
        if chosen.timed is None or not sizes:
            continue
        at_most = None if on_cuda else sizes
        for name, config in islice(chosen.timed.configurations.items(), at_most):
            for arm in chosen.timed.arms:
                for cuda_graphs in (False, True) if on_cuda else (False,):
                    for step in steps_of(chosen, config, device, arm=arm, cuda_graphs=cuda_graphs):
                        yield replace(
                            step, name=f"{arm}, {name}{', CUDA graphs' if cuda_graphs else ''}",
                            published_steps=chosen.timed.published_steps,
                            threads=None if on_cuda else 1,
                        )  # fmt: skip


def steps_of(
    comparison: Comparison[Any],
    preset: Any,
    device: torch.device,
    *,
    arm: str | None = None,
    cuda_graphs: bool = False,
) -> list[TrainingStep]:
    """The stages of an arm (by default the paper's own), each as a cycle of its steps.

    Args:
        comparison: of a paper.
        preset: the name of one, or a configuration.
        device: where.
        arm: of the comparison.
        cuda_graphs: record phases as CUDA graphs.
    """
    config = comparison.presets[preset] if isinstance(preset, str) else preset
    preset = preset if isinstance(preset, str) else "published"
    if hasattr(config, "imagenet"):
        config = replace(config, imagenet=False)  # a download says nothing of speed
    if getattr(config, "channels", 1) == 3:
        config = replace(config, channels=1)
    split = comparison.split(Source(images=IMAGES), config, 0)
    found: list[TrainingStep] = []

    def trainer(task: Task, loader: Data, **how: Any) -> list[Report]:
        name = f"{comparison.paper} {preset}, {how['configuration']['stage']}, {split.size} px"
        end = ", CUDA graphs" if cuda_graphs else ""
        batch_size = min(how["batch_size"], len(split.train))
        found.append(timed_step(name + end, task, loader, batch_size, device, cuda_graphs))
        return []

    run = Run(device=device, trainer=trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what untrained networks make is not looked at
        comparison.arm(arm or comparison.own).train(config, split, run)
    return found


def timed_step(
    name: str,
    task: Task,
    loader: Data,
    batch_size: int,
    device: torch.device,
    cuda_graphs: bool = False,
) -> TrainingStep:
    """A cycle of a task's steps on the first batch of a loader."""
    batches = loader.batches(batch_size=batch_size, seed=0, start=0, device=device, rank=0, ranks=1)
    numbers = uniforms(batch_size, task.n_uniforms, seed=0, step=0, position=0).to(device)
    batch = replace(next(batches), uniforms=numbers)
    phase_step = PhaseStep(task, device, Precision.of("auto", device), Ranks())
    runner = CudaGraphRunner(phase_step) if cuda_graphs else phase_step
    cycle = cycle_of(task)

    def run() -> None:
        with performance_settings(device, task.networks, task.optimizers):
            for step in range(cycle):
                for phase in task.phases(step, 0):
                    runner.run(phase, batch)

    parameters = sum(p.numel() for n in task.networks.values() for p in n.parameters())
    return TrainingStep(name, parameters, batch_size * cycle, cycle, run)


def cycle_of(task: Task, longest: int = 128) -> int:
    """After how many steps the phases of a task begin anew: 5 where a critic moves in each step and
    a generator in every fifth. A time of one step alone would have one of the two left out.

    Raises:
        ValueError: they do not begin anew within `longest` steps.
    """
    names = [tuple(phase.name for phase in task.phases(step, 0)) for step in range(2 * longest)]
    for cycle in range(1, longest + 1):
        if all(names[step] == names[step + cycle] for step in range(2 * longest - cycle)):
            return cycle
    raise ValueError(f"expected phases that begin anew within {longest} steps")
