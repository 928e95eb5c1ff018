"""A cycle of training steps of each system, on a batch that stays where it is: what `make bench`
times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from cxrtut.baselines.classifier import BinaryClassifierTask
from cxrtut.data.sample import PADDING, Batch
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.phase_step import CudaGraphRunner, PhaseStep
from cxrtut.engine.precision import Precision
from cxrtut.engine.task import Task
from cxrtut.nn.backbones import ResNet10
from cxrtut.papers import biomarker, disease_masks
from cxrtut.randomness import generator


@dataclass(frozen=True)
class TrainingStep:
    """A step to time.

    Attributes:
        name: system, preset, and how it runs.
        parameters: trainable numbers of all its networks.
        images: of all steps of a cycle.
        steps: of the cycle.
        run: does a whole cycle of steps; it does not wait for the device.
    """

    name: str
    parameters: int
    images: int
    steps: int
    run: Callable[[], None]


def training_steps(device: torch.device) -> Iterator[TrainingStep]:
    """Every system at the size that fits the device: `smoke` everywhere, `paper` on a GPU, there
    also as CUDA graphs.
    """
    config = biomarker.SMOKE
    yield _step(
        "classifier (ResNet-10), 64 px", BinaryClassifierTask(ResNet10(1).to(device)), 32,
        (1, 64, 64), device,
    )  # fmt: skip
    captures = (False, True) if device.type == "cuda" else (False,)
    for cuda_graphs in captures:
        yield _biomarker("smoke", config, device, cuda_graphs)
        yield from _disease_masks("smoke", disease_masks.SMOKE, device, cuda_graphs)
    if device.type == "cuda":
        large = replace(disease_masks.PAPER, imagenet=False)
        for cuda_graphs in captures:
            yield _biomarker("paper", replace(biomarker.PAPER, channels=1), device, cuda_graphs)
            yield from _disease_masks("paper", large, device, cuda_graphs)


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


def _biomarker(
    preset: str, config: biomarker.Config, device: torch.device, cuda_graphs: bool
) -> TrainingStep:
    task = biomarker.Biomarker(config, device=device)
    shape = (config.channels, config.size, config.size)
    name = f"Biomarker {preset}, {config.size} px"
    return _step(name, task, config.batch_size, shape, device, cuda_graphs=cuda_graphs)


def _disease_masks(
    preset: str, config: disease_masks.Config, device: torch.device, cuda_graphs: bool
) -> Iterator[TrainingStep]:
    """Alignment, and classification with masks."""
    classifier = disease_masks.make_classifier(config, 8, 0).to(device)
    classifier.masks.fill_(1.0)
    shape = (config.channels, config.size, config.size)
    anchor = torch.zeros(1, *shape)
    for stage, task, images in (
        (
            "alignment", disease_masks.Alignment(config, classifier, anchor, device=device),
            config.alignment_batch_size,
        ),
        (
            "classification", disease_masks.Classification(config, classifier),
            config.batch_size,
        ),
    ):  # fmt: skip
        name = f"Disease masks {preset}, {stage}, {config.size} px"
        yield _step(name, task, images, shape, device, classes=8, cuda_graphs=cuda_graphs)


def _step(
    name: str,
    task: Task,
    images: int,
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    classes: int = 1,
    cuda_graphs: bool = False,
) -> TrainingStep:
    draw = generator("bench", name)
    batch = Batch(
        image=(torch.rand(images, *shape, generator=draw) * 2 - 1).to(device),
        label_vector=(torch.arange(images) % 2).float()[:, None].expand(-1, classes).to(device),
        boxes=torch.zeros(images, 1, 4, device=device),
        box_label=torch.full((images, 1), PADDING, device=device),
        index=torch.arange(images, device=device),
        uniforms=torch.rand(images, task.n_uniforms, generator=draw).to(device),
    )
    phase_step = PhaseStep(task, device, Precision.of("auto", device), Ranks())
    runner = CudaGraphRunner(phase_step) if cuda_graphs else phase_step

    cycle = cycle_of(task)

    def run() -> None:
        for step in range(cycle):
            for phase in task.phases(step, 0):
                runner.run(phase, batch)

    parameters = sum(p.numel() for n in task.networks.values() for p in n.parameters())
    return TrainingStep(
        name + (", captured" if cuda_graphs else ""), parameters, images * cycle, cycle, run
    )
