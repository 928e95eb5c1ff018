"""Simulated radiographs as an array store, in memory or in a folder: images with their healthy
twins, masks and boxes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cxrtut.data.phantom.patient import PATIENT
from cxrtut.data.phantom.randomness import draw, keys
from cxrtut.data.phantom.simulator import PRESETS, ChestPhantom, PhantomSample
from cxrtut.data.sample import PADDING, to_uint8
from cxrtut.data.store import ArrayStore, BoxRow, StoreWriter, pack_masks

SOURCE = "cxrtut simulated chest radiographs"
VERSION = 2  # raised whenever the same settings give other images
LICENCE = "simulated by cxrtut: no patients, and no result on these images is clinical evidence"
ORIGIN = "phantom"
_BLOCK_ROWS = 512  # images rendered at once: what is drawn at random takes memory too
_BLOCK_PIXELS = 2**23  # of all images rendered at once; about 26 bytes each, twice while joined


def write_store(
    phantom: ChestPhantom,
    path: str | os.PathLike[str],
    n: int,
    *,
    start: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ArrayStore:
    """Renders images start ... start + n - 1 into the store folder `path`: all of them, or nothing.

    Memory does not grow with n. The same phantom gives the same bytes on one kind of processor; on
    another a few pixels differ by one grey level, so that images are named by `identity`, not by a
    fingerprint. Row r is image start + r. The masks are what the findings change. table.csv has
    name, patient, split, visit, view, age, sex, ctr, severity (0 without finding), tag (the
    confounder's marker) and index, with which `phantom.sample` renders the image again.

    Args:
        phantom: who is rendered, at which size.
        path: folder to make.
        n: number of images.
        start: index of the first image.
        overwrite: replace an existing store, once the new one is whole.
        progress: called with (images done, n) after every block.

    Raises:
        StoreError: n < 1, or `path` is there and is not to be (or cannot safely be) replaced.
    """
    with StoreWriter(
        path,
        source=SOURCE,
        classes=phantom.classes,
        n=n,
        size=phantom.size,
        licence=LICENCE,
        with_healthy=True,
        with_masks=True,
        overwrite=overwrite,
        notes=settings(phantom, start),
    ) as writer:
        row = 0
        for sample in sample_blocks(phantom, n, start):
            block = _columns(phantom, sample, row)
            writer.write(
                row,
                block["images"],
                block["labels"],
                block["table_rows"],
                block["boxes_rows"],
                healthy=block["healthy"],
                masks=block["masks"],
            )
            row += len(sample)
            if progress is not None:
                progress(row, n)
    return ArrayStore.open(path)


def in_memory(phantom: ChestPhantom, n: int, *, start: int = 0) -> ArrayStore:
    """Renders images start ... start + n - 1 into a store in memory, with the arrays of
    `write_store`.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"expected n >= 1 images, got {n}")
    images, labels, healthy, masks = [], [], [], []
    table_rows: list[dict[str, object]] = []
    boxes_rows: list[BoxRow] = []
    for sample in sample_blocks(phantom, n, start):
        block = _columns(phantom, sample, len(table_rows))
        images.append(block["images"])
        labels.append(block["labels"])
        healthy.append(block["healthy"])
        masks.append(block["masks"])
        table_rows += block["table_rows"]
        boxes_rows += block["boxes_rows"]
    store = ArrayStore.from_arrays(
        np.concatenate(images),
        np.concatenate(labels),
        phantom.classes,
        table_rows=table_rows,
        boxes_rows=boxes_rows,
        healthy=np.concatenate(healthy),
        masks=np.concatenate(masks),
        source=SOURCE,
        licence=LICENCE,
    )
    store.notes.update(settings(phantom, start))
    return store


def sample_blocks(phantom: ChestPhantom, n: int, start: int = 0) -> Iterator[PhantomSample]:
    """Images start ... start + n - 1 in order, as many at once as keep every core busy in a
    bounded memory.
    """
    rows = min(_BLOCK_ROWS, max(1, _BLOCK_PIXELS // phantom.size**2))
    phantom.expect(n)
    for index in torch.arange(start, start + n).split(rows):
        yield phantom.sample(index)


def settings(phantom: ChestPhantom, start: int = 0) -> dict[str, str]:
    """Everything that decides about the images of a phantom, in words for store.json."""
    return {
        "seed": str(phantom.seed),
        "preset": repr(phantom.preset),
        "prevalence": f"{phantom.prevalence:g}",
        "several": str(phantom.several),
        "findings": ", ".join(phantom.present),
        "confounder": repr(phantom.confounder),
        "start": str(start),
    }


def identity(phantom: ChestPhantom, n: int) -> dict[str, str | int | float]:
    """What n images of a phantom are, in words and numbers that are the same on every machine (the
    pixels are not: processors differ in the last bit).
    """
    preset = next((k for k, p in PRESETS.items() if p == phantom.preset), repr(phantom.preset))
    return {
        "source": SOURCE, "version": VERSION, "preset": preset, "seed": phantom.seed,
        "size": phantom.size, "images": n, "prevalence": phantom.prevalence,
        "diseases": ", ".join(phantom.present),
    }  # fmt: skip


def image_name(patient: int, visit: int) -> str:
    """The stem of an image's name, as the NIH builds it: `00000012_003`."""
    return f"{patient:08d}_{visit:03d}"


def table_rows(phantom: ChestPhantom, sample: PhantomSample) -> list[dict[str, Any]]:
    """The lines of table.csv; see `write_store`."""
    severity = phantom.preset.severity * sample.label_vector.any(1).float()
    age, female = _age_and_sex(phantom, sample.patient.cpu())
    columns = {
        "name": [
            image_name(patient, visit)
            for patient, visit in zip(sample.patient.tolist(), sample.visit.tolist(), strict=True)
        ],
        "patient": sample.patient.tolist(),
        "split": phantom.split(sample.index.cpu()),
        "visit": sample.visit.tolist(),
        "view": ["AP" if ap else "PA" for ap in sample.ap.tolist()],
        "age": [int(years) for years in age.tolist()],
        "sex": ["F" if yes else "M" for yes in female.tolist()],
        "ctr": [f"{ctr:.4f}" for ctr in sample.ctr.tolist()],
        "severity": [f"{value:.6g}" for value in severity.tolist()],
        "tag": [int(tag) for tag in sample.tag.tolist()],
        "index": sample.index.tolist(),
    }
    return [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]


def _age_and_sex(phantom: ChestPhantom, patient: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
    """Age in years and 1 for women: what `sample_patients` draws, without its textures."""
    laws = {name: PATIENT[name] for name in ("age", "female")}
    person = draw(laws, keys(phantom.seed, patient, torch.zeros_like(patient)))
    return person.age, person.female


def _columns(phantom: ChestPhantom, sample: PhantomSample, row: int) -> dict[str, Any]:
    """The arrays and lines of a block whose first image is `row` of the store."""
    boxes_rows = []
    for i in range(len(sample)):
        there = sample.box_label[i] != PADDING
        labels, corners = sample.box_label[i][there].tolist(), sample.boxes[i][there].tolist()
        for label, (x0, y0, x1, y1) in zip(labels, corners, strict=True):
            boxes_rows.append(BoxRow(row + i, label, x0, y0, x1, y1, ORIGIN))
    return {
        "images": to_uint8(sample.image).cpu().numpy(),
        "labels": sample.label_vector.to(torch.uint8).cpu().numpy(),
        "healthy": to_uint8(sample.healthy).cpu().numpy(),
        "masks": pack_masks(sample.mask.cpu().numpy()),
        "table_rows": table_rows(phantom, sample),
        "boxes_rows": boxes_rows,
    }
