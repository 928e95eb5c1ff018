"""Training a paper's method from the command line, and comparing it with its arms.

    python -m cxrtut train biomarker --preset smoke --out build/runs/first
    torchrun --nproc-per-node=2 -m cxrtut train biomarker --preset paper ...
    python -m cxrtut reproduce biomarker --preset smoke --seeds 3

A run's folder gets `log.jsonl`, `samples/`, `checkpoints/`, the network `generator.pt` and its
scores with everything needed to repeat them, `record.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.engine.distributed import joined
from cxrtut.engine.progress import JsonLines, SampleGrid, progress
from cxrtut.engine.records import run_record, write_json
from cxrtut.engine.task import Report
from cxrtut.engine.weights import save_weights
from cxrtut.experiments import biomarker
from cxrtut.experiments.configuration import override
from cxrtut.experiments.studies import Study, disease_study, pasted_study, phantom_study
from cxrtut.papers.biomarker import Biomarker, Config, heal

PAPERS = {"biomarker": biomarker}
SHOWN = 6  # images in a sample grid


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which images.

    Attributes:
        data: `phantom` (simulated), `nih` (a prepared store: a disease and its boxes) or `pasted`
            (artificial biomarkers, on the normal images of a store or of the simulation).
        root: the store; for `pasted` optional.
        disease: what is abnormal.
        phantom_preset: of the simulation.
        images: simulated images.
    """

    data: str = "phantom"
    root: Path | None = None
    disease: str = "Pneumonia"
    phantom_preset: str = "easy"
    images: int = 2048

    def study(self, size: int, seed: int) -> Study:
        """The images of a seed, at the size.

        Raises:
            StoreError: a store is needed and none is given, or it lacks something.
        """
        if self.data == "nih":
            if self.root is None:
                raise StoreError("--data nih: expected --data-root with a prepared store, got none")
            return disease_study(self.root, size, disease=self.disease)
        if self.data == "pasted":
            store = self._normal_images(size, seed) if self.root is None else None
            return pasted_study(store or ArrayStore.open(str(self.root)), size, seed=seed)
        if self.root is not None:
            raise StoreError(f"--data phantom: expected no --data-root, got {self.root}")
        return phantom_study(
            size, n=self.images, preset=self.phantom_preset, disease=self.disease, seed=seed
        )

    def _normal_images(self, size: int, seed: int) -> ArrayStore:
        phantom = ChestPhantom(size, self.phantom_preset, seed=seed, prevalence=0.0)
        return in_memory(phantom, self.images)


def train_paper(
    paper: str,
    *,
    preset: str,
    settings: Sequence[str],
    source: Source,
    arm: str,
    out: Path,
    resume: bool,
    seed: int,
    device: str,
    precision: str = "auto",
    capture: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Trains one arm into the folder `out`; on rank 0, scores it and writes its record.

    Raises:
        ConfigurationError: a setting that the paper's configuration does not have.
        CheckpointError: the folder holds another run, or one that is not to be resumed.
        StoreError: the images are not there, or do not fit the configuration.
    """
    module = PAPERS[paper]
    config: Config = override(module.PRESETS[preset], settings)
    start = time.perf_counter()
    with joined(device) as (ranks, place):
        study = source.study(config.size, seed)
        if study.store.channels != config.channels:
            raise StoreError(
                f"expected images of {config.channels} channels, got {study.store.channels}: "
                f"add --set channels={study.store.channels}"
            )
        watch = (lambda stage: progress(f"{paper} {stage}")) if ranks.first else None
        told = [JsonLines(out / "log.jsonl")] if ranks.first else []

        def prepare(task: Biomarker) -> list[Callable[[Report], None]]:
            return [_samples(task, study, place, out / "samples")] if ranks.first else []

        task = module.train_arm(
            arm, config, study, seed=seed, device=place, out=out, resume=resume, watch=watch,
            callbacks=told, prepare=prepare, ranks=ranks, precision=precision, capture=capture,
        )  # fmt: skip
        if not ranks.first:
            return {}
        record = run_record(
            what=f"{paper}, {arm}, on {study.name}", command=command,
            configuration=asdict(config) | {"arm": arm, "precision": precision},
            data={"name": study.name, "fingerprint": study.store.fingerprint}, seeds=[seed],
            device=place, seconds=time.perf_counter() - start,
            results=module.score_generator(task, study, place),
        )  # fmt: skip
        torch.save(task.networks["generator"].state_dict(), out / "generator.pt")
        write_json(out / "record.json", record)
    return record


def reproduce(
    paper: str,
    *,
    preset: str,
    settings: Sequence[str],
    source: Source,
    seeds: int,
    device: str,
    precision: str = "auto",
    capture: bool = False,
    weights: Path | None = None,
    command: str = "",
) -> dict[str, Any]:
    """All arms and comparators of a paper's figures, as a run record.

    With a folder for `weights`, the networks of the first seed are kept there, and the record has
    their names and SHA-256.
    """
    module, kept = PAPERS[paper], {}

    def keep(method: str, network: nn.Module) -> None:
        if weights is not None:
            name = f"{paper}-{preset}-{method}.safetensors"
            kept[method] = {"file": name, "sha256": save_weights(network, weights / name)}

    config: Config = override(module.PRESETS[preset], settings)
    record: dict[str, Any] = module.compare(
        config, lambda seed: source.study(config.size, seed), seeds=seeds, device=device,
        command=command, progress=progress, keep=keep, precision=precision,
        capture=capture,
    )  # fmt: skip
    return record | {
        "weights": kept,
        "preset": preset,
        "source": {k: v for k, v in asdict(source).items() if k != "root"},
    }


def _samples(
    task: Biomarker, study: Study, device: torch.device, folder: Path
) -> Callable[[Report], None]:
    """Pictures of x, G(x), their difference and, where it is known, the healthy twin."""
    rows = study.held_out if len(study.held_out) else study.abnormal
    batch = study.store.batch(rows[:SHOWN], device)

    def draw() -> Tensor:
        x = batch.image
        output = heal(task.networks["generator"], x)
        columns = [x, output, ((output - x) / 2).clamp(-1, 1)]
        return torch.stack(columns + ([] if batch.healthy is None else [batch.healthy]), 1)

    return SampleGrid(draw, folder)
