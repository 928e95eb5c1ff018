"""The tables of an array store: table.csv, a line per image, and boxes.csv, a line per box."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from cxrtut.data.manifest import StoreError
from cxrtut.data.sample import PADDING

NEEDED_COLUMNS = ("name", "patient", "split")
_TOLERANCE = 1e-3  # pixels: float32 rounding of a box that touches the border


class BoxRow(NamedTuple):
    """One line of boxes.csv: `row` of the image in the store, class index, xyxy in store pixels."""

    row: int
    label: int
    x0: float
    y0: float
    x1: float
    y1: float
    origin: str


@dataclass(frozen=True, eq=False)
class BoxTable:
    """All boxes of a store, column by column, in the order of boxes.csv.

    Attributes:
        row: the image's row in the store.
        label: class index.
        xyxy: pixels of the store.
        origin: who drew the box, e.g. `nih_bbox_2017`, `rsna_2018`, `phantom`.
    """

    row: Int64[np.ndarray, "b"]
    label: Int64[np.ndarray, "b"]
    xyxy: Float32[np.ndarray, "b 4"]
    origin: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> "BoxTable":
        """From `BoxRow`s or plain tuples of the same seven entries."""
        boxes = [BoxRow(*row) for row in rows]
        return cls(
            row=np.array([box.row for box in boxes], dtype=np.int64),
            label=np.array([box.label for box in boxes], dtype=np.int64),
            xyxy=np.array([box[2:6] for box in boxes], dtype=np.float32).reshape(-1, 4),
            origin=np.array([box.origin for box in boxes], dtype=str),
        )

    def of(self, row: int) -> tuple[Float32[np.ndarray, "m 4"], Int64[np.ndarray, "m"]]:
        """The boxes and class indices of one image."""
        chosen = self.row == row
        return self.xyxy[chosen], self.label[chosen]

    def padded(self, n: int) -> tuple[Float32[np.ndarray, "n M 4"], Int64[np.ndarray, "n M"]]:
        """Boxes and labels of `n` images as rectangular arrays; M >= 1 is the largest count of an
        image.
        """
        counts = np.bincount(self.row, minlength=n)
        xyxy = np.zeros((n, max(1, int(counts.max(initial=0))), 4), dtype=np.float32)
        label = np.full(xyxy.shape[:2], PADDING, dtype=np.int64)
        order = np.argsort(self.row, kind="stable")
        first = np.cumsum(counts) - counts
        slot = np.arange(len(order)) - first[self.row[order]]
        xyxy[self.row[order], slot] = self.xyxy[order]
        label[self.row[order], slot] = self.label[order]
        return xyxy, label


def check_boxes(boxes: Iterable[BoxRow], n_rows: range, n_classes: int, size: int) -> None:
    """Raise StoreError at the first box whose row, class or corners cannot be right.

    Args:
        boxes: boxes in store pixels.
        n_rows: the rows they may belong to.
        n_classes: K.
        size: height and width of the images.
    """
    for box in boxes:
        x0, y0, x1, y1 = box[2:6]
        if box.row not in n_rows:
            raise StoreError(f"boxes: expected a row of {n_rows}, got {tuple(box)}")
        if not 0 <= box.label < n_classes:
            raise StoreError(f"boxes: expected a class index below {n_classes}, got {tuple(box)}")
        if not (x0 < x1 and y0 < y1):
            raise StoreError(f"boxes: expected x0 < x1 and y0 < y1, got {tuple(box)}")
        if min(x0, y0) < -_TOLERANCE or max(x1, y1) > size + _TOLERANCE:
            raise StoreError(
                f"boxes: expected a box inside {size} x {size} pixels, got {tuple(box)}"
            )


def check_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None) -> None:
    """Raise StoreError unless every row has name, patient, split and the same columns as `columns`,
    if given.
    """
    for row in rows:
        missing = [name for name in NEEDED_COLUMNS if name not in row]
        if missing:
            raise StoreError(f"table: expected columns {NEEDED_COLUMNS}, missing {missing}")
        if set(row) != set(rows[0] if columns is None else columns):
            expected = sorted(rows[0] if columns is None else columns)
            raise StoreError(
                f"table: expected the columns {expected} in every row, got {sorted(row)}"
            )


def table_text(rows: Sequence[Mapping[str, object]]) -> str:
    """table.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def boxes_text(boxes: Iterable[BoxRow]) -> str:
    """boxes.csv. Coordinates are printed so that float32 values survive."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(BoxRow._fields)
    for box in sorted(boxes, key=lambda box: box.row):
        corners = (f"{float(v):.9g}" for v in box[2:6])
        writer.writerow([int(box.row), int(box.label), *corners, box.origin])
    return text.getvalue()


def table_columns(rows: Sequence[Mapping[str, object]]) -> dict[str, np.ndarray]:
    """Column name -> array of strings."""
    return {name: np.array([str(row[name]) for row in rows]) for name in rows[0]}


def read_table(path: Path, n: int) -> dict[str, np.ndarray]:
    """table.csv as column name -> array of `n` strings."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, restval=None))
    if len(rows) != n or any(None in row or None in row.values() for row in rows):
        raise StoreError(f"{path}: expected {n} whole rows, got {len(rows)}")
    check_table(rows, None)
    return table_columns(rows)


def read_boxes(path: Path) -> BoxTable:
    """boxes.csv."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != BoxRow._fields:
            raise StoreError(f"{path}: expected the header {','.join(BoxRow._fields)}")
        try:
            return BoxTable.from_rows(
                (int(row), int(label), *map(float, corners), origin)
                for row, label, *corners, origin in reader
            )
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path}: a line cannot be read ({error})") from error
