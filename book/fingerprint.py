"""One short text that changes when any of many inputs does: files, versions, parameters."""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def files_under(*folders: Path) -> Iterator[Path]:
    """Every file below the folders, in order; compiled Python is left out."""
    for folder in folders:
        yield from sorted(
            path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        )


def digest(root: Path, parts: Iterable[str | Path]) -> str:
    """sha256 over texts and over files (their path from the root, and their content)."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            content = hashlib.sha256(part.read_bytes()).hexdigest()
            part = f"{os.path.relpath(part, root)} {content}"
        whole.update(part.encode() + b"\0")
    return whole.hexdigest()


def version_of(package: str) -> str:
    """Name and version of an installed package, as one text."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} absent"


def store_identity(folder: Path) -> str:
    """The fingerprint that an array store states of itself; `absent` if this is no array store."""
    try:
        about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        return f"store {about['fingerprint']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "absent"
