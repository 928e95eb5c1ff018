"""A visual Turing test: does somebody who looks at radiographs tell real ones from made ones?

As in Section 3.1 of Xing et al. (MICCAI 2019): images of several sources in random order, one at a
time; the reader says "real" or "synthetic", and knows neither the sources nor how many there are of
each.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor

from cxrtut.files import atomic_write
from cxrtut.metrics.proportions import wilson_interval
from cxrtut.randomness import generator
from cxrtut.viz.tables import Table
from cxrtut.viz.two_choices import two_choices
from cxrtut.viz.widgets import png

if TYPE_CHECKING:
    from ipywidgets import VBox

COLUMNS = ("position", "source", "image", "judged")
JUDGED = {True: "real", False: "synthetic"}


@dataclass(frozen=True, eq=False)
class ReaderStudy:
    """Images to be judged, and what has been said of them.

    Attributes:
        images: of each source, grey levels (n, H, W), all of one size.
        seed: of the order.
        answers: position in the order -> whether the image was taken for real.
    """

    images: Mapping[str, UInt8[Tensor, "_ H W"]]
    seed: int = 0
    answers: dict[int, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {tuple(images.shape[1:]) for images in self.images.values()}
        if len(shapes) != 1 or not len(self):
            raise ValueError(
                f"images: expected some, all of one size, got sizes {sorted(shapes)} and "
                f"{len(self)} images"
            )

    def __len__(self) -> int:
        return sum(map(len, self.images.values()))

    @property
    def order(self) -> list[tuple[str, int]]:
        """Source, and place among its images, of each position."""
        every = [(name, i) for name, images in self.images.items() for i in range(len(images))]
        mixed = torch.randperm(len(every), generator=generator("reader study", self.seed))
        return [every[k] for k in mixed.tolist()]

    def image(self, position: int) -> UInt8[Tensor, "H W"]:
        """What is shown at a position."""
        source, i = self.order[position]
        return self.images[source][i]

    def judge(self, position: int, real: bool) -> None:
        """Keeps an answer; a second one of the same position replaces the first.

        Raises:
            IndexError: no such position.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"position: expected 0 to {len(self) - 1}, got {position}")
        self.answers[position] = real

    @property
    def position(self) -> int | None:
        """The first position without an answer; None when all have one."""
        return next((k for k in range(len(self)) if k not in self.answers), None)

    def table(self) -> list[dict[str, str | int | float]]:
        """For each source: how many images were judged, how many of them taken for real, and the
        share of these with Wilson's 95 % interval.
        """
        rows: list[dict[str, str | int | float]] = []
        for name in self.images:
            judged = [self.answers[k] for k, (s, _) in enumerate(self.order)
                      if s == name and k in self.answers]  # fmt: skip
            share = wilson_interval(sum(judged), len(judged))
            rows.append(
                {"source": name, "judged": len(judged), "taken for real": sum(judged),
                 "share": share.mean, "95 % interval": f"{share.low:.2f} to {share.high:.2f}"}
            )  # fmt: skip
        return rows

    def save(self, path: str | Path) -> None:
        """Writes what has been judged so far as CSV, whole or not at all: a line for each answer,
        with the columns of `COLUMNS`.
        """
        order, text = self.order, io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([k, *order[k], JUDGED[self.answers[k]]] for k in sorted(self.answers))
        with atomic_write(Path(path)) as file:
            file.write(text.getvalue().encode())

    def show(self, path: str | Path = "reader_study.csv") -> VBox:
        """The study as an application in a notebook; every answer is saved at once.

        Args:
            path: of the CSV file.
        """

        def keep(position: int, real: bool) -> None:
            self.judge(position, real)
            self.save(path)

        def picture(position: int) -> bytes:
            return png(self.image(position).numpy())

        def told() -> str:
            return Table(self.table(), caption=f"Your answers, saved in {path}.")._repr_html_()

        return two_choices(
            len(self), picture, keep, lambda: self.position, told, choices=("real", "synthetic")
        )
