"""Curves: terms of a loss and measures over training, precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from cxrtut.viz.images import INK, ROW_OF_LETTERS, TEXT, panels, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Contrast of at least 3 on white and on black; two curves of one style differ in colour for
# colour-blind readers too, the others by their style.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b9629a", "#a6761d", "#3b8fc4", "#7b5bc7", "#6f8f00")
STYLES = ("-", "--", "-.", ":")
NAMES = 3  # of curves in a row of a legend


def terms_over_steps(
    steps: Sequence[int], terms: Mapping[str, Sequence[float]], columns: int = 3
) -> Figure:
    """One small plot for each term, over training steps.

    Args:
        steps: of the reports.
        terms: name -> value at each of them.
        columns: plots in a row, at most four.
    """
    rows = -(-len(terms) // columns)
    figure, axes = panels(rows, columns, 2.1 * rows)
    for axis in axes[len(terms) :]:
        axis.set_axis_off()
    for i, (axis, (name, values)) in enumerate(zip(axes, terms.items(), strict=False)):
        axis.plot(steps, values, color=COLOURS[0], linewidth=1.6)
        axis.set_title(wrapped(name, columns), color=INK, fontsize=TEXT)
        axis.locator_params(nbins=4)
        axis.yaxis.set_major_formatter("{x:g}")
        if i + columns >= len(terms):
            axis.set_xlabel("training step", color=INK, fontsize=TEXT)
        plain(axis)
    return figure


def learning_curves(
    found: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]],
    measure: str,
    along: str = "training step (a batch each)",
) -> Figure:
    """A measure over training: a thin line for each seed of a method, and on top the mean over
    them, where the seeds were measured after the same steps.

    Args:
        found: method -> for each seed the steps, and the measure after each.
        measure: its name, in words.
        along: what the steps are, in words.
    """
    figure, (axis,) = panels(1, 1, 4.0 + legend_height(len(found)))
    for i, (name, seeds) in enumerate(found.items()):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % 4]
        if len({tuple(steps) for steps, _ in seeds}) > 1:
            label = name  # of the first line: there is no mean
            for steps, values in seeds:
                axis.plot(steps, values, style, label=label, color=colour, linewidth=1.2)
                label = "_"
            continue
        for steps, values in seeds if len(seeds) > 1 else ():
            axis.plot(steps, values, style, color=colour, linewidth=0.8, alpha=0.45)
        mean = [sum(at) / len(at) for at in zip(*(values for _, values in seeds), strict=True)]
        axis.plot(seeds[0][0], mean, style, label=name, color=colour, linewidth=2.0)
    axis.set_xlabel(along, color=INK, fontsize=TEXT)
    axis.set_ylabel(measure, color=INK, fontsize=TEXT)
    plain(axis)
    legend_below(figure, axis)
    return figure


def precision_over_recall(
    curves: Mapping[str, tuple[Float[Tensor, " n"], Float[Tensor, " n"]]], chance: float
) -> Figure:
    """Precision-recall curves of several methods, and the level of chance.

    Args:
        curves: name -> (recall, precision).
        chance: share of positive pixels.
    """
    figure, (axis,) = panels(1, 1, 4.2 + legend_height(1 + len(curves)))
    for i, (name, (recall, precision)) in enumerate(curves.items()):
        axis.plot(
            recall.cpu().numpy(), precision.cpu().numpy(), STYLES[i % 4], label=name,
            color=COLOURS[i % len(COLOURS)], linewidth=1.8,
        )  # fmt: skip
    axis.axhline(chance, color=INK, linewidth=1.0, label="chance")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_xlabel("recall (share of lesion pixels found)", color=INK, fontsize=TEXT)
    axis.set_ylabel("precision", color=INK, fontsize=TEXT)
    plain(axis)
    axis.tick_params(pad=6)
    legend_below(figure, axis)
    return figure


def legend_height(names: int) -> float:
    """What `legend_below` needs for so many names, in inches."""
    return -(-names // NAMES) * 1.3 * ROW_OF_LETTERS


def legend_below(figure: Figure, axis: Axes) -> None:
    """One legend for all plots, below them; a line that has no name is not in it."""
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside lower center", ncols=NAMES, fontsize=TEXT,
        labelcolor=INK, frameon=False, handlelength=2.6,
    )  # fmt: skip


def plain(axis: Axes) -> None:
    """Axes that can be read on a light and on a dark page."""
    axis.set_facecolor("none")
    axis.tick_params(colors=INK, labelsize=TEXT)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
