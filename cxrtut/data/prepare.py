"""Image files to an array store: decode every file once, in parallel, and say what was found,
missing and broken.
"""

import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxrtut.data.decode import ImageError
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import ArrayStore, BoxRow, StoreError, StoreWriter

_BLOCK_ROWS = 128
_NAMED = 5


class Picture(NamedTuple):
    """A decoded image: pixels (C, S, S), mask bit field (S, S) or None, boxes (label, x0, y0, x1,
    y1, origin).
    """

    pixels: np.ndarray
    mask: np.ndarray | None = None
    boxes: Sequence[tuple[int, float, float, float, float, str]] = ()


@dataclass(frozen=True)
class Entry:
    """One image to be: how to decode it, its labels {0, 1}^K and its line of table.csv."""

    decode: Callable[[], Picture]
    labels: Sequence[int]
    line: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a store shall be.

    Attributes:
        inputs: every file that is read; their names, sizes and dates are the fingerprint of the
            inputs.
        settings: whatever else decides about the result (a limit, a crop).
    """

    source: str
    licence: str
    classes: tuple[str, ...]
    size: int
    channels: int = 1
    with_masks: bool = False
    inputs: Sequence[Path] = ()
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What came of a preparation."""

    store: Path
    images: int
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    already_prepared: bool = False
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{'already prepared' if self.already_prepared else 'prepared'}: {self.store}",
            f"  found    {self.images:>7}",
            f"  missing  {len(self.missing):>7}  {_first_names(self.missing)}",
            f"  broken   {len(self.broken):>7}  {_first_names(self.broken)}",
        ]
        lines.extend(f"  {remark}" for remark in self.remarks)
        return "\n".join(line.rstrip() for line in lines)


def prepare_store(
    entries: Sequence[Entry],
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    missing: Sequence[str] = (),
    remarks: Sequence[str] = (),
    threads: int | None = None,
) -> Report:
    """Decode `entries` into the store `out`; files that cannot be decoded are left out and named.

    A store that was made from the same inputs with the same settings is left as it is. One made
    from others is replaced, once the new one is whole.

    Raises:
        SourceError: nothing to decode, or nothing that could be decoded.
        StoreError: `out` is there and is no store.
    """
    out = Path(out)
    inputs = fingerprint_of_inputs(recipe)
    done = _prepared_before(out, inputs)
    if done is not None:
        unread = tuple(filter(None, done.notes.get("broken", "").split("\n")))
        return Report(out, len(done), tuple(missing), unread, True, tuple(remarks))
    if not entries:
        raise SourceError(f"{recipe.source}: no image was found")
    broken: list[str] = []
    with StoreWriter(
        out,
        source=recipe.source,
        classes=recipe.classes,
        n=len(entries),
        channels=recipe.channels,
        size=recipe.size,
        licence=recipe.licence,
        with_masks=recipe.with_masks,
        overwrite=True,
        notes={"inputs": inputs},
    ) as writer:
        row = 0
        for block in _blocks(_decoded(entries, threads, broken)):
            _write_block(writer, row, block)
            row += len(block)
            _show_progress(row + len(broken), len(entries))
        if row == 0:
            raise SourceError(
                f"{recipe.source}: none of {len(entries)} images can be read: {broken[0]}"
            )
        writer.shrink(row)
        writer.notes["broken"] = "\n".join(broken)
    return Report(out, row, tuple(missing), tuple(broken), False, tuple(remarks))


def fingerprint_of_inputs(recipe: Recipe) -> str:
    """SHA-256 over the recipe and the name, size and modification time of every input file."""
    digest = hashlib.sha256(
        repr(
            (
                recipe.source,
                recipe.classes,
                recipe.size,
                recipe.channels,
                sorted(recipe.settings.items()),
            )
        ).encode()
    )
    for path in sorted(set(recipe.inputs)):
        about = path.stat()
        digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _prepared_before(out: Path, inputs: str) -> ArrayStore | None:
    if not out.exists():
        return None
    if not (out / "store.json").is_file():
        raise StoreError(f"{out}: exists and is no array store; choose another --out")
    try:
        store = ArrayStore.open(out)
    except StoreError:
        return None  # damaged: made anew, and swapped in when whole
    return store if store.notes.get("inputs") == inputs else None


def _decoded(
    entries: Sequence[Entry], threads: int | None, broken: list[str]
) -> Iterator[tuple[Entry, Picture]]:
    """The entries in order with their pictures, decoded a little ahead; the names of the unreadable
    go to `broken`.
    """
    threads = threads or min(
        32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    )
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Entry, Future[Picture]]] = deque()
    try:
        for entry in entries:
            waiting.append((entry, pool.submit(entry.decode)))
            if len(waiting) > 4 * threads:
                yield from _finished(waiting.popleft(), broken)
        while waiting:
            yield from _finished(waiting.popleft(), broken)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(
    job: tuple[Entry, "Future[Picture]"], broken: list[str]
) -> Iterator[tuple[Entry, Picture]]:
    entry, future = job
    try:
        yield entry, future.result()
    except ImageError as error:
        broken.append(str(error).replace("\n", " "))


def _blocks(
    pictures: Iterable[tuple[Entry, Picture]],
) -> Iterator[list[tuple[Entry, Picture]]]:
    block: list[tuple[Entry, Picture]] = []
    for picture in pictures:
        block.append(picture)
        if len(block) == _BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block


def _write_block(writer: StoreWriter, row: int, block: Sequence[tuple[Entry, Picture]]) -> None:
    masks = [picture.mask for _, picture in block if picture.mask is not None]
    writer.write(
        row,
        np.stack([picture.pixels for _, picture in block]),
        np.array([entry.labels for entry, _ in block], dtype=np.uint8),
        [entry.line for entry, _ in block],
        [BoxRow(row + i, *box) for i, (_, picture) in enumerate(block) for box in picture.boxes],
        masks=np.stack(masks) if masks else None,
    )


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r  decoding {done} / {total}", end=end, file=sys.stderr, flush=True)


def _first_names(names: Sequence[str]) -> str:
    more = f" ... and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
