"""Training a paper's method from the command line, and comparing it with its arms.

    python -m cxrtut train biomarker --preset smoke --out build/runs/first
    torchrun --nproc-per-node=2 -m cxrtut train biomarker --preset paper ...
    python -m cxrtut reproduce biomarker --preset smoke --seeds 3

A run's folder gets the log of its reports, its checkpoints, the networks that it trained and its
scores with everything needed to repeat them, `record.json`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrtut.data.store import StoreError
from cxrtut.engine.distributed import init_distributed
from cxrtut.engine.progress import progress
from cxrtut.engine.records import revision, run_record, write_json
from cxrtut.engine.weights import save_weights
from cxrtut.experiments import biomarker, disease_masks
from cxrtut.experiments.configuration import ConfigurationError, override
from cxrtut.experiments.sources import Source

PAPERS: dict[str, Any] = {"biomarker": biomarker, "disease_masks": disease_masks}
"""Each module has PRESETS, ARMS, OWN (the paper's own arm), IMAGES (simulated ones by default),
`study_of`, `run_arm`, `compare` and `comparison_table`."""


def train_paper(
    paper: str,
    *,
    preset: str,
    settings: Sequence[str],
    source: Source,
    arm: str | None,
    out: Path,
    resume: bool,
    seed: int,
    device: str,
    precision: str = "auto",
    cuda_graphs: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Trains one arm (the paper's own method by default) into the folder `out`; on rank 0, scores
    it and writes its record.

    Raises:
        ConfigurationError: a setting that the paper's configuration does not have, or no such arm.
        CheckpointError: the folder holds another run, or one that is not to be resumed.
        StoreError: the images are not there, or do not fit the configuration.
    """
    module = PAPERS[paper]
    arm = _known(module, module.OWN if arm is None else arm)
    config = override(module.PRESETS[preset], settings)
    start = time.perf_counter()
    revision()  # now: the checkout may move on
    with init_distributed(device) as (ranks, place):
        study = _study(module, source, config, seed)
        networks, scores = module.run_arm(
            arm, config, study, seed=seed, device=place, out=out, resume=resume, ranks=ranks,
            watch=(lambda stage: progress(f"{paper} {stage}")) if ranks.first else None,
            precision=precision, cuda_graphs=cuda_graphs,
        )  # fmt: skip
        if not ranks.first:
            return {}
        record = run_record(
            what=f"{paper}, {arm}, on {study.name}", command=command,
            configuration=asdict(config) | {"arm": arm, "precision": precision},
            data={"name": study.name, "fingerprint": study.store.fingerprint}, seeds=[seed],
            device=place, seconds=time.perf_counter() - start, results=scores,
        )  # fmt: skip
        out.mkdir(parents=True, exist_ok=True)  # an arm may have trained nothing
        for name, network in networks.items():
            torch.save(network.state_dict(), out / f"{name}.pt")
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
    arms: Sequence[str] = (),
    precision: str = "auto",
    cuda_graphs: bool = False,
    weights: Path | None = None,
    command: str = "",
) -> dict[str, Any]:
    """All arms and comparators of a paper's figures (or those named), as a run record.

    With a folder for `weights`, the networks of the first seed are kept there, and the record has
    their names and SHA-256.
    """
    module, kept = PAPERS[paper], {}
    revision()  # now: the checkout may move on

    def keep(method: str, network: nn.Module) -> None:
        if weights is not None:
            plain = re.sub(r"[^0-9A-Za-z-]+", "_", method)
            name = f"{paper}-{preset}-{plain}.safetensors"
            kept[method] = {"file": name, "sha256": save_weights(network, weights / name)}

    chosen = {"arms": [_known(module, arm) for arm in arms]} if arms else {}
    config = override(module.PRESETS[preset], settings)
    record: dict[str, Any] = module.compare(
        config, lambda seed: _study(module, source, config, seed), seeds=seeds, device=device,
        command=command, progress=progress, keep=keep, precision=precision, cuda_graphs=cuda_graphs,
        **chosen,
    )  # fmt: skip
    return record | {
        "weights": kept,
        "preset": preset,
        "source": {k: v for k, v in asdict(source).items() if k != "root"},
    }


def _study(module: Any, source: Source, config: Any, seed: int) -> Any:
    study = module.study_of(source, config, seed)
    if study.store.channels != config.channels:
        raise StoreError(
            f"expected images of {config.channels} channels, got {study.store.channels}: "
            f"add --set channels={study.store.channels}"
        )
    return study


def _known(module: Any, arm: str) -> str:
    if arm not in module.ARMS:
        raise ConfigurationError(f"arm: expected one of {list(module.ARMS)}, got {arm!r}")
    return arm
