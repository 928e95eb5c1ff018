"""A small store with everything in it, and the real images if there are any."""

import os
from pathlib import Path

import numpy as np
import pytest

from cxrtut.data.store import ArrayStore, StoreWriter, pack_masks

CLASSES = ("Mass", "Nodule", "Effusion")


@pytest.fixture
def contents() -> dict:
    """What a store holds: eleven images of 16 pixels, random ones, four boxes on three of them."""
    rng = np.random.default_rng(0)
    n, size = 11, 16
    return {
        "images": rng.integers(0, 256, (n, 2, size, size), dtype=np.uint8),
        "labels": np.array([[i % 2, i % 3 == 0, i == 4] for i in range(n)], dtype=np.uint8),
        "table_rows": [
            {"name": f"image, {i}", "patient": f"p{i // 2}", "split": "test" if i > 7 else "train"}
            for i in range(n)
        ],
        "boxes_rows": [
            (3, 0, 1.5, 2.0, 5.25, 6.0, "phantom"),
            (0, 1, 0.0, 0.0, 16.0, 16.0, "phantom"),
            (3, 1, 1 / 3, 2.0, 4.0, 9.0, "reader"),
            (9, 2, 3.0, 3.0, 4.0, 4.0, "phantom"),
        ],
        "healthy": rng.integers(0, 256, (n, 2, size, size), dtype=np.uint8),
        "masks": pack_masks(rng.random((n, 3, size, size)) > 0.5),
    }


@pytest.fixture
def store(contents: dict) -> ArrayStore:
    """The store in memory."""
    images, labels = contents.pop("images"), contents.pop("labels")
    return ArrayStore.from_arrays(images, labels, CLASSES, **contents)


@pytest.fixture
def folder(contents: dict, tmp_path: Path) -> Path:
    """The same store as a folder, written in two blocks, the last first."""
    path = tmp_path / "store"
    with StoreWriter(
        path,
        source="test",
        classes=CLASSES,
        n=11,
        channels=2,
        size=16,
        licence="none",
        with_healthy=True,
        with_masks=True,
        notes={"inputs": "abc"},
    ) as writer:
        for first, last in ((6, 11), (0, 6)):
            rows = slice(first, last)
            writer.write(
                first,
                contents["images"][rows],
                contents["labels"][rows],
                contents["table_rows"][rows],
                [box for box in contents["boxes_rows"] if first <= box[0] < last],
                contents["healthy"][rows],
                contents["masks"][rows],
            )
    return path


@pytest.fixture
def real_data() -> Path:
    """The folder of real images; the test is skipped where there is none."""
    path = os.environ.get("CXRTUT_REAL_DATA")
    if not path:
        pytest.skip("CXRTUT_REAL_DATA is not set: no real images here")
    return Path(path)
