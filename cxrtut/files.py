"""Files that are whole or not there (written under another name, flushed to the disk, renamed), and
their SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to write bytes to. After an error or an interruption inside, what was there
    before is still there, and nothing else is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            flush_to_disk(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(descriptor: int) -> None:
    """Wait until what was written to an open file descriptor is on the disk."""
    os.fsync(descriptor)


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable, where the operating system can (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def plain_name(text: str) -> str:
    """A text as part of a file's name: letters, digits and hyphens, underscores for all else."""
    return re.sub(r"[^0-9A-Za-z-]+", "_", text).strip("_")
