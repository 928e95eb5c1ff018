"""One training step of each system, on a batch that stays where it is: what `make bench` times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from cxrtut.baselines.classifier import NormalOrNot
from cxrtut.data.sample import PADDING, Batch
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.loop import DRAWS
from cxrtut.engine.order import generator
from cxrtut.engine.phase_step import Captured, PhaseStep
from cxrtut.engine.precision import Precision
from cxrtut.engine.task import Task
from cxrtut.nn.backbones import ResNet10
from cxrtut.papers import biomarker, disease_masks


@dataclass(frozen=True)
class TrainingStep:
    """A step to time.

    Attributes:
        name: system, preset, and how it runs.
        parameters: trainable numbers of all its networks.
        images: in the batch.
        run: does the step; it does not wait for the device.
    """

    name: str
    parameters: int
    images: int
    run: Callable[[], None]


def training_steps(device: torch.device) -> Iterator[TrainingStep]:
    """Every system at the size that fits the device: `smoke` everywhere, `paper` on a GPU, there
    also as CUDA graphs.
    """
    config = biomarker.SMOKE
    yield _step(
        "classifier (ResNet-10), 64 px", NormalOrNot(ResNet10(1).to(device)), 32, (1, 64, 64),
        device,
    )  # fmt: skip
    captures = (False, True) if device.type == "cuda" else (False,)
    for capture in captures:
        yield _biomarker("smoke", config, device, capture)
        yield from _disease_masks("smoke", disease_masks.SMOKE, device, capture)
    if device.type == "cuda":
        large = replace(disease_masks.PAPER, imagenet=False)
        for capture in captures:
            yield _biomarker("paper", replace(biomarker.PAPER, channels=1), device, capture)
            yield from _disease_masks("paper", large, device, capture)


def _biomarker(
    preset: str, config: biomarker.Config, device: torch.device, capture: bool
) -> TrainingStep:
    task = biomarker.Biomarker(config, device=device)
    shape = (config.channels, config.size, config.size)
    name = f"Biomarker {preset}, {config.size} px"
    return _step(name, task, config.batch_size, shape, device, capture=capture)


def _disease_masks(
    preset: str, config: disease_masks.Config, device: torch.device, capture: bool
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
        yield _step(name, task, images, shape, device, classes=8, capture=capture)


def _step(
    name: str,
    task: Task,
    images: int,
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    classes: int = 1,
    capture: bool = False,
) -> TrainingStep:
    draw = generator("bench", name)
    batch = Batch(
        image=(torch.rand(images, *shape, generator=draw) * 2 - 1).to(device),
        label_vector=(torch.arange(images) % 2).float()[:, None].expand(-1, classes).to(device),
        boxes=torch.zeros(images, 1, 4, device=device),
        box_label=torch.full((images, 1), PADDING, device=device),
        index=torch.arange(images, device=device),
        draws=torch.rand(images, DRAWS, generator=draw).to(device),
    )
    phase_step = PhaseStep(task, device, Precision.of("auto", device), Ranks())
    runner = Captured(phase_step) if capture else phase_step

    def run() -> None:
        for phase in task.phases(0, 0):
            runner.run(phase, batch)

    parameters = sum(p.numel() for n in task.networks.values() for p in n.parameters())
    return TrainingStep(name + (", captured" if capture else ""), parameters, images, run)
