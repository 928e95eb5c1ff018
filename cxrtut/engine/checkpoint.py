"""Checkpoints: written whole or not at all, the one before kept until the new one is whole.

<folder>/checkpoint-00001200.pt
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrtut.files import PARTIAL, atomic_write, remove_partial_files

FORMAT = 1
KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{8,})\.pt")


class CheckpointError(Exception):
    """A checkpoint cannot be used; says which, what was expected and what came."""


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:08d}.pt"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step_of, reverse=True)


def save(folder: Path, state: Mapping[str, Any]) -> Path:
    """Writes a state, flushed to the disk before it gets its name; keeps the `KEPT` newest that are
    whole. Checkpoints of later steps belong to a past that did not last, and go.

    Args:
        folder: made if it is not there.
        state: tensors, numbers, strings, lists and mappings; has `step`.

    Raises:
        CheckpointError: it cannot be written; says which is the last good one.
    """
    step = state["step"]
    path = checkpoint_path(folder, step)
    for left in folder.glob(f"checkpoint-*{PARTIAL}*"):
        remove_partial_files(left.with_name(left.name.partition(PARTIAL)[0]))
    _write(path, state)
    kept = 0
    for found in checkpoints(folder):
        if _step_of(found) > step or kept == KEPT or _is_cut_off(found):
            found.unlink(missing_ok=True)
        else:
            kept += 1
    for worse in _bests(folder)[1:]:  # no checkpoint speaks of it any more
        worse.unlink(missing_ok=True)
    return path


def save_best(folder: Path, state: Mapping[str, Any]) -> Path:
    """Writes the networks of the best step so far beside the checkpoints, `best-00000040.pt`. That
    of a step before stays until the next checkpoint is there: a run may be resumed in between.

    Args:
        folder: of the checkpoints.
        state: `step`, `validation` (what was measured) and `networks`.

    Raises:
        CheckpointError: it cannot be written; says which is the last good checkpoint.
    """
    path = folder / f"best-{state['step']:08d}.pt"
    for left in folder.glob(f"best-*{PARTIAL}*"):
        remove_partial_files(left.with_name(left.name.partition(PARTIAL)[0]))
    _write(path, state)
    return path


def forget_best_after(folder: Path, step: int) -> None:
    """Removes what later steps than that left as their best: a past that did not last."""
    for path in _bests(folder):
        if _step_of(path) > step:
            path.unlink(missing_ok=True)


def _bests(folder: Path) -> list[Path]:
    """Files of best networks, the newest first: the best of all, as each was better than before."""
    return sorted(folder.glob("best-*.pt"), reverse=True)


def _write(path: Path, state: Mapping[str, Any]) -> None:
    try:
        with atomic_write(path) as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:
        # What failed in the file, torch.save reports as a RuntimeError of its own.
        reason = error if isinstance(error, OSError) else error.__context__
        if not isinstance(reason, OSError):
            raise
        raise CheckpointError(
            f"{path} cannot be written: {reason.strerror or reason}; {_last_good(path.parent)}"
        ) from error


def _last_good(folder: Path) -> str:
    for path in checkpoints(folder):
        if not _is_cut_off(path):
            return (
                f"the last good checkpoint is {path}, from which resume=True (or --resume) goes on"
            )
    return f"there is no good checkpoint in {folder}"


def _step_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _is_cut_off(path: Path) -> bool:
    """Whether a file does not end as a checkpoint does."""
    try:
        with zipfile.ZipFile(path):
            return False
    except zipfile.BadZipFile:
        return True


def _read(path: Path) -> Any:
    """The content of a checkpoint, on the CPU.

    Raises:
        Exception: of many kinds, if the file is broken, in the middle too: torch does not compare
            the checksums that it writes.
    """
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of {broken} does not match")
    return torch.load(path, map_location="cpu", weights_only=True)


def load_best(folder: Path, networks: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Puts the best networks of a run into `networks`; returns what `save_best` was given.

    Raises:
        CheckpointError: there are none, a broken file, or one of other networks.
    """
    path = next(iter(_bests(folder)), None)
    if path is None:
        raise CheckpointError(
            f"expected best networks in {folder}, found none: was there a validation with best_by?"
        )
    try:
        state: dict[str, Any] = _read(path)
        for name, network in networks.items():
            network.load_state_dict(state["networks"][name])
    except Exception as error:  # a broken file fails in many ways
        reason = " ".join(str(error).split())[:300] or repr(error)
        raise CheckpointError(f"{path} cannot be used: {reason}") from error
    return state


def load(folder: Path) -> dict[str, Any]:
    """The newest checkpoint that is whole, on the CPU. A broken one is passed over with a warning.

    Raises:
        CheckpointError: none is there, none is whole, or its format is newer.
    """
    found = checkpoints(folder)
    if not found:
        raise CheckpointError(f"expected a checkpoint-NNNNNNNN.pt in {folder}, found none")
    for path in found:
        try:
            state = _read(path)
        except Exception as error:  # a broken file fails in many ways
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            warnings.warn(
                f"{path.name} cannot be read ({reason}); the one before it is tried", stacklevel=2
            )
            continue
        if not isinstance(state, dict) or state.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"{path}: expected a checkpoint of format {FORMAT} or older, got "
                f"{state.get('format') if isinstance(state, dict) else type(state).__name__}"
            )
        return state
    raise CheckpointError(f"{folder}: none of {len(found)} checkpoints can be read")


def check_configuration(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], inside: str = ""
) -> None:
    """Raises CheckpointError naming the first field in which a run differs from its checkpoint.

    `steps` may have grown: a run can be continued for longer.

    Args:
        saved: of the checkpoint.
        wanted: of this run.
        inside: of which field these two are the parts.
    """
    for name in [*saved, *(name for name in wanted if name not in saved)]:
        field = f"{inside}.{name}" if inside else name
        if name not in wanted or name not in saved:
            side = "this run" if name not in wanted else "the checkpoint"
            raise CheckpointError(f"configuration differs: {side} has no field {field!r}")
        old, new = saved[name], wanted[name]
        old, new = (list(v) if isinstance(v, tuple) else v for v in (old, new))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            check_configuration(old, new, field)
        elif old != new and not (field == "steps" and new > old):
            raise CheckpointError(
                f"configuration differs: {field} is {old!r} in the checkpoint and {new!r} in this "
                "run; resume with the same value, or start in another folder"
            )
