"""Run records: what a number came from, so that one command makes it again, and whether the code is
still the one that made it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from cxrtut import __version__
from cxrtut.files import atomic_write

VERSION = 2
PACKAGE = Path(__file__).resolve().parents[1]
# What shows or reports numbers does not make them.
_NOT_OF_THE_METHOD = ("viz", "records", "__main__", "bench", "__init__", "console", "usage")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Numbers = Mapping[str, float | None]
"""Identifier -> number; see `evaluation`."""


class RecordError(Exception):
    """A file that is no run record, or lacks something; says what was expected and what came."""


@dataclass(frozen=True)
class CurvePoint:
    """What was measured during a training.

    Attributes:
        step: training steps done.
        numbers: of the system as it was then.
    """

    step: int
    numbers: Numbers


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed.

    Attributes:
        train: measured on images it has learnt from.
        validation: on images that were looked at meanwhile.
        test: on patients never seen.
        seconds: wall time of training and measuring.
        curve: measured during the training, where the comparison asks for it.
    """

    train: Numbers = field(default_factory=dict)
    validation: Numbers = field(default_factory=dict)
    test: Numbers = field(default_factory=dict)
    seconds: float = 0.0
    curve: Sequence[CurvePoint] = ()

    def side(self, name: str) -> Numbers:
        """The numbers of `train`, `validation` or `test`.

        Raises:
            RecordError: another name.
        """
        if name not in ("train", "validation", "test"):
            raise RecordError(f"rows: expected train, validation or test, got {name!r}")
        numbers: Numbers = getattr(self, name)
        return numbers


@dataclass(frozen=True)
class Weights:
    """A file that holds the networks of an arm, of the first seed."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything about a run that a reader or a page may ask.

    Attributes:
        paper: whose comparison it is.
        what: one sentence.
        command: what makes it again, from the root of the repository.
        preset: of the paper's configuration; "" where it has none.
        faithful: whether the preset's networks are the paper's.
        configuration: every field of the paper's `Config`.
        settings: how it ran besides: precision, number of processes, CUDA graphs, and the SHA-256
            of the files with initial weights.
        data: what the images are, per seed, in words and numbers that are the same on every
            machine; see `Split.identity`.
        classes: of the answers.
        seeds: one for each run that the results are over.
        results: arm -> one `ArmRun` a seed; of the first seeds, where an arm has fewer.
        better: identifier -> `higher`, `lower` or `neither` is better.
        weights: arm -> where its networks are.
        code: file of the library -> SHA-256 of its code (`code_sha256`), of all that ran.
        revision: the commit of the checkout.
        hardware: processor, cores, threads, GPU.
        versions: of cxrtut, torch and Python.
        seconds: wall time.
        remarks: what was done to the record since, or warned of meanwhile.
        version: of this format.
    """

    paper: str
    what: str
    command: str
    preset: str = ""
    faithful: bool = False
    configuration: Mapping[str, Json]
    settings: Mapping[str, Json] = field(default_factory=dict)
    data: Sequence[Mapping[str, Json]]
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    results: Mapping[str, Sequence[ArmRun]]
    better: Mapping[str, str]
    weights: Mapping[str, Weights] = field(default_factory=dict)
    code: Mapping[str, str]
    revision: str
    hardware: Mapping[str, Json]
    versions: Mapping[str, str]
    seconds: float
    remarks: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def source(self) -> str:
        """Where the images are from, such as the name of a collection."""
        return str(self.data[0]["source"]) if self.data else ""

    def values(self, arm: str, side: str, measure: str) -> list[float]:
        """A measure of an arm, of each seed.

        Raises:
            RecordError: no such arm or measure; or a seed without a number.
        """
        if arm not in self.results:
            raise RecordError(f"the record has no arm {arm!r}; it has {', '.join(self.results)}")
        values = []
        for run in self.results[arm]:
            numbers = run.side(side)
            if measure not in numbers:
                known = ", ".join(name for name in numbers if "/" not in name)
                raise RecordError(f"{arm!r}, {side}: no measure {measure!r}; there are {known}")
            value = numbers[measure]
            if value is None or math.isnan(value):
                raise RecordError(f"{arm!r}, {side}, {measure}: expected numbers, got {value}")
            values.append(float(value))
        return values

    def direction(self, measure: str) -> str:
        """Which side of a measure is the better one: `higher`, `lower` or `neither`."""
        return self.better.get(measure.partition("/")[0], "neither")

    @cached_property
    def changed_files(self) -> tuple[str, ...]:
        """The files whose code is no longer the one that made this record; see `is_stale`. They are
        read when this is first asked for.
        """
        return tuple(f for f, sha256 in self.code.items() if code_sha256(PACKAGE / f) != sha256)

    @property
    def is_stale(self) -> bool:
        """Whether the code that made it has changed since, or was never written down."""
        return not self.code or bool(self.changed_files)


def code_sha256(path: Path) -> str:
    """SHA-256 of the code of a Python file: its text without comments, docstrings and blank lines,
    so that a better sentence makes no record stale; "" for a file that is not there.
    """
    if not path.is_file():
        return ""
    return hashlib.sha256(code_text(path.read_text(encoding="utf-8")).encode()).hexdigest()


def code_text(source: str) -> str:
    """The text without comments, docstrings (any string that is a statement) and blank lines."""
    lines = source.splitlines()
    spans = [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    spans += [
        (token.start, token.end)
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for (first, left), (last, right) in sorted(spans, reverse=True):
        rest = lines[last - 1][right:]
        lines[first - 1 : last] = [lines[first - 1][:left] + rest, *[""] * (last - first)]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def library_files(*roots: str) -> dict[str, str]:
    """The code of all modules of this library that these import, and of what those import: file and
    SHA-256 of the code. What another paper is made of is not among them.

    Args:
        roots: names of modules, such as "cxrtut.experiments.biomarker".
    """
    paths: dict[str, Path] = {}
    waiting = [path for root in roots if (path := _file_of(root)) is not None]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else str(path)
        if name in paths or name.removesuffix(".py").split("/")[0] in _NOT_OF_THE_METHOD:
            continue
        paths[name] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            waiting += [found for m in _imports(node) if (found := _file_of(m)) is not None]
    return {
        name: code_sha256(path)
        for name, path in sorted(paths.items())
        if path.is_relative_to(PACKAGE) and path.name != "__init__.py"
    }


def _imports(node: ast.AST) -> list[str]:
    """The modules, or what may be modules, of this library that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name for name in (node.module or "", *inner) if name.startswith("cxrtut.")]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.startswith("cxrtut.")]
    return []


def _file_of(module: str) -> Path | None:
    """The file of a module of this library, or of another that is loaded; None for neither."""
    if module.startswith("cxrtut."):
        place = PACKAGE.joinpath(*module.split(".")[1:])
        found = (place.with_suffix(".py"), place / "__init__.py")
        return next((path for path in found if path.is_file()), None)
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else Path(file)


@cache
def revision() -> str:
    """The commit of the checkout this library belongs to, "-dirty" if files were changed since;
    "unknown" for an installed library. As it was when this was first asked for: a checkout may move
    on during a run.
    """
    folder = PACKAGE.parent
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
    """The versions that the numbers depend on."""
    return {
        "cxrtut": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def hardware(device: torch.device) -> dict[str, Json]:
    """Processor, cores this process may use, torch's threads, the GPU."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def write_record(path: Path, record: RunRecord) -> None:
    """Writes a record as JSON; see `write_json`."""
    write_json(path, asdict(record))


def read_record_file(path: Path) -> RunRecord:
    """A record of `write_record`.

    Raises:
        RecordError: not such a file, of another version, or a field is missing or not known.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else type(content).__name__
        raise RecordError(f"{path}: expected a run record of version {VERSION}, got {found!r}")
    known = {f.name for f in fields(RunRecord)}
    if set(content) != known:
        wrong = ", ".join(sorted(set(content) ^ known))
        raise RecordError(f"{path}: fields that are missing or not known: {wrong}")
    try:
        results = {
            arm: tuple(_arm_run(run) for run in runs) for arm, runs in content["results"].items()
        }
        weights = {arm: Weights(**value) for arm, value in content["weights"].items()}
    except TypeError as error:
        raise RecordError(f"{path}: {error}") from error
    lists = {name: tuple(content[name]) for name in ("classes", "seeds", "remarks")}
    return RunRecord(**content | lists | {"results": results, "weights": weights})


def _arm_run(content: Mapping[str, Any]) -> ArmRun:
    curve = tuple(CurvePoint(**point) for point in content.get("curve", ()))
    return ArmRun(**{**content, "curve": curve})


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes JSON: the whole file, or the file that was there before.

    Args:
        path: the file.
        content: what json can write. NaN and infinity, which JSON does not know, become null.

    Raises:
        TypeError: something that json cannot write.
    """
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def _finite(value: object) -> object:
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
