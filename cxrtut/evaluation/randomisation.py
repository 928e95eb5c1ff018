"""Whether a heat map depends on what its networks have learnt. A map that looks the same once their
weights are gone shows the image, or what was built into the method, and not what was learnt.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import partial

import torch
from torch import nn

from cxrtut.data.sample import System
from cxrtut.data.split import Rows, Side, Split, evenly
from cxrtut.evaluation.measure import Better, Measure, Numbers, heat_of_split, predictions
from cxrtut.metrics.intervals import bootstrap_interval
from cxrtut.metrics.sameness import rank_correlation
from cxrtut.randomness import generator

BETTER: dict[str, Better] = {
    "randomised_likeness": "lower",
    "randomised_likeness_low": "neither",
    "randomised_likeness_high": "neither",
}
KEPT = frozenset({"aligner"})  # says where to look, not what is there


@torch.no_grad()
def shuffle_parameters(network: nn.Module, seed: int) -> None:
    """Puts the numbers of each parameter in a random order, in place: they are as large as before
    and mean nothing. Buffers, such as the statistics of a batch norm, stay.
    """
    for name, parameter in network.named_parameters():
        order = torch.randperm(parameter.numel(), generator=generator("shuffled", seed, name))
        parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))


def randomised(system: System, seed: int, kept: Collection[str] = KEPT) -> System:
    """A copy of a system whose networks know nothing; see `shuffle_parameters`.

    Args:
        system: is left as it is.
        seed: of the orders.
        kept: names of networks that are not touched.
    """
    other = copy.deepcopy(system)
    for name, network in other.networks.items():
        if name not in kept:
            shuffle_parameters(network, seed)
    return other


def parameter_randomisation(
    system: System, split: Split, side: Side, *, at_most: int | None = None, seed: int = 0
) -> Numbers:
    """The sanity check of Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, with all
    layers randomised at once, as a rank correlation of the heat maps before and after.

    Args:
        system: answers with heat maps.
        split: gives the images.
        side: of the split; its abnormal images are looked at, by the maps of the classes that they
            have.
        at_most: so many images, evenly; all by default.
        seed: of the orders.

    Returns:
        `randomised_likeness`, the mean over images, with its bootstrap interval over patients
        `_low` and `_high`: near 0 where the map is of what was learnt, 1 where it does not change.
        Images with a constant map, before or after, are left out. Nothing where there is no other
        image, no heat map or no parameter.
    """
    rows = evenly(split.abnormal(side), at_most)
    networks = [n for name, n in system.networks.items() if name not in KEPT]
    if not len(rows) or not any(p.numel() for n in networks for p in n.parameters()):
        return {}
    before = _heat_of_labels(system, split, rows)
    after = _heat_of_labels(randomised(system, seed), split, rows)
    if before is None or after is None:
        return {}
    likeness = rank_correlation(before, after).float()
    interval = bootstrap_interval(likeness, 0, patients=split.patients(rows))
    if not interval.n:
        return {}
    return {
        "randomised_likeness": interval.mean,
        "randomised_likeness_low": interval.low,
        "randomised_likeness_high": interval.high,
    }


def randomisation_measure(side: Side, at_most: int | None = None) -> Measure:
    """`parameter_randomisation` of one side of a split."""
    return Measure(side, partial(parameter_randomisation, at_most=at_most), BETTER)


def _heat_of_labels(system: System, split: Split, rows: Rows) -> torch.Tensor | None:
    """The sum of the maps of the classes that each image has; of all maps, where a system has
    another number of classes than the split.
    """
    heat = predictions(system, split, rows).heatmap
    if heat is None or heat.shape[1] != len(split.classes):
        return None if heat is None else heat_of_split(system, split, heat)
    labels = torch.from_numpy(split.store.labels[rows]).to(heat)
    return (heat * labels[:, :, None, None]).sum(1)
