"""A measure: numbers of any system on some rows of a split, each with a name that is the same
everywhere, and the side on which it is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Detections, Prediction, System
from cxrtut.data.split import Rows, Side, Split, row_parts

Better = Literal["higher", "lower", "neither"]
Numbers = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """What `Comparison.measures` lists.

    Attributes:
        side: whose images are looked at.
        measure: (system, split, side) to numbers by identifier, such as `pixel_ap`; one of a class
            has its name after a slash, `auroc/Mass`. Nothing, where a system does not answer.
        better: which side is the better one, by identifier without the class.
    """

    side: Side
    measure: Callable[[System, Split, Side], Numbers]
    better: Mapping[str, Better]


@dataclass(frozen=True)
class JudgedMeasure:
    """A measure that needs another system, a judge, which is trained on the same images.

    Attributes:
        side: whose images are looked at.
        measure: (system, judge, split, side) to numbers, as in `Measure`.
        better: as in `Measure`.
    """

    side: Side
    measure: Callable[[System, System, Split, Side], Numbers]
    better: Mapping[str, Better]

    def by(self, judge: System) -> Measure:
        """The measure with this judge."""

        def measure(system: System, split: Split, side: Side) -> Numbers:
            return self.measure(system, judge, split, side)

        return Measure(self.side, measure, self.better)


@dataclass(frozen=True)
class ForClasses:
    """A system that answers for some of its classes, in an order of one's own: that of a split.

    Attributes:
        system: whose answers they are.
        classes: some of the system's.
    """

    system: System
    classes: tuple[str, ...]

    @property
    def size(self) -> int:
        """That of the system."""
        return self.system.size

    @property
    def channels(self) -> int:
        """Those of the system."""
        return self.system.channels

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """Those of the system."""
        return self.system.networks

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The columns of the system's answer that belong to the classes."""
        answer = self.system.predict(images)
        columns = [self.system.classes.index(name) for name in self.classes]
        boxes = answer.boxes
        return Prediction(
            scores=None if answer.scores is None else answer.scores[:, columns],
            heatmap=None if answer.heatmap is None else answer.heatmap[:, columns],
            image=answer.image,
            boxes=None if boxes is None else tuple(_relabelled(found, columns) for found in boxes),
        )


def _relabelled(found: Detections, columns: Sequence[int]) -> Detections:
    """The boxes of the classes at `columns`, with their place among them as label."""
    place = torch.full((max([*columns, *found.labels.tolist()]) + 1,), -1)
    place[list(columns)] = torch.arange(len(columns))
    labels = place.to(found.labels.device)[found.labels]
    kept = labels >= 0
    return Detections(found.boxes[kept], found.scores[kept], labels[kept])


def device_of(system: System) -> torch.device:
    """Where the networks of a system are; the CPU for one without parameters."""
    for network in system.networks.values():
        for tensor in (*network.parameters(), *network.buffers()):
            return tensor.device
    return torch.device("cpu")


def predictions(system: System, split: Split, rows: Rows) -> Prediction:
    """The answers for all these rows, joined. For what has to be seen together (scores, heat maps
    of a few hundred images); what can be counted part by part should be.
    """
    device = device_of(system)
    parts = [system.predict(split.batch(part, device).image) for part in row_parts(rows)]
    joined: dict[str, torch.Tensor | None] = {}
    for name in ("scores", "heatmap", "image"):
        values = [getattr(part, name) for part in parts]
        joined[name] = None if not values or values[0] is None else torch.cat(values)
    boxes = [part.boxes for part in parts]
    known = [found for found in boxes if found is not None]
    return Prediction(**joined, boxes=tuple(b for found in known for b in found) if known else None)


def heat_of_split(system: System, split: Split, heatmap: torch.Tensor) -> torch.Tensor:
    """One heat map (B, H, W) of all diseases of a split: the sum over the system's classes that the
    split has; of all its classes, where it has none of them ("any disease").
    """
    named = [k for k, name in enumerate(system.classes) if name in split.classes]
    return heatmap[:, named or list(range(heatmap.shape[1]))].sum(1)
