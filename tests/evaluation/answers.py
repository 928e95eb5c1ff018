"""A system whose answers a test chooses, for images that say which row they are."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from cxrtut.data.sample import Prediction, to_uint8
from cxrtut.data.split import Split
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import view


def marked(store: ArrayStore) -> ArrayStore:
    """The store with the number of its row in the first pixel of each image."""
    images = np.array(store.images)
    images[:, :, 0, 0] = np.arange(len(images))[:, None]
    return replace(store, images=images)


def split_by_hand(store: ArrayStore, train: Sequence[int], test: Sequence[int]) -> Split:
    """Marked images on two sides."""
    none = np.zeros(0, np.int64)
    sides = np.array(train, np.int64), none, np.array(test, np.int64)
    return Split("by hand", view(marked(store)), *sides, {"source": "by hand"})


def rows_of(images: Tensor) -> list[int]:
    """Which rows of a marked store these are."""
    return [int(level) for level in to_uint8(images)[:, 0, 0, 0]]


class Answers:
    """Says of the i-th of `rows` what is in the i-th place of its answers.

    Attributes:
        asked: how many images each call brought.
    """

    def __init__(
        self,
        split: Split,
        *,
        rows: np.ndarray | None = None,
        scores: Tensor | None = None,
        heatmap: Tensor | None = None,
        image: Tensor | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        rows = split.test if rows is None else rows
        self.place = {int(row): i for i, row in enumerate(rows)}
        self.classes = split.classes if classes is None else classes
        self.size, self.channels = split.size, split.channels
        self.networks: dict[str, nn.Module] = {}
        self.answers = {"scores": scores, "heatmap": heatmap, "image": image}
        self.asked: list[int] = []

    def answer(self, rows: list[int]) -> Prediction:
        places = [self.place[row] for row in rows]
        return Prediction(
            **{name: None if x is None else x[places] for name, x in self.answers.items()}
        )

    def predict(self, images: Tensor) -> Prediction:
        self.asked.append(len(images))
        return self.answer(rows_of(images))


class Says:
    """Heat that is a function of the images, for pneumonia at 32 px."""

    size, channels, classes = 32, 1, ("Pneumonia",)

    def __init__(self, heat: Callable[[Tensor], Tensor | None]) -> None:
        self.networks: dict[str, nn.Module] = {}
        self.heat = heat

    def predict(self, images: Tensor) -> Prediction:
        return Prediction(heatmap=self.heat(images))
