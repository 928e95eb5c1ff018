"""The array store: a folder into which a data source is decoded once, and read from ever after.

    store.json   source, licence, classes, sizes, size and SHA-256 of every file, fingerprint
    images.npy   (n, C, S, S) uint8
    healthy.npy  (n, C, S, S) uint8, optional: the healthy twin of every image
    masks.npy    (n, S, S) uint8 bit field, optional: bit k is the mask of class k, so K <= 8
    labels.npy   (n, K) uint8, {0, 1}
    table.csv    one row per image: name, patient, split and whatever else the source knows
    boxes.csv    row, label, x0, y0, x1, y1, origin: xyxy in pixels of the store

A store is whole or it is not there: it is written under another name, flushed to the disk, and
renamed.
"""

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor

from cxrtut.data.device_store import DeviceStore, pack_masks, unpack_masks
from cxrtut.data.folder import read_folder
from cxrtut.data.manifest import StoreError, map_array, read_manifest, verify_files
from cxrtut.data.sample import Batch
from cxrtut.data.tables import (
    BoxRow,
    BoxTable,
    boxes_text,
    check_boxes,
    check_table,
    read_boxes,
    read_table,
    table_columns,
    table_text,
)
from cxrtut.data.writer import StoreWriter, check_arrays, check_classes

__all__ = [
    "NO_FINDING",
    "ArrayStore",
    "BoxRow",
    "BoxTable",
    "DeviceStore",
    "StoreError",
    "StoreWriter",
    "pack_masks",
    "unpack_masks",
]

NO_FINDING = "No Finding"
_BLOCK_BYTES = 64 << 20


@dataclass(eq=False, repr=False)
class ArrayStore:
    """A decoded data source. Open a folder with `open`, or build one in memory with `from_arrays`.

    Attributes:
        images: (n, C, S, S) uint8, memory-mapped when opened from a folder.
        labels: (n, K) uint8, {0, 1}.
        classes: the K class names.
        table: column name -> array of n strings; always has `name`, `patient` and `split`.
        boxes: see `BoxTable`.
        healthy, masks: memory-mapped likewise, or None. `masks` is the bit field.
        source, licence: where the data comes from and on which terms.
        fingerprint: SHA-256 over the hashes of all files; the identity of the data in a run record.
        notes: anything a preparation script wants to remember (strings).
        path: the folder, or None in memory.
    """

    images: UInt8[np.ndarray, "n C S S"]
    labels: UInt8[np.ndarray, "n K"]
    classes: tuple[str, ...]
    table: dict[str, np.ndarray]
    boxes: BoxTable
    healthy: UInt8[np.ndarray, "n C S S"] | None
    masks: UInt8[np.ndarray, "n S S"] | None
    source: str
    licence: str
    fingerprint: str
    notes: dict[str, str] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        self._boxes, self._box_label = self.boxes.padded(len(self.images))
        self._resident: dict[torch.device, DeviceStore] = {}

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], verify: Literal["quick", "full"] = "quick"
    ) -> "ArrayStore":
        """Open the store in folder `path`.

        Args:
            path: the folder.
            verify: `quick` checks that every file is there with its size, the hashes of the small
                files and the headers of the arrays; `full` checks every hash (about a second per
                gigabyte or two).

        Raises:
            StoreError: the folder is missing, half-written, truncated, changed, foreign, or of a
                newer format.
        """
        path = Path(path)
        about = read_manifest(path)
        verify_files(path, about, full=verify == "full")
        n, channels, size = about["n"], about["channels"], about["size"]
        image_shape = (n, channels, size, size)
        labels = map_array(path / "labels.npy", (n, len(about["classes"])))
        optional = {"healthy.npy": image_shape, "masks.npy": (n, size, size)}
        present = {
            name: map_array(path / name, shape)
            for name, shape in optional.items()
            if name in about["files"]
        }
        return cls(
            images=map_array(path / "images.npy", image_shape),
            labels=np.array(labels),
            classes=tuple(about["classes"]),
            table=read_table(path / "table.csv", n),
            boxes=read_boxes(path / "boxes.csv"),
            healthy=present.get("healthy.npy"),
            masks=present.get("masks.npy"),
            source=about["source"],
            licence=about["licence"],
            fingerprint=about["fingerprint"],
            notes=dict(about.get("notes", {})),
            path=path,
        )

    @classmethod
    def from_arrays(
        cls,
        images: UInt8[np.ndarray, "n C S S"],
        labels: UInt8[np.ndarray, "n K"],
        classes: Sequence[str],
        *,
        table_rows: Sequence[Mapping[str, object]] | None = None,
        boxes_rows: Iterable[Sequence[Any]] = (),
        healthy: UInt8[np.ndarray, "n C S S"] | None = None,
        masks: UInt8[np.ndarray, "n S S"] | None = None,
        source: str = "memory",
        licence: str = "",
    ) -> "ArrayStore":
        """A store in memory, without a folder. Without `table_rows` every image is its own patient
        in `train`.

        Raises:
            StoreError: shapes, labels, boxes or the table do not fit together.
        """
        n = len(images)
        if table_rows is None:
            table_rows = [{"name": str(i), "patient": str(i), "split": "train"} for i in range(n)]
        boxes = [BoxRow(*box) for box in boxes_rows]
        check_classes(classes, with_masks=masks is not None)
        check_table(table_rows, None)
        check_boxes(boxes, range(n), len(classes), images.shape[-1])
        arrays = {"images": images, "labels": labels, "healthy": healthy, "masks": masks}
        check_arrays(arrays, len(table_rows), len(classes), images.shape[1], images.shape[-1])
        texts = (tuple(classes), table_text(table_rows), boxes_text(boxes))
        digest = hashlib.sha256(repr(texts).encode())
        for name, array in arrays.items():
            if array is not None:
                digest.update(f"{name} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return cls(
            images=images,
            labels=labels,
            classes=tuple(classes),
            table=table_columns(table_rows),
            boxes=BoxTable.from_rows(boxes),
            healthy=healthy,
            masks=masks,
            source=source,
            licence=licence,
            fingerprint=digest.hexdigest(),
        )

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        labels: str | os.PathLike[str],
        *,
        size: int,
        channels: int = 1,
        boxes: str | os.PathLike[str] | None = None,
    ) -> "ArrayStore":
        """A store in memory of a folder of image files and a table of labels.

        Args:
            folder: of PNG, JPEG, TIFF, BMP or DICOM files, in folders of its own too.
            labels: a CSV with `name`, a column of 0 and 1 for each class, and, if known, `patient`
                and `split`.
            size: height and width to bring the images to, pixels; black fills what is not square.
            channels: 1, or 3 for colour.
            boxes: a CSV with name, label, x0, y0, x1, y1, in pixels of the files.

        Raises:
            SourceError: a table that cannot be read, or no image; see `data.folder.read_folder`.
        """
        found = read_folder(folder, labels, size=size, channels=channels, boxes=boxes)
        return cls.from_arrays(
            found.images, found.labels, found.classes, table_rows=found.table_rows,
            boxes_rows=found.boxes_rows, source=f"folder {Path(folder).name}",
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        where = self.path if self.path is not None else "memory"
        return (
            f"ArrayStore({self.source}: {len(self)} images of {self.channels} x {self.size} x "
            f"{self.size}, {len(self.classes)} classes, {len(self.boxes)} boxes, {where})"
        )

    @property
    def channels(self) -> int:
        """Channels of the images, C."""
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.images.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels take when resident (images, healthy twins and masks)."""
        return sum(a.nbytes for a in (self.images, self.healthy, self.masks) if a is not None)

    def rows(
        self, *, split: str | None = None, label: str | None = None, **columns: object
    ) -> Int64[np.ndarray, "r"]:
        """The rows that meet every condition, ascending.

        Args:
            split: as in the table, e.g. `train`.
            label: a class name, or `No Finding` for the images without any class.
            **columns: a table column and the text it must equal, or a list of texts of which one
                must.

        Raises:
            StoreError: no such class or column.
        """
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            columns["split"] = split
        for name, wanted in columns.items():
            if name not in self.table:
                raise StoreError(f"expected a column of {sorted(self.table)}, got {name!r}")
            several = wanted if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
            texts = [str(text) for text in several]
            chosen &= np.isin(self.table[name], texts)
        if label == NO_FINDING and label not in self.classes:
            chosen &= ~self.labels.any(axis=1)
        elif label is not None:
            if label not in self.classes:
                raise StoreError(f"expected a class of {self.classes}, got {label!r}")
            chosen &= self.labels[:, self.classes.index(label)] == 1
        return np.flatnonzero(chosen)

    def block(self, rows: Int64[np.ndarray, "r"]) -> DeviceStore:
        """Copy some rows, in the order given, from the memory map to the host's memory.

        Raises:
            IndexError: a row is outside 0 ... len - 1.
        """
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(
                f"expected rows in [0, {len(self)}), got {rows.min()} ... {rows.max()}"
            )
        healthy, masks = self.healthy, self.masks
        return DeviceStore(
            images=torch.from_numpy(np.asarray(self.images[rows])),
            label_vector=torch.from_numpy(self.labels[rows].astype(np.float32)),
            boxes=torch.from_numpy(self._boxes[rows]),
            box_label=torch.from_numpy(self._box_label[rows]),
            index=torch.from_numpy(np.array(rows)),
            masks=None if masks is None else torch.from_numpy(np.asarray(masks[rows])),
            healthy=None if healthy is None else torch.from_numpy(np.asarray(healthy[rows])),
        )

    def batch(
        self, rows: Int64[np.ndarray, "r"] | Int[Tensor, "r"], device: str | torch.device = "cpu"
    ) -> Batch:
        """A batch straight from the memory map; equal, bit for bit, to the resident store's on the
        same device.
        """
        block = self.block(np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows))
        block = block.moved(lambda tensor: tensor.to(device))
        return block.batch(torch.arange(len(block), device=block.device))

    def on_device(self, device: str | torch.device) -> DeviceStore:
        """The whole store as tensors on `device`, made on the first call and remembered. On the CPU
        they are the store's own arrays (of a folder: the memory map), without a copy; elsewhere
        they are copied in pieces.
        """
        device = torch.device(device)
        if device not in self._resident:
            self._resident[device] = (
                self._shared() if device.type == "cpu" else self._copied(device)
            )
        return self._resident[device]

    def _shared(self) -> DeviceStore:
        with warnings.catch_warnings():  # a memory map cannot be written to, and nobody does
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return DeviceStore(
                images=torch.from_numpy(self.images),
                label_vector=torch.from_numpy(self.labels.astype(np.float32)),
                boxes=torch.from_numpy(self._boxes),
                box_label=torch.from_numpy(self._box_label),
                index=torch.arange(len(self)),
                masks=None if self.masks is None else torch.from_numpy(self.masks),
                healthy=None if self.healthy is None else torch.from_numpy(self.healthy),
            )

    def _copied(self, device: torch.device) -> DeviceStore:
        whole = self.block(np.arange(0)).moved(
            lambda tensor: torch.empty(
                (len(self), *tensor.shape[1:]), dtype=tensor.dtype, device=device
            )
        )
        step = max(1, _BLOCK_BYTES * len(self) // max(1, self.nbytes))
        for start in range(0, len(self), step):
            piece = self.block(np.arange(start, min(start + step, len(self))))
            for f in fields(piece):
                tensor = getattr(piece, f.name)
                if isinstance(tensor, Tensor):
                    getattr(whole, f.name)[start : start + step].copy_(tensor)
        return whole

    def narrowed(self, block: DeviceStore) -> DeviceStore:
        """A block of this store as it is; a `StoreView` shows less of it."""
        return block

    def is_on_device(self, device: str | torch.device) -> bool:
        """Whether `on_device(device)` has been called before."""
        return torch.device(device) in self._resident
