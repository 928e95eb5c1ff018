"""Boxes of one disease as the RSNA Pneumonia Detection Challenge scores them, at a score that was
chosen on other images; and average precision and FROC, which need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cxrtut.data.sample import Detections, System
from cxrtut.data.split import Side, Split
from cxrtut.evaluation.measure import Better, Measure, Numbers, predictions
from cxrtut.metrics.box_precision import box_average_precision
from cxrtut.metrics.froc import froc
from cxrtut.metrics.rsna_map import CHALLENGE, precision_map, rsna_map

AT = (0.4, 0.5, 0.6)  # IoU, the columns of Tables 1 and 2 of GRANet
RATES = (0.05, 0.1, 0.2)  # false boxes an image
CUTS = 24  # scores that are tried
PER_BOX = 3  # times as many predicted boxes as there are true ones are tried at most
BETTER: dict[str, Better] = {
    "rsna_map": "higher",
    **{f"rsna_map@{t}": "higher" for t in AT},
    "rsna_map_oracle": "neither",
    "precision_map": "higher",
    **{f"precision_map@{t}": "higher" for t in AT},
    "voc_ap": "higher",
    **{f"voc_ap@{t}": "higher" for t in AT},
    **{f"box_froc@{rate}": "higher" for rate in RATES},
}


@dataclass(frozen=True)
class Answers:
    """Of the images of a side that somebody has read: the boxes of a system, the surest first,
    their scores, and the true boxes.
    """

    boxes: Sequence[Tensor]
    scores: Sequence[Tensor]
    truth: Sequence[Tensor]

    def above(self, score: float) -> list[Tensor]:
        """The boxes of each image with this score or a higher one."""
        return [b[s >= score] for b, s in zip(self.boxes, self.scores, strict=True)]


def challenge(system: System, split: Split, side: Side, *, chosen_on: Side) -> Numbers:
    """The numbers of GRANet's tables.

    Reading (evaluation, the score): Eq. (4) needs boxes without scores; which are left out is not
        said. The code that GRANet builds on tries scores on the images that are reported.
        Here: The score with the best `rsna_map` on other patients is taken. `rsna_map_oracle` has
            the best on the images themselves.
        Why: Who chooses on test images measures the choice, too.

    Args:
        system: answers with boxes.
        split: of one disease, with boxes and normal images.
        side: whose images are scored: those with a box, and normal ones.
        chosen_on: whose images choose the score.

    Returns:
        `rsna_map`, Eq. (4) over eight overlaps, and at three of them alone; `rsna_map_oracle`;
        `precision_map`, Eq. (4) without missed boxes, over three overlaps and at each; `voc_ap`,
        average precision over the same, and at each; `box_froc@R`, the share of true boxes found at
        an IoU above .4 with R false boxes an image. Nothing of a system without boxes, or where a
        side has none.

    Raises:
        ValueError: boxes of more than one disease.
    """
    if len(split.classes) != 1:
        raise ValueError(f"expected one disease, got {', '.join(split.classes)}")
    here, other = answers(system, split, side), answers(system, split, chosen_on)
    if here is None or other is None:
        return {}
    kept = here.above(best_score(other))
    voc = {t: box_average_precision(here.boxes, here.scores, here.truth, t) for t in AT}
    curve = froc(here.boxes, here.scores, here.truth, AT[0], len(here.truth))
    return {
        "rsna_map": rsna_map(kept, here.truth),
        **{f"rsna_map@{t}": rsna_map(kept, here.truth, (t,)) for t in AT},
        "rsna_map_oracle": rsna_map(here.above(best_score(here)), here.truth),
        "precision_map": precision_map(kept, here.truth, AT),
        **{f"precision_map@{t}": precision_map(kept, here.truth, (t,)) for t in AT},
        "voc_ap": sum(voc.values()) / len(voc),
        **{f"voc_ap@{t}": value for t, value in voc.items()},
        **{f"box_froc@{rate}": curve.recall_at(rate) for rate in RATES},
    }


def answers(system: System, split: Split, side: Side) -> Answers | None:
    """What a system says of a side's images with boxes and of its normal ones; None where there is
    no box, or the system has none.
    """
    rows, _ = split.pairs(side)
    if not len(rows) or predictions(system, split, rows[:1]).boxes is None:
        return None
    seen = np.union1d(rows, split.normal(side))
    found = predictions(system, split, seen).boxes
    assert found is not None, "a system has boxes for every image or for none"
    ordered = [_surest_first(one) for one in found]
    truth = [split.boxes_of(int(row), 0) for row in seen]
    return Answers([b for b, _ in ordered], [s for _, s in ordered], truth)


def best_score(told: Answers) -> float:
    """Of 24 scores the one with the highest `rsna_map`, the lowest of equals: those at even ranks
    down to three times as many boxes as are true, however many unsure boxes there are besides; and
    the lowest of all.
    """
    scores = torch.cat([*told.scores, torch.zeros(0)]).double().sort(descending=True).values
    if not len(scores):
        return 0.0
    n = min(len(scores), max(1, PER_BOX * sum(map(len, told.truth))))
    ranks = torch.linspace(0, n - 1, CUTS).round().long()
    tried = torch.cat((scores[ranks], scores[-1:])).unique()
    found = [rsna_map(told.above(float(score)), told.truth, CHALLENGE) for score in tried]
    return float(tried[int(np.argmax(found))])


def _surest_first(found: Detections) -> tuple[Tensor, Tensor]:
    order = found.scores.argsort(descending=True, stable=True)
    return found.boxes[order].cpu(), found.scores[order].cpu()


def challenge_measure(side: Side, chosen_on: Side = "validation") -> Measure:
    """`challenge` of one side of a split."""

    def measure(system: System, split: Split, side: Side) -> Numbers:
        return challenge(system, split, side, chosen_on=chosen_on)

    return Measure(side, measure, BETTER)
