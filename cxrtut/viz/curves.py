"""Curves: terms of a loss over training, precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from cxrtut.viz.images import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers, readable on white and on black.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#b8a800")


def terms_over_steps(
    steps: Sequence[int], terms: Mapping[str, Sequence[float]], columns: int = 3
) -> Figure:
    """One small plot for each term, over training steps.

    Args:
        steps: of the reports.
        terms: name -> value at each of them.
        columns: plots in a row.
    """
    import matplotlib.pyplot as plt

    rows = -(-len(terms) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(7.5, 1.7 * rows), squeeze=False, layout="constrained",
        facecolor="none",
    )  # fmt: skip
    for axis in axes.flat[len(terms) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes.flat, terms.items(), strict=False):
        axis.plot(steps, values, color=COLOURS[0], linewidth=1.3)
        axis.set_title(name, color=INK, fontsize=8)
        plain(axis)
    return figure


def precision_over_recall(
    curves: Mapping[str, tuple[Float[Tensor, " n"], Float[Tensor, " n"]]], chance: float
) -> Figure:
    """Precision-recall curves of several methods, and the level of chance.

    Args:
        curves: name -> (recall, precision).
        chance: share of positive pixels.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained", facecolor="none")
    styles = ("-", "--", "-.", ":")
    for i, (name, (recall, precision)) in enumerate(curves.items()):
        axis.plot(
            recall.cpu().numpy(), precision.cpu().numpy(), styles[i // 4 % 4], label=name,
            color=COLOURS[i % len(COLOURS)], linewidth=1.4,
        )  # fmt: skip
    axis.axhline(chance, color=INK, linewidth=0.8, linestyle=":", label="chance")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_xlabel("recall (share of lesion pixels found)", color=INK, fontsize=8)
    axis.set_ylabel("precision", color=INK, fontsize=8)
    axis.legend(fontsize=7, labelcolor=INK, framealpha=0)
    plain(axis)
    return figure


def plain(axis: Axes) -> None:
    """Axes that can be read on a light and on a dark page."""
    axis.set_facecolor("none")
    axis.tick_params(colors=INK, labelsize=7)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
