"""Finding the files of a data source: what lies below some folders, and which file a name means.

- Links to folders are followed. A folder that is met twice, or that leads back to itself, counts
  once, by its own path rather than by that of a link.
- A link whose file is not there is no file.
- What begins with a dot (`._film.jpg`, `.ipynb_checkpoints`) is passed over, and so are the folders
  in which systems keep copies of their own (`__MACOSX`, a file server's `@eaDir`, a waste basket).
- A path that is not UTF-8 could not be printed or remembered: such an image is left out and named.
- Names are compared in the composed form of Unicode (NFC), because macOS stores the other.
"""

import filecmp
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtut.data.decode import IMAGE_SUFFIXES
from cxrtut.data.source_tables import SourceError

_OF_THE_SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


@dataclass(frozen=True)
class FoundFiles:
    """What lies below some folders.

    Attributes:
        files: every file, those of the first folder first, and there by path.
        dangling: links with the name of an image whose file is not there.
        left_out: what cannot be used, in words that can be printed: images whose path is not UTF-8,
            folders that cannot be opened.
    """

    files: tuple[Path, ...]
    dangling: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """The files with the ending of an image."""
        return tuple(path for path in self.files if is_image(path))

    def table(self, *names: str) -> Path | None:
        """The first of `names` that is there, the plain file before the one with .gz; of several
        files of that name the one in the first folder, and there the first by path.
        """
        wanted = [name + ending for name in names for ending in ("", ".gz")]
        found: dict[str, Path] = {}
        for path in self.files:
            if path.name in wanted:
                found.setdefault(path.name, path)
        return next((found[name] for name in wanted if name in found), None)


def is_image(path: Path) -> bool:
    """Whether a name ends like that of an image, in upper or lower case."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def check_folders(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The folders as paths.

    Raises:
        SourceError: one of them is none, or its path is not UTF-8.
    """
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not _is_utf8(path):
            raise SourceError(f"{printable(path)}: expected a folder whose path is UTF-8")
        if not path.is_dir():
            got = "a file" if path.exists() else "nothing"
            raise SourceError(f"{path}: expected a folder, got {got}")
    return paths


def find_files(folders: Iterable[str | os.PathLike[str]]) -> FoundFiles:
    """Everything below `folders`, as the head of this file says.

    Raises:
        SourceError: a folder is none.
    """
    files: list[Path] = []
    dangling: list[Path] = []
    left_out: list[str] = []
    met: set[str] = set()
    for folder in check_folders(folders):
        for path in sorted(_below(folder, met, left_out)):
            if os.path.isfile(path):
                if _is_utf8(path):
                    files.append(path)
                elif is_image(path):
                    left_out.append(f"{printable(path)}: expected a path in UTF-8")
            elif is_image(path) and path.is_symlink() and _is_utf8(path):
                dangling.append(path)
    return FoundFiles(tuple(files), tuple(dangling), tuple(left_out))


def _below(top: Path, met: set[str], left_out: list[str]) -> Iterator[Path]:
    """What lies below a folder and is no folder; links to folders are followed after all others.

    Args:
        top: the folder.
        met: the real paths of the folders that were searched, those of `top` are added.
        left_out: gets a line for each folder that cannot be opened.
    """
    waiting, linked = [top], list[Path]()
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.pop(0)
        real = os.path.realpath(folder)
        if real in met:
            continue
        met.add(real)
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if folder == top:
                raise
            left_out.append(f"{printable(folder)}: the folder cannot be opened ({error.strerror})")
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name in _OF_THE_SYSTEM:
                continue
            if not os.path.isdir(path):
                yield path
            elif entry.is_symlink():
                linked.append(path)
            else:
                waiting.append(path)


def by_stem(paths: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """The files of each name without its ending."""
    return _grouped((composed(path.stem), path) for path in paths)


def by_name(paths: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """The files of each name with its ending."""
    return _grouped((composed(path.name), path) for path in paths)


def composed(name: str) -> str:
    """A name in the composed form of Unicode."""
    return unicodedata.normalize("NFC", name)


def one_file(name: str, files: Sequence[Path]) -> Path:
    """The first of the files of one name, where the others are copies of it.

    Raises:
        SourceError: two of them differ, so that one of them must be something else than the image,
            as its mask or a small copy.
    """
    first, *others = files
    for other in others:
        if not _equal(first, other):
            raise SourceError(
                f"{name}: expected one file of that name, or copies of it, got {first} and "
                f"{other}, which differ (a mask, or another size?)"
            )
    return first


def one_file_each(
    names: Iterable[str], files: Mapping[str, Sequence[Path]]
) -> tuple[dict[str, Path], list[str]]:
    """The file of each name, and a warning if there are copies.

    Raises:
        SourceError: two different files have one of the names.
    """
    chosen = {name: one_file(name, files[name]) for name in names}
    return chosen, copies_warning(sum(len(files[name]) > 1 for name in chosen))


def copies_warning(n: int) -> list[str]:
    """What is said of `n` images of which there are copies."""
    return [f"{n} images are there more than once, as equal copies; the first is taken"] * (n > 0)


def printable(path: str | os.PathLike[str]) -> str:
    """A path in characters that can be written as UTF-8; bytes that are none become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _grouped(named: Iterable[tuple[str, Path]]) -> dict[str, tuple[Path, ...]]:
    groups: dict[str, tuple[Path, ...]] = {}
    for name, path in named:
        groups[name] = (*groups.get(name, ()), path)
    return groups


def _equal(one: Path, other: Path) -> bool:
    return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
