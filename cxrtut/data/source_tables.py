"""Reading the tables that come with a data source: csv files and lists of names, gzipped or not."""

import csv
import gzip
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cxrtut.data.decode import Frame

Corners = tuple[float, float, float, float]


class SourceError(Exception):
    """The files of a data source are not as expected; says which and what would be."""


def read_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends, through gzip when its name ends in .gz; a byte
    order mark is dropped.

    Raises:
        SourceError: no such file, no UTF-8, or a damaged gzip file; with the line.
    """
    if not Path(path).is_file():
        raise SourceError(f"{path}: no such file")
    line = 0
    with gzip.open(path) if Path(path).suffix == ".gz" else open(path, "rb") as file:
        try:
            for line, data in enumerate(file, start=1):
                yield data.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}, line {line}: expected UTF-8 text ({error})") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(
                f"{path}, line {line + 1}: expected a whole gzip file ({error})"
            ) from error


def read_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row of a csv file that is not blank, the header too.

    Fields are separated by tabs where the first line has more tabs than commas.

    Raises:
        SourceError: the file or a line cannot be read.
    """
    lines = read_lines(path)
    header = next(lines, "")
    delimiter = "\t" if header.count("\t") > header.count(",") else ","
    reader = csv.reader(chain([header], lines), delimiter=delimiter)
    try:
        for row in filter(None, reader):
            yield reader.line_num, row
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: {error}") from error


def read_csv(
    path: str | os.PathLike[str], columns: Iterable[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row, one after the other, of a csv file that must have `columns`.

    Raises:
        SourceError: a column is missing, a row is shorter than its columns, or see `read_rows`.
    """
    columns = list(columns)
    rows = read_rows(path)
    _, header = next(rows, (0, []))
    absent = [column for column in columns if column not in header]
    if absent:
        raise SourceError(f"{path}: expected columns {absent}, got {header}")
    for line, fields in rows:
        row = dict(zip(header, fields, strict=False))
        if any(column not in row for column in columns):
            raise SourceError(f"{path}, line {line}: expected {columns}, got {fields}")
        yield line, row


def read_names(path: str | os.PathLike[str]) -> set[str]:
    """The lines of a list of names."""
    return {line.strip() for line in read_lines(path) if line.strip()}


def number(row: Mapping[str, str], column: str, path: str | os.PathLike[str], line: int) -> float:
    """The finite number in a column of a row.

    Raises:
        SourceError: there is none; with the line and the column.
    """
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SourceError(
            f"{path}, line {line}: expected a number as {column}, got {row[column]!r}"
        )
    return value


def box_corners(
    row: Mapping[str, str], name: str, frame: int, path: str | os.PathLike[str], line: int
) -> Corners:
    """The box in the columns x, y, width, height as xyxy in pixels.

    Args:
        row: the row of the table.
        name: the image; named in errors.
        frame: height and width of the image; the box may hang over its border.
        path: the table.
        line: the line of `row`.

    Raises:
        SourceError: no four numbers, an empty box, or one beside the image.
    """
    x, y, width, height = (number(row, key, path, line) for key in ("x", "y", "width", "height"))
    if not (width > 0 and height > 0):
        raise SourceError(
            f"{path}, line {line}: expected a box with width and height > 0, "
            f"got {width:g} x {height:g} for {name}"
        )
    if not (x < frame and y < frame and x + width > 0 and y + height > 0):
        raise SourceError(
            f"{path}, line {line}: expected a box inside {frame} x {frame} pixels, "
            f"got x, y, width, height {(x, y, width, height)} for {name}"
        )
    return x, y, x + width, y + height


def boxes_in_store(
    boxes: Sequence[Corners], original: int, frame: Frame, path: str | os.PathLike[str]
) -> Float[np.ndarray, "n 4"]:
    """Boxes in pixels of a square original, as xyxy in pixels of the store.

    Args:
        boxes: of one image.
        original: height and width of the original.
        frame: where the file's picture lies in the store's square.
        path: the file.

    Raises:
        SourceError: there are boxes, and the file is not square: whether the original was cropped
            or stretched to it cannot be told.
    """
    if boxes and frame.height != frame.width:
        raise SourceError(
            f"{path}: its boxes are in pixels of {original} x {original}; expected a square file, "
            f"got {frame.height} x {frame.width} pixels (cropped, or stretched?)"
        )
    return Frame(original, original, frame.size).boxes(boxes)
