"""What can be wrong with what the command line asks for, said before anything is trained."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class CannotBeDone(Exception):
    """What was asked for cannot be done on this machine; says what was expected and what came."""


def pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words as a mapping.

    Raises:
        CannotBeDone: a word without "=".
    """
    for word in words:
        if "=" not in word:
            raise CannotBeDone(f"{option}: expected NAME=VALUE, got {word!r}")
    return dict(word.split("=", 1) for word in words)


def check_settings(config: Any) -> None:
    """Raises CannotBeDone for numbers that train nothing."""
    for name, least in (("steps", 1), ("batch_size", 1), ("alignment_batch_size", 1)):
        value = getattr(config, name, least)
        if value < least:
            raise CannotBeDone(f"--set {name}: expected at least {least}, got {value}")
    for name in ("learning_rate", "alignment_learning_rate", "epochs"):
        value = getattr(config, name, 1.0)
        if not 0 < value < float("inf"):
            raise CannotBeDone(f"--set {name}: expected a number above 0, got {value}")


def check_device(options: argparse.Namespace, device: str) -> None:
    """Raises CannotBeDone for what the device does not have."""
    import torch

    from cxrtut.engine.precision import Precision

    kind = torch.device(device).type
    try:
        Precision.of(options.precision, torch.device(device))
    except ValueError as error:
        raise CannotBeDone(f"--{error}") from error
    if options.cuda_graphs and kind != "cuda":
        raise CannotBeDone(f"--cuda-graphs: expected --device cuda, got {kind}")


def check_simulation(source: Any, size: int) -> None:
    """Raises CannotBeDone for images that cannot be simulated, where a source simulates any."""
    from cxrtut.data.phantom import CLASSES, ChestPhantom

    if source.data == "phantom" and source.disease not in CLASSES:
        raise CannotBeDone(
            f"--disease: expected one of {', '.join(CLASSES)}, got {source.disease!r}"
        )
    if source.data != "store" and source.root is None:
        try:
            ChestPhantom(size, source.phantom_preset)
        except ValueError as error:
            raise CannotBeDone(f"--set size: {error}") from error


def check_realism(options: argparse.Namespace) -> None:
    """Raises CannotBeDone for classifiers that cannot be trained."""
    from cxrtut.data.phantom import ChestPhantom

    try:
        ChestPhantom(2 * options.size, options.preset)
    except ValueError as error:
        raise CannotBeDone(f"--size {options.size}, rendered at twice that: {error}") from error
    if options.images < options.batch_size:
        raise CannotBeDone(
            f"--images: expected at least --batch-size {options.batch_size}, got {options.images}"
        )


def device_of(wanted: str) -> str:
    """`auto` is CUDA where there is a GPU; Apple's `mps` has to be asked for.

    Raises:
        CannotBeDone: this machine has no such GPU.
    """
    import torch

    if wanted == "mps":
        if not torch.backends.mps.is_available():
            raise CannotBeDone("--device: got mps, but there is no Apple GPU here")
        return wanted
    available = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if available else "cpu"
    if wanted != "cpu" and not available:
        raise CannotBeDone(f"--device: got {wanted}, but there is no GPU here")
    number = int(wanted.partition(":")[2] or 0)
    if wanted != "cpu" and number >= torch.cuda.device_count():
        raise CannotBeDone(
            f"--device: got {wanted}, but there are {torch.cuda.device_count()} GPUs here"
        )
    return wanted


def check_writable(option: str, path: Path) -> None:
    """Makes the folder of a file that is to be written later, and tries to write there.

    Raises:
        CannotBeDone: the file is a folder, or its folder cannot be made or written in.
    """
    if path.is_dir():
        raise CannotBeDone(f"{option}: expected a file, got the folder {path}")
    _try_to_write(option, path.parent)


def check_folder(option: str, path: Path) -> None:
    """Makes a folder that is to be filled later, and tries to write there.

    Raises:
        CannotBeDone: it is a file, or cannot be made or written in.
    """
    if path.exists() and not path.is_dir():
        raise CannotBeDone(f"{option}: expected a folder, got the file {path}")
    _try_to_write(option, path)


def _try_to_write(option: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CannotBeDone(f"{option}: cannot write in {folder}: {error.strerror}") from error


def is_expected(error: Exception) -> bool:
    """Whether an error speaks of what the user gave, rather than of a mistake in the program."""
    from cxrtut.data.decode import ImageError
    from cxrtut.data.manifest import StoreError
    from cxrtut.engine.checkpoint import CheckpointError
    from cxrtut.engine.distributed import BatchSizeError
    from cxrtut.engine.initial_weights import WeightsError
    from cxrtut.engine.phase_step import NonFiniteLoss
    from cxrtut.experiments.comparison import ConfigurationError
    from cxrtut.records.run_record import RecordError

    told = (
        CannotBeDone, StoreError, BatchSizeError, CheckpointError, ConfigurationError,
        NonFiniteLoss, ImageError, WeightsError, RecordError,
    )  # fmt: skip
    places = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    network = (ConnectionError,)
    return isinstance(error, (*told, *places, *network))
