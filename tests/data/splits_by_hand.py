"""Stores and splits in which a test knows every image, patient and box."""

import numpy as np

from cxrtut.data.split import Split, all_diseases
from cxrtut.data.store import ArrayStore, StoreWriter
from cxrtut.data.view import view

CLASSES = ("Mass", "Nodule")

# patient, split, labels: of b one image has a box, c is a test patient with an image of another
# split, d and e are learnt from
PEOPLE = [
    ("a", "train", (0, 0)), ("a", "train", (1, 0)), ("b", "train", (1, 1)), ("b", "train", (0, 0)),
    ("c", "test", (0, 1)), ("c", "train", (0, 0)), ("d", "train", (0, 1)), ("e", "val", (0, 0)),
]  # fmt: skip
BOXES = [
    (2, 0, 1.0, 1.0, 5.0, 5.0, "one"), (2, 0, 2.0, 2.0, 6.0, 7.0, "two"),
    (2, 1, 0.0, 0.0, 3.0, 3.0, "one"),
]  # fmt: skip


def written(path, people=PEOPLE, boxes=BOXES):
    """A store in a folder; each image has one grey level, ten times its row."""
    grey = 10 * np.arange(len(people), dtype=np.uint8)[:, None, None, None]
    table = [{"name": str(i), "patient": p, "split": s} for i, (p, s, _) in enumerate(people)]
    labels = np.array([found for *_, found in people], dtype=np.uint8)
    with StoreWriter(
        path, source="toy", classes=CLASSES, n=len(people), size=8, licence="none"
    ) as writer:
        writer.write(0, np.tile(grey, (1, 1, 8, 8)), labels, table, boxes)
    return path


def toy(path, size=8, people=PEOPLE, boxes=BOXES, **chosen):
    return all_diseases(ArrayStore.open(written(path, people, boxes)), size, **chosen)


def by_hand(store, train, test):
    return Split("toy", view(store), np.array(train), np.arange(0), np.array(test), {})


def boxed(n=2000):
    """A split in memory in which every image has a box; the last tenth is tested."""
    boxes = [(i, 0, 0.0, 0.0, 1.0 + i % 3, 2.0, "x") for i in range(n)]
    boxes += [(i, 0, 1.0, 1.0, 3.0, 3.0, "x") for i in range(0, n, 2)]
    store = ArrayStore.from_arrays(
        np.zeros((n, 1, 4, 4), np.uint8), np.ones((n, 1), np.uint8), ("A",), boxes_rows=boxes
    )
    return by_hand(store, range(n * 9 // 10), range(n * 9 // 10, n))


def patients(split, rows):
    return set(split.store.table["patient"][rows].tolist())
