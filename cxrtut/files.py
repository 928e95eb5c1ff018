"""Files that are whole or not there (written under another name, flushed to the disk, renamed), and
their SHA-256.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_native_id
from typing import BinaryIO

PARTIAL = ".partial-"
_LONGEST_NAME = 255  # bytes, on every usual file system
_LONGEST_PATH = 4095 if os.name == "posix" else 259
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_ACCESS = {errno.EACCES, errno.EPERM}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to write bytes to. After an error or an interruption inside, what was there
    before is still there, and nothing else is.

    Raises:
        OSError: the file cannot be written; where the disk is full, too, it names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            flush_to_disk(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in _FULL and error.filename is None:  # writing does not say which file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """The path of a file while this thread writes it, beside its own: `<name>.partial-<number>`, or
    shorter where that is longer than a name or a path may be.
    """
    end = f"{PARTIAL}{os.getpid()}{get_native_id()}"
    partial = path.with_name(path.name + end)
    fits = len(os.fsencode(partial.name)) <= _LONGEST_NAME
    if fits and len(os.fsencode(partial.absolute())) <= _LONGEST_PATH:
        return partial
    return path.with_name(hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8] + end)


def remove_partial_files(path: Path) -> None:
    """Remove what other processes left of `path` when they were killed while they wrote it."""
    own = partial_path(path)
    for left in path.parent.glob(f"{_literal(own.name.rpartition('-')[0])}-*"):
        if left != own and left.name.rpartition("-")[2].isdecimal():
            try:
                left.unlink()
            except OSError:  # gone meanwhile, or still open on Windows
                continue


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(descriptor: int) -> None:
    """Wait until what was written to an open file descriptor is on the disk, where the file system
    knows of that.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable, where the operating system and the file system can (not
    on Windows, on several network file systems, and in a folder that cannot be opened).
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC | _NO_ACCESS:
            raise


def plain_name(text: str) -> str:
    """A text as part of a file's name: letters, digits and hyphens, underscores for all else."""
    return re.sub(r"[^0-9A-Za-z-]+", "_", text).strip("_")
