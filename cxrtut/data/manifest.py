"""store.json, the manifest of an array store: what is in the folder, with sizes and hashes, and
whether it still is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrtut import __version__
from cxrtut.files import PARTIAL, flush_to_disk, sha256_of_file

FORMAT, FORMAT_VERSION = "cxrtut array store", 1
ALWAYS_PRESENT = ("images.npy", "labels.npy", "table.csv", "boxes.csv")
OPTIONAL = ("healthy.npy", "masks.npy")
STORE_FILES = ("store.json", *ALWAYS_PRESENT, *OPTIONAL)
_LARGE = ("images.npy", "healthy.npy", "masks.npy")
_IDENTITY = ("version", "source", "classes", "n", "channels", "size", "files")


class StoreError(Exception):
    """A folder that is no whole, readable array store, or data that cannot be put into one."""


def write_manifest(
    folder: Path,
    *,
    source: str,
    licence: str,
    classes: Sequence[str],
    n: int,
    channels: int,
    size: int,
    notes: Mapping[str, str],
) -> dict[str, Any]:
    """Hash every file of `folder` and write store.json beside them, flushed to the disk; returns
    its content.
    """
    names = [name for name in ALWAYS_PRESENT + OPTIONAL if (folder / name).exists()]
    about: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "created_with": f"cxrtut {__version__}",
        "source": source,
        "licence": licence,
        "classes": list(classes),
        "n": n,
        "channels": channels,
        "size": size,
        "notes": dict(notes),
        "files": {
            name: {
                "bytes": (folder / name).stat().st_size,
                "sha256": sha256_of_file(folder / name),
            }
            for name in names
        },
    }
    about["fingerprint"] = fingerprint_of(about)
    with open(folder / "store.json", "w", encoding="utf-8") as file:
        json.dump(about, file, indent=2, ensure_ascii=False)
        file.write("\n")
        flush_to_disk(file.fileno())
    return about


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of store.json in folder `path`.

    Raises:
        StoreError: no such folder, half-written, foreign, broken or of a newer format.
    """
    if PARTIAL in path.name:
        raise StoreError(f"{path}: this store is half-written; prepare it again")
    if not path.is_dir():
        raise StoreError(f"{path}: expected the folder of an array store, found none")
    if not (path / "store.json").is_file():
        raise StoreError(f"{path}: expected an array store, but store.json is missing")
    try:
        about = json.loads((path / "store.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path}: store.json cannot be read ({error})") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise StoreError(f"{path}: store.json does not describe a {FORMAT}")
    version = about.get("version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path}: expected store format {FORMAT_VERSION}, got {version!r} "
            f"(made with {about.get('created_with', 'an unknown version')}); "
            "update cxrtut or prepare the store again"
        )
    missing = [key for key in (*_IDENTITY, "licence", "fingerprint") if key not in about]
    if missing:
        raise StoreError(f"{path}: store.json lacks {', '.join(missing)}")
    return about


def check_replaceable(path: Path, source: str, beside: Sequence[str] = ()) -> dict[str, Any]:
    """The manifest of a store that another of the same source may replace.

    Args:
        path: the folder.
        source: the source that the new store has.
        beside: names that may lie in the folder besides the files of a store.

    Raises:
        StoreError: `path` is no store of this format and source, or holds anything else.
    """
    try:
        about = read_manifest(path)
    except StoreError as error:
        raise StoreError(f"{error}; not overwritten, remove it or choose another folder") from error
    if about["source"] != source:
        raise StoreError(
            f"{path}: expected a store of {source!r}, got one of {about['source']!r}; "
            "not overwritten, remove it or choose another folder"
        )
    foreign = sorted({file.name for file in path.iterdir()} - {*STORE_FILES, *beside})
    if foreign:
        raise StoreError(
            f"{path}: expected only the files of a store, got {', '.join(foreign[:5])}; "
            "not overwritten, remove it or choose another folder"
        )
    return about


def verify_files(path: Path, about: Mapping[str, Any], *, full: bool) -> None:
    """Compare the files of a store with its manifest.

    Args:
        path: the folder.
        about: the content of store.json.
        full: hash the large arrays too; otherwise only their sizes are compared.

    Raises:
        StoreError: a file is missing, truncated or changed, or the manifest itself was edited.
    """
    if fingerprint_of(about) != about["fingerprint"]:
        raise StoreError(f"{path}: store.json was changed by hand; its fingerprint does not match")
    for name in ALWAYS_PRESENT:
        if name not in about["files"]:
            raise StoreError(f"{path}: store.json does not list {name}")
    for name, expected in about["files"].items():
        file = path / name
        if not file.is_file():
            raise StoreError(f"{path}: {name} is missing")
        if file.stat().st_size != expected["bytes"]:
            raise StoreError(
                f"{file}: expected {expected['bytes']} bytes, "
                f"got {file.stat().st_size} (truncated?)"
            )
        if (full or name not in _LARGE) and sha256_of_file(file) != expected["sha256"]:
            raise StoreError(f"{file}: the content does not match the SHA-256 in store.json")


def fingerprint_of(about: Mapping[str, Any]) -> str:
    """SHA-256 over the source, the classes, the sizes and the hash of every file."""
    identity = {key: about[key] for key in _IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def map_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A read-only memory map of a uint8 .npy file whose shape must be `shape`; where the file
    system cannot map files, the array itself, in memory.

    Raises:
        StoreError: no such file, a broken one, or one of another type or shape.
    """
    try:
        array = _mapped_or_read(path)
    except (ValueError, EOFError, OSError) as error:
        raise StoreError(f"{path}: not a readable .npy file ({error})") from error
    if array.dtype != np.uint8 or array.shape != shape:
        raise StoreError(f"{path}: expected uint8 {shape}, got {array.dtype} {array.shape}")
    return array


def _mapped_or_read(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except OSError:  # ENODEV, EINVAL, EACCES, ...: each file system has its own
        array: np.ndarray = np.load(path, allow_pickle=False)
        array.flags.writeable = False
        return array
