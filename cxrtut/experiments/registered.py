"""The papers that can be trained and reproduced: a new one is one line here."""

from __future__ import annotations

from typing import Any

from cxrtut.experiments import biomarker, disease_masks, granet, pillet_gan, pix2pix
from cxrtut.experiments.comparison import Comparison, ConfigurationError

COMPARISONS: dict[str, Comparison[Any]] = {
    "biomarker": biomarker.COMPARISON,
    "disease_masks": disease_masks.COMPARISON,
    "pillet_gan": pillet_gan.COMPARISON,
    "pix2pix": pix2pix.COMPARISON,
    "granet": granet.COMPARISON,
}


def comparison(paper: str) -> Comparison[Any]:
    """The comparison of a paper.

    Raises:
        ConfigurationError: there is none; those that are there are named.
    """
    if paper not in COMPARISONS:
        raise ConfigurationError(f"paper: expected one of {', '.join(COMPARISONS)}, got {paper!r}")
    return COMPARISONS[paper]
