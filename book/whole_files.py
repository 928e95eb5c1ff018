"""Files and folders that are whole or not there."""

import os
import shutil
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(source: Path, target: Path) -> None:
    """Copy a folder to the place of another, without leaving half of a copy behind."""
    fresh = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        shutil.copytree(source, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
