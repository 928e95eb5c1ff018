"""A folder of image files with a table of labels, as the arrays of a store."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cxrtut.data.decode import (
    IMAGE_SUFFIXES,
    Frame,
    ImageError,
    channels_first,
    decode_image,
    fit_square,
)
from cxrtut.data.source_files import (
    by_name,
    by_stem,
    composed,
    copies_warning,
    find_files,
    one_file,
)
from cxrtut.data.source_tables import SourceError, number, read_csv
from cxrtut.data.splits import check_patients, patient_hash_split

SPLITS = ("train", "test")
NOT_CLASSES = ("name", "patient", "split")
BOX_COLUMNS = ("name", "label", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, eq=False)
class FolderArrays:
    """What `read_folder` returns: the arguments of `ArrayStore.from_arrays`."""

    images: UInt8[np.ndarray, "n C S S"]
    labels: UInt8[np.ndarray, "n K"]
    classes: tuple[str, ...]
    table_rows: list[dict[str, str]]
    boxes_rows: list[tuple[int, int, float, float, float, float, str]]


def read_folder(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    size: int,
    channels: int = 1,
    boxes: str | os.PathLike[str] | None = None,
) -> FolderArrays:
    """Decodes every image of a folder (and its folders) that a table names.

    Args:
        folder: of the image files.
        labels: a CSV with a column `name` (of the file, with or without its ending), one column of
            0 and 1 for each class, and, if they are known, `patient` and `split` (`train` or
            `test`). Without a patient every image is its own; without a split, a fifth of the
            patients is for testing.
        size: height and width to bring the images to, pixels.
        channels: 1, or 3 for colour.
        boxes: a CSV with the columns name, label, x0, y0, x1, y1, in pixels of the file.

    Raises:
        SourceError: a table that cannot be read, a name that two different files have, an image
            that is named twice, a split of another name, a patient in two splits, or no image at
            all; a box of no such image, or beside it. Images that are missing or cannot be read are
            warned of, and left out.
    """
    below = find_files([folder])
    files = {**by_stem(below.images), **by_name(below.images)}
    rows = [row for _, row in read_csv(labels, ("name",))]
    if not rows:
        raise SourceError(f"{labels}: expected a line for each image, got none")
    named = {composed(row["name"]) for row in rows}
    classes = tuple(column for column in rows[0] if column not in NOT_CLASSES)
    if not classes:
        raise SourceError(f"{labels}: expected a column of 0 and 1 for each class, got none")
    images: list[np.ndarray] = []
    kept: list[dict[str, str]] = []
    frames: dict[Path, tuple[int, Frame]] = {}
    lost = list(below.left_out)
    copied = 0
    for row in rows:
        path = _file_of(row["name"], files)
        copied += len(_files_of(row["name"], files)) > 1
        if path in frames:
            raise SourceError(f"{labels}: expected a line for each image, got {path} twice")
        try:
            if path is None:
                raise ImageError(f"{row['name']}: no such file in {folder}")
            square, frame = fit_square(decode_image(path, 3 if channels == 3 else 1), size)
        except ImageError as error:
            lost.append(str(error))
            continue
        frames[path] = (len(kept), frame)
        images.append(channels_first(square))
        kept.append(row)
    if not kept:
        raise SourceError(f"{folder}: expected the images of {labels}, found none; {lost[0]}")
    if lost:
        warnings.warn(f"{len(lost)} images are left out, first {lost[0]}", stacklevel=3)
    for warning in copies_warning(copied):
        warnings.warn(warning, stacklevel=3)
    found: list[tuple[int, int, float, float, float, float, str]] = []
    if boxes is not None:
        for line, row in read_csv(boxes, BOX_COLUMNS):
            if row["label"] not in classes:
                raise SourceError(
                    f"{boxes}, line {line}: expected one of {', '.join(classes)}, "
                    f"got {row['label']!r}"
                )
            corners = [[number(row, column, boxes, line) for column in BOX_COLUMNS[2:]]]
            path = _file_of(row["name"], files)
            if composed(row["name"]) not in named and path not in frames:
                raise SourceError(
                    f"{boxes}, line {line}: expected an image of {labels}, got {row['name']!r}"
                )
            if path in frames:
                place, frame = frames[path]
                x0, y0, x1, y1 = frame.boxes(corners)[0].tolist()
                if not (x1 > x0 and y1 > y0):
                    raise SourceError(
                        f"{boxes}, line {line}: expected a box inside the "
                        f"{frame.width} x {frame.height} pixels of {row['name']}, got {corners[0]}"
                    )
                found.append((place, classes.index(row["label"]), x0, y0, x1, y1, "folder"))
    table = [_line(row, labels) for row in kept]
    check_patients(
        {line["name"]: line["patient"] for line in table},
        {line["name"]: line["split"] for line in table},
    )
    return FolderArrays(
        np.stack(images), np.array([_labels(row, classes, labels) for row in kept], np.uint8),
        classes, table, found,
    )  # fmt: skip


def _file_of(name: str, files: Mapping[str, Sequence[Path]]) -> Path | None:
    """The file that a table names; of several copies the first."""
    same = _files_of(name, files)
    return one_file(name, same) if same else None


def _files_of(name: str, files: Mapping[str, Sequence[Path]]) -> Sequence[Path]:
    """The files that a table names, with their ending, without, or with another."""
    name = composed(name)
    ending = Path(name).suffix
    bare = name.removesuffix(ending) if ending.lower() in IMAGE_SUFFIXES else name
    return files.get(name) or files.get(bare) or ()


def _labels(
    row: Mapping[str, str], classes: Sequence[str], path: str | os.PathLike[str]
) -> list[int]:
    for name in classes:
        if (label := row.get(name, "")) not in ("0", "1"):
            raise SourceError(
                f"{path}, {row['name']}: expected 0 or 1 in column {name!r}, got {label!r}"
            )
    return [int(row[name]) for name in classes]


def _line(row: Mapping[str, str], path: str | os.PathLike[str]) -> dict[str, str]:
    patient = row.get("patient") or row["name"]
    split = row.get("split") or patient_hash_split(patient)
    if split not in SPLITS:
        raise SourceError(
            f"{path}, {row['name']}: expected {' or '.join(SPLITS)} in column 'split', "
            f"got {split!r}"
        )
    return {"name": row["name"], "patient": patient, "split": split}
