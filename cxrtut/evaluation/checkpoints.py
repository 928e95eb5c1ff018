"""What it is worth to choose a checkpoint by its score on the test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split
from cxrtut.evaluation.detection import HEADLINE, location_by_class
from cxrtut.evaluation.measure import Measure, Numbers
from cxrtut.metrics.detection import macro_mean


def best_of_checkpoints(system: System, split: Split, side: Side) -> Numbers:
    """Correct location as the paper's Table 2 has it: each disease, and the mean over diseases, by
    the checkpoint that is best for it, found on the images that are scored.

    Nobody should do this; it is here to show how much it flatters. What to compare it with is
    `cl@0.1` of `evaluation.detection.detection`, the same system after its last step.

    Args:
        system: a detector with states that it had during training as `kept`; see
            `baselines.box_detector.BoxDetector`. Its present state counts, too.
        split: gives images and boxes.
        side: of the split.

    Returns:
        `cl_best@0.1` and `cl_best@0.1/<class>`. Nothing where a system has kept no state, or not
        all that it was to keep (a training that was resumed has those since), or there are no
        boxes.
    """
    kept: Mapping[int, Mapping[str, Tensor]] = getattr(system, "kept", {})
    whole = set(kept) == set(getattr(system, "keep_at", ()))
    if not kept or not whole or not len(split.pairs(side)[0]):
        return {}
    found = [location_by_class(system, split, side)]
    for state in kept.values():
        with _as_it_was(system.networks["detector"], state):
            found.append(location_by_class(system, split, side))
    best = np.fmax.reduce(torch.stack(found).numpy())
    names = [f"cl_best@{HEADLINE}/{name}" for name in split.classes]
    each = dict(zip(names, map(float, best), strict=True))
    return {f"cl_best@{HEADLINE}": max(map(macro_mean, found)), **each}


@contextmanager
def _as_it_was(network: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """A network with an earlier state of its own; afterwards it has its present one again."""
    now = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        network.load_state_dict(state)
        yield
    finally:
        network.load_state_dict(now)


def best_of_checkpoints_measure(side: Side) -> Measure:
    """`best_of_checkpoints` of one side of a split."""
    return Measure(side, best_of_checkpoints, {f"cl_best@{HEADLINE}": "higher"})
