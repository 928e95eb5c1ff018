"""Image files to an array store: decode every file once, in parallel, and say what was found,
missing and broken.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from cxrtut.data.decode import ImageError
from cxrtut.data.manifest import check_replaceable
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import ArrayStore, BoxRow, StoreError, StoreWriter

# Raise it whenever the same files and settings give other pixels, masks or labels than before: by a
# change in decode.py, in a source's own crop, or in what is left out. Stores that an older decoder
# made are then no longer called prepared.
DECODER_VERSION = 2
_BLOCK_ROWS = 128
_NAMED = 5
_DECODER = "the version of the decoder"


class DecodedImage(NamedTuple):
    """A decoded image: pixels (C, S, S), mask bit field (S, S) or None, boxes (label, x0, y0, x1,
    y1, origin), and the labels {0, 1}^K where only the pixels tell them.
    """

    pixels: np.ndarray
    mask: np.ndarray | None = None
    boxes: Sequence[tuple[int, float, float, float, float, str]] = ()
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class ImageSource:
    """One image to be: how to decode it, its labels {0, 1}^K and its line of table.csv.

    The image's own labels, if it brings any, are taken instead of `labels`.
    """

    decode: Callable[[], DecodedImage]
    labels: Sequence[int]
    line: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """What a store shall be.

    Attributes:
        inputs: every image and mask that is read; their names, sizes and dates, and those of the
            tables, are the fingerprint of the inputs.
        tables: every table that is read; the report names them.
        settings: whatever else decides about the result (a limit, a crop).
    """

    source: str
    licence: str
    classes: tuple[str, ...]
    size: int
    channels: int = 1
    with_masks: bool = False
    inputs: Sequence[Path] = ()
    tables: Sequence[Path] = ()
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Preparation:
    """What came of a preparation.

    `missing` is None when it was not counted, because only the first images were asked for.
    `left_out` are files that could not be used at all, in words; see `source_files`.
    """

    store: Path
    images: int
    missing: tuple[str, ...] | None = ()
    broken: tuple[str, ...] = ()
    already_prepared: bool = False
    warnings: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every file could be used."""
        return not (self.broken or self.left_out)

    def __str__(self) -> str:
        missing = (
            f"  missing  {len(self.missing):>7}  {_first_names(self.missing)}"
            if self.missing is not None
            else "  missing  not counted with --limit"
        )
        lines = [
            f"{'already prepared' if self.already_prepared else 'prepared'}: {self.store}",
            f"  found    {self.images:>7}",
            missing,
            f"  broken   {len(self.broken):>7}  {_first_names(self.broken)}",
        ]
        if self.left_out:
            lines.append(f"  left out {len(self.left_out):>7}  {_first_names(self.left_out)}")
        lines.extend(f"  table    {table}" for table in self.tables)
        lines.extend(f"  {warning}" for warning in self.warnings)
        return "\n".join(line.rstrip() for line in lines)


def prepare_store(
    sources: Sequence[ImageSource],
    spec: StoreSpec,
    out: str | os.PathLike[str],
    *,
    missing: Sequence[str] | None = (),
    left_out: Sequence[str] = (),
    warnings: Sequence[str] = (),
    threads: int | None = None,
    overwrite: bool = False,
) -> Preparation:
    """Decode `sources` into the store `out`; files that cannot be decoded are left out and named.

    A store that was made from the same inputs with the same settings is left as it is; if it is
    damaged, it is made anew. One made of the same source from other inputs or with other settings
    is replaced with `overwrite`, once the new one is whole. Anything else is never replaced.

    Raises:
        SourceError: nothing to decode, or nothing that could be decoded.
        StoreError: `out` is there and is no store of this source, or one that differs, without
            `overwrite`; says in what.
    """
    out = Path(out)
    inputs = fingerprint_of_inputs(spec)
    done = _prepared_before(out, spec, inputs, overwrite)
    missing = None if missing is None else tuple(missing)
    tables, left_out, warnings = tuple(spec.tables), tuple(left_out), tuple(warnings)
    if done is not None:
        unread = tuple(filter(None, done.notes.get("broken", "").split("\n")))
        return Preparation(out, len(done), missing, unread, True, warnings, tables, left_out)
    if not sources:
        others = f"; left out {_first_names(left_out)}" if left_out else ""
        raise SourceError(f"{spec.source}: no image was found{others}")
    broken: list[str] = []
    with StoreWriter(
        out,
        source=spec.source,
        classes=spec.classes,
        n=len(sources),
        channels=spec.channels,
        size=spec.size,
        licence=spec.licence,
        with_masks=spec.with_masks,
        overwrite=out.exists(),
        notes={"inputs": inputs, "settings": _settings_text(spec)},
    ) as writer:
        row = 0
        # disable=None: no bar where stderr is no terminal
        with tqdm(desc="  decoding", total=len(sources), unit="image", disable=None) as bar:
            for block in _blocks(_decoded(sources, threads, broken)):
                _write_block(writer, row, block)
                row += len(block)
                bar.update(row + len(broken) - bar.n)
        if row == 0:
            raise SourceError(
                f"{spec.source}: none of {len(sources)} images can be read: {broken[0]}"
            )
        writer.shrink(row)
        writer.notes["broken"] = "\n".join(broken)
    return Preparation(out, row, missing, tuple(broken), False, warnings, tables, left_out)


def fingerprint_of_inputs(spec: StoreSpec) -> str:
    """SHA-256 over the version of the decoder, the spec, and the name, size and modification time
    of every input file; a file that has vanished counts by its name.
    """
    digest = hashlib.sha256(
        repr(
            (
                DECODER_VERSION,
                spec.source,
                spec.classes,
                spec.size,
                spec.channels,
                sorted(spec.settings.items()),
            )
        ).encode()
    )
    for path in sorted({*spec.inputs, *spec.tables}):
        try:
            about = path.stat()
            known = f" {about.st_size} {about.st_mtime_ns}\n"
        except OSError:
            known = " vanished\n"  # decoding it says so
        digest.update(os.fsencode(path.name) + known.encode())
    return digest.hexdigest()


def _prepared_before(out: Path, spec: StoreSpec, inputs: str, overwrite: bool) -> ArrayStore | None:
    """The store that `out` is already, or None where a new one may take the place.

    Raises:
        StoreError: what is there must not be replaced.
    """
    if not out.exists():
        return None
    try:
        store = ArrayStore.open(out)
    except StoreError:
        store = None  # no store, or a damaged one
    if store is not None and store.notes.get("inputs") == inputs:
        return store
    about = check_replaceable(out, spec.source)
    damaged = about.get("notes", {}).get("inputs") == inputs
    if not (damaged or overwrite):
        raise StoreError(
            f"{out}: prepared before, but {_difference(about, spec)}; "
            "pass --overwrite to replace it, or choose another folder"
        )
    return None


def _settings_text(spec: StoreSpec) -> str:
    """The decoder, size and settings of a spec as they are remembered in store.json."""
    settings = {_DECODER: DECODER_VERSION, "size": spec.size} | dict(spec.settings)
    return json.dumps(settings, sort_keys=True, default=str)


def _difference(about: Mapping[str, Any], spec: StoreSpec) -> str:
    """What a new store would have that the one of manifest `about` has not, in words."""
    before = {_DECODER: 1} | json.loads(about.get("notes", {}).get("settings", "{}"))
    now = json.loads(_settings_text(spec))
    changes = [
        f"{name} was {before[name]}, now is {now[name]}"
        for name in now
        if name in before and before[name] != now[name]
    ]
    return ", ".join(changes) or "the names, sizes or dates of the input files differ"


def _decoded(
    sources: Sequence[ImageSource], threads: int | None, broken: list[str]
) -> Iterator[tuple[ImageSource, DecodedImage]]:
    """The sources in order with their images, decoded a little ahead; the names of the unreadable
    files go to `broken`.
    """
    threads = threads or min(
        32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    )
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[ImageSource, Future[DecodedImage]]] = deque()
    try:
        for source in sources:
            waiting.append((source, pool.submit(source.decode)))
            if len(waiting) > 4 * threads:
                yield from _finished(waiting.popleft(), broken)
        while waiting:
            yield from _finished(waiting.popleft(), broken)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(
    job: tuple[ImageSource, "Future[DecodedImage]"], broken: list[str]
) -> Iterator[tuple[ImageSource, DecodedImage]]:
    source, future = job
    try:
        yield source, future.result()
    except ImageError as error:
        broken.append(str(error).replace("\n", " "))


def _blocks(
    images: Iterable[tuple[ImageSource, DecodedImage]],
) -> Iterator[list[tuple[ImageSource, DecodedImage]]]:
    block: list[tuple[ImageSource, DecodedImage]] = []
    for image in images:
        block.append(image)
        if len(block) == _BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block


def _write_block(
    writer: StoreWriter, row: int, block: Sequence[tuple[ImageSource, DecodedImage]]
) -> None:
    masks = [image.mask for _, image in block if image.mask is not None]
    writer.write(
        row,
        np.stack([image.pixels for _, image in block]),
        np.array(
            [source.labels if own.labels is None else own.labels for source, own in block],
            dtype=np.uint8,
        ),
        [source.line for source, _ in block],
        [BoxRow(row + i, *box) for i, (_, image) in enumerate(block) for box in image.boxes],
        masks=np.stack(masks) if masks else None,
    )


def _first_names(names: Sequence[str]) -> str:
    more = f" ... and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
