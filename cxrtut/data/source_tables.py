"""Reading the tables that come with a data source: csv files and lists of names, gzipped or not."""

import csv
import gzip
import os
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path


class SourceError(Exception):
    """The files of a data source are not as expected; says which and what would be."""


def open_text(path: str | os.PathLike[str]) -> TextIOWrapper:
    """Open a text file for reading, through gzip when its name ends in .gz; a byte order mark is
    dropped.

    Raises:
        SourceError: no such file.
    """
    if not Path(path).is_file():
        raise SourceError(f"{path}: no such file")
    if Path(path).suffix == ".gz":
        return TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def read_csv(
    path: str | os.PathLike[str], columns: Iterable[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row, one after the other, of a csv file that must have `columns`.

    Raises:
        SourceError: a column is missing, or a row is shorter than the header.
    """
    columns = list(columns)
    with open_text(path) as lines:
        reader = csv.DictReader(lines)
        absent = [column for column in columns if column not in (reader.fieldnames or [])]
        if absent:
            raise SourceError(f"{path}: expected columns {absent}, got {reader.fieldnames}")
        for row in reader:
            if any(row[column] is None for column in columns):
                raise SourceError(f"{path}, line {reader.line_num}: expected {columns}, got {row}")
            yield reader.line_num, row


def read_names(path: str | os.PathLike[str]) -> set[str]:
    """The lines of a list of names."""
    with open_text(path) as lines:
        return {line.strip() for line in lines if line.strip()}


def find_table(folders: Iterable[str | os.PathLike[str]], *names: str) -> Path | None:
    """The first of `names` (or that name with .gz) that lies anywhere below `folders`."""
    found = {path.name: path for folder in folders for path in sorted(Path(folder).rglob("*.*"))}
    wanted = [name + ending for name in names for ending in ("", ".gz")]
    return next((found[name] for name in wanted if name in found), None)


def find_files(
    folders: Iterable[str | os.PathLike[str]], suffixes: Iterable[str]
) -> dict[str, Path]:
    """Stem -> file below `folders`, for files with one of `suffixes`; an earlier suffix wins over a
    later.
    """
    rank = {suffix: i for i, suffix in enumerate(suffixes)}
    found: dict[str, Path] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise SourceError(f"{folder}: expected a folder, found none")
        for path in sorted(Path(folder).rglob("*")):
            mine = rank.get(path.suffix.lower())
            if mine is not None:
                other = found.get(path.stem)
                if other is None or mine < rank[other.suffix.lower()]:
                    found[path.stem] = path
    return found
