"""Writing an array store: all of it, or nothing."""

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from cxrtut.data.manifest import (
    PARTIAL,
    StoreError,
    check_replaceable,
    write_manifest,
)
from cxrtut.data.tables import BoxRow, boxes_text, check_boxes, check_table, table_text
from cxrtut.files import flush_folder, flush_to_disk

_SWAP = threading.Lock()  # one store at a time takes its place


class StoreWriter:
    """Writes a store folder: all of it, or nothing.

    Use it as a context manager. Files are written under `<path>.partial-<pid>-<number>`; on a clean
    exit they are flushed, hashed and renamed to `path`; on an error or Ctrl-C they are removed.
    Of several writers of one path the first to finish has it. The others replace its store, if they
    may overwrite, or get a StoreError. A path that is a link is written where it leads to.

        with StoreWriter(path, source="x", classes=("Mass",), n=9, size=64, licence="CC0") as w:
            w.write(0, images, labels, table_rows, boxes_rows)

    Args:
        path: the folder to make.
        source: name of the data source.
        classes: the K class names.
        n: number of images; every row must be written exactly once.
        channels: C.
        size: height and width of the images in pixels.
        licence: one line: the terms of the data.
        with_healthy: every block brings the healthy twins.
        with_masks: every block brings the mask bit field (at most 8 classes).
        overwrite: replace an existing store of the same source, once the new one is whole; the
            folder may hold nothing else but a README.txt, which goes too.
        notes: strings to remember in store.json.

    Raises:
        StoreError: wrong arguments, or `path` exists and is not to be (or cannot safely be)
            replaced.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: str,
        classes: Sequence[str],
        n: int,
        size: int,
        licence: str,
        channels: int = 1,
        with_healthy: bool = False,
        with_masks: bool = False,
        overwrite: bool = False,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        check_classes(classes, with_masks=with_masks)
        if min(n, channels, size) < 1:
            raise StoreError(f"expected n, channels, size >= 1, got {(n, channels, size)}")
        # what is renamed and removed must be the folder, never a link to it
        self.path = Path(path).resolve() if Path(path).is_symlink() else Path(path)
        self._overwrite = overwrite
        self.source, self.licence, self.notes = source, licence, dict(notes or {})
        self.classes, self.n, self.channels, self.size = tuple(classes), n, channels, size
        self._shapes = {"images": (channels, size, size), "labels": (len(classes),)}
        if with_healthy:
            self._shapes["healthy"] = (channels, size, size)
        if with_masks:
            self._shapes["masks"] = (size, size)
        own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"  # of this writer among all
        self._partial = self.path.with_name(f"{self.path.name}{PARTIAL}{own}")
        self._former = self.path.with_name(f"{self.path.name}.former-{own}")
        self._files: dict[str, BinaryIO] = {}
        self._check_place()
        self._table: list[Mapping[str, object] | None] = [None] * n
        self._boxes: list[BoxRow] = []

    def __enter__(self) -> "StoreWriter":
        try:
            self._partial.mkdir(parents=True)
            for name in self._shapes:
                self._files[name] = open(self._partial / f"{name}.npy", "wb")
            self._offsets = {name: self._write_header(name) for name in self._shapes}
        except BaseException:  # an interrupt before `with` has begun
            self._discard()
            raise
        return self

    def write(
        self,
        row: int,
        images_uint8: UInt8[np.ndarray, "b C S S"],
        labels: np.ndarray,
        table_rows: Sequence[Mapping[str, object]],
        boxes_rows: Iterable[Sequence[Any]] = (),
        healthy: UInt8[np.ndarray, "b C S S"] | None = None,
        masks: UInt8[np.ndarray, "b S S"] | None = None,
    ) -> None:
        """Write a block of consecutive images; blocks may come in any order.

        Args:
            row: row of the first image of the block in the store.
            images_uint8: (b, C, S, S).
            labels: (b, K), {0, 1}.
            table_rows: b mappings with at least name, patient and split, all with the same keys.
            boxes_rows: `BoxRow`s or such tuples; their `row` counts from the start of the *store*.
            healthy: the healthy twins, if the store has them.
            masks: the bit field of `pack_masks`, if the store has masks.

        Raises:
            StoreError: a block that does not fit, or a row that was written before.
        """
        arrays = {"images": images_uint8, "labels": labels, "healthy": healthy, "masks": masks}
        end = row + len(table_rows)
        if row < 0 or end > self.n:
            raise StoreError(f"expected rows in [0, {self.n}), got {row} ... {end - 1}")
        given = {name for name, array in arrays.items() if array is not None}
        if given != set(self._shapes):
            raise StoreError(f"expected {sorted(self._shapes)}, got {sorted(given)}")
        check_arrays(arrays, len(table_rows), len(self.classes), self.channels, self.size)
        known = next((line for line in self._table if line is not None), None)
        check_table(table_rows, None if known is None else list(known))
        boxes = [BoxRow(*box) for box in boxes_rows]
        check_boxes(boxes, range(row, end), len(self.classes), self.size)
        if any(line is not None for line in self._table[row:end]):
            raise StoreError(f"rows {row} ... {end - 1}: some were written before")
        for name, shape in self._shapes.items():
            self._files[name].seek(self._offsets[name] + row * int(np.prod(shape)))
            self._files[name].write(np.ascontiguousarray(arrays[name], dtype=np.uint8).data)
        self._table[row:end] = [dict(line) for line in table_rows]
        self._boxes.extend(boxes)

    def shrink(self, n: int) -> None:
        """Settle for the first `n` rows, when some images turned out to be unreadable.

        Raises:
            StoreError: `n` is larger than announced, or a later row was written already.
        """
        if not 1 <= n <= self.n or any(line is not None for line in self._table[n:]):
            raise StoreError(f"cannot shrink from {self.n} to {n} rows: they must be the first")
        self.n = n
        del self._table[n:]
        for name, shape in self._shapes.items():
            self._files[name].seek(0)
            self._write_header(name)
            self._files[name].truncate(self._offsets[name] + n * int(np.prod(shape)))

    def _check_place(self) -> None:
        """Raise StoreError if something is at `path` that is not to be replaced."""
        if self.path.exists() and not self._overwrite:
            raise StoreError(f"{self.path}: exists already; remove it or pass overwrite=True")
        if self.path.exists():
            check_replaceable(self.path, self.source, beside=["README.txt"])

    def _write_header(self, name: str) -> int:
        """The .npy header of one array; numpy pads it, so that its length does not depend on n."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.n, *self._shapes[name])}
        np.lib.format.write_array_header_1_0(self._files[name], header)
        return self._files[name].tell()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                for file in self._files.values():
                    file.flush()
                    flush_to_disk(file.fileno())
                    file.close()
                self._complete()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Remove what was begun, if it has not become the store."""
        for file in self._files.values():
            with suppress(OSError):  # closing writes the rest, which a full disk refuses again
                file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _complete(self) -> None:
        missing = [i for i, line in enumerate(self._table) if line is None]
        if missing:
            raise StoreError(
                f"expected {self.n} rows, row {missing[0]} (and {len(missing) - 1} more) missing"
            )
        lines = [line for line in self._table if line is not None]
        for name, text in (("table", table_text(lines)), ("boxes", boxes_text(self._boxes))):
            with open(self._partial / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                flush_to_disk(file.fileno())
        write_manifest(
            self._partial,
            source=self.source,
            licence=self.licence,
            classes=self.classes,
            n=self.n,
            channels=self.channels,
            size=self.size,
            notes=self.notes,
        )
        flush_folder(self._partial)
        self._swap_in()

    def _swap_in(self) -> None:
        """Put the new store in its place, and remove the former one.

        Raises:
            StoreError: another process was quicker.
        """
        with _SWAP:
            try:
                self._check_place()  # again: something may have come there in the meantime
                if self.path.exists():
                    os.rename(self.path, self._former)
                os.rename(self._partial, self.path)
                flush_folder(self.path.parent)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
                    raise StoreError(
                        f"{self.path}: another process wrote a store there in the meantime"
                    ) from error
                raise
            finally:
                if self._former.exists() and not self.path.exists():
                    os.rename(self._former, self.path)
                shutil.rmtree(self._former, ignore_errors=True)


def check_classes(classes: Sequence[str], *, with_masks: bool) -> None:
    """Raise StoreError unless the class names differ and, for masks, fit the bit field."""
    if isinstance(classes, str) or not classes or len(set(classes)) != len(classes):
        raise StoreError(f"classes: expected a tuple of different names, got {classes!r}")
    if with_masks and len(classes) > 8:
        raise StoreError(f"masks: a bit field holds at most 8 classes, got {len(classes)}")


def check_arrays(
    arrays: Mapping[str, np.ndarray | None], n: int, n_classes: int, channels: int, size: int
) -> None:
    """Raise StoreError unless the arrays of `n` images have the right shapes, uint8 pixels and {0,
    1} labels.
    """
    expected = {
        "images": (n, channels, size, size),
        "healthy": (n, channels, size, size),
        "masks": (n, size, size),
        "labels": (n, n_classes),
    }
    for name, array in arrays.items():
        if array is None:
            continue
        if array.shape != expected[name]:
            raise StoreError(f"{name}: expected shape {expected[name]}, got {array.shape}")
        if name != "labels" and array.dtype != np.uint8:
            raise StoreError(f"{name}: expected uint8, got {array.dtype}")
    labels = arrays["labels"]
    if labels is not None and not np.isin(labels, (0, 1)).all():
        raise StoreError(f"labels: expected only 0 and 1, got {np.unique(labels)[:5].tolist()}")
