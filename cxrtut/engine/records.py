"""Run records: what a number came from, so that one command makes it again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cxrtut import __version__
from cxrtut.files import atomic_write


def run_record(
    *,
    what: str,
    command: str,
    configuration: Mapping[str, Any],
    data: Mapping[str, Any],
    seeds: list[int],
    device: torch.device | str,
    seconds: float,
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """A record for JSON.

    Args:
        what: one sentence.
        command: what makes it again, from the root of the repository.
        configuration: of the run.
        data: name and fingerprint of the data.
        seeds: one for each run that the results are over.
        device: where it ran.
        seconds: wall time.
        results: metrics, with their intervals.
    """
    return {
        "what": what,
        "command": command,
        "revision": revision(),
        "configuration": dict(configuration),
        "configuration hash": configuration_hash(configuration),
        "data": dict(data),
        "seeds": list(seeds),
        "hardware": hardware(torch.device(device)),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "results": dict(results),
    }


def configuration_hash(configuration: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any value."""
    text = json.dumps(configuration, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def revision() -> str:
    """The commit of the checkout this library belongs to, "-dirty" if files were changed since;
    "unknown" for an installed library. As it was when this was first asked for: a checkout may move
    on during a run.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return "unknown"
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "cxrtut": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def hardware(device: torch.device) -> dict[str, object]:
    """Processor, cores this process may use, torch's threads, the GPU."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON: the whole file, or the file that was there before.

    Args:
        path: the file.
        record: what json can write. NaN and infinity, which JSON does not know, become null.

    Raises:
        TypeError: something that json cannot write.
    """
    text = json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inside) for key, inside in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
