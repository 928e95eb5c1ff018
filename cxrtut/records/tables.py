"""Records as tables for a page or a terminal: of each arm the mean over seeds and half its 95 %
interval, alone or beside the numbers that a paper prints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cxrtut.metrics.intervals import mean_and_margin
from cxrtut.records.measure_words import MEASURES
from cxrtut.records.published import PublishedTable
from cxrtut.records.run_record import ArmRun, RecordError, RunRecord
from cxrtut.records.words import name_of

Row = dict[str, str | int | float | None]
IMAGES_OF: Mapping[str, str] = {
    "train": "images that the networks have learnt from",
    "validation": "images that were looked at during training",
    "test": "patients that no network has seen",
}
"""What a side of a record is of, for a caption."""


def over_seeds(record: RunRecord, arms: Sequence[str] | None = None) -> str:
    """What a cell with ± is, for a caption: "mean over 3 seeds ± half its 95 % interval"; "3 to 5
    seeds" where some of the arms (all by default) have fewer than others.
    """
    counts = sorted({len(record.results[arm]) for arm in arms or record.results})
    if counts[-1:] <= [1]:
        return "one seed"
    n = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"mean over {n} seeds ± half its 95 % interval"


def measures_table(
    record: RunRecord,
    side: str = "test",
    measures: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
) -> list[Row]:
    """A row for each arm, a column for each measure; `records.measure_words` says what they are.

    Args:
        record: of a run.
        side: `train`, `validation` or `test`.
        measures: identifiers; by default those of `MEASURES` that any arm has.
        arms: all by default.
    """
    names = list(arms or record.results)
    known = {m for arm in names for run in record.results[arm] for m in run.side(side)}
    wanted = [m for m in MEASURES if m in known] if measures is None else list(measures)
    rows: list[Row] = []
    for arm in names:
        row: Row = {"method": arm}
        for measure in wanted:
            row[name_of(measure)] = _with_margin(_values(record.results[arm], side, measure))
        rows.append(row)
    return rows if wanted else []


def means(
    record: RunRecord, measures: Sequence[str], arms: Sequence[str], side: str = "test"
) -> dict[str, list[float]]:
    """Of each arm the mean over seeds of each measure, for a curve; NaN where no seed has it, and
    no arm that has none of them.

    Raises:
        RecordError: no such arm.
    """
    _check(record, {}, [], arms, side)
    found = {}
    for arm in arms:
        each = [_mean(_values(record.results[arm], side, measure)) for measure in measures]
        if any(value is not None for value in each):
            found[arm] = [math.nan if value is None else value for value in each]
    return found


def learning_curves(
    record: RunRecord, measure: str, arms: Sequence[str]
) -> dict[str, list[tuple[list[int], list[float]]]]:
    """Of each arm, for each seed, the steps after which a measure was taken during its training and
    what it was then; no arm that has no curve. A NaN was not measured.

    Raises:
        RecordError: no such arm.
    """
    _check(record, {}, [], arms, "train")
    found = {}
    for arm in arms:
        curves = [
            [
                (p.step, v)
                for p in run.curve
                if (v := p.numbers.get(measure)) is not None and not math.isnan(v)
            ]
            for run in record.results[arm]
        ]
        each = [([s for s, _ in curve], [v for _, v in curve]) for curve in curves if curve]
        if each:
            found[arm] = each
    return found


def beside_paper(
    record: RunRecord,
    printed: Mapping[str, PublishedTable],
    measures: Sequence[str],
    methods: Sequence[str] | None = None,
    side: str = "test",
    *,
    column: str = "mean",
    labels: tuple[str, str] = ("ours", "paper"),
) -> list[Row]:
    """Ours and the paper's in one table: a row for each method and two columns for each measure,
    "AUROC, ours" and "AUROC, paper". A measure that the paper does not print has one column.

    Two tables of the same methods become one by `[a | b for a, b in zip(first, second)]`.

    Args:
        record: of our runs.
        printed: the paper's tables by measure, from `published`.
        measures: identifiers.
        methods: by default the arms of the record, then what the paper alone has.
        side: of the record: `train`, `validation` or `test`.
        column: of the paper's tables: a data set, or the mean over diseases.
        labels: what stands in the heads of the two columns behind the measure.

    Raises:
        RecordError: neither the record nor the paper has a measure, or a method.
    """
    tables = {m: printed[m] for m in measures if m in printed and column in printed[m].columns}
    if methods is None:
        theirs = [m for t in tables.values() for m in t.numbers if t.number(m, column) is not None]
        methods = list(dict.fromkeys([*record.results, *theirs]))
    _check(record, tables, measures, methods, side)
    rows: list[Row] = []
    for method in methods:
        row: Row = {"method": method}
        for measure in measures:
            ours = _with_margin(_values(record.results.get(method, ()), side, measure))
            if measure not in tables:
                row[name_of(measure)] = ours
                continue
            row[f"{name_of(measure)}, {labels[0]}"] = ours
            row[f"{name_of(measure)}, {labels[1]}"] = tables[measure].text(method, column)
        rows.append(row)
    return rows


def classes_beside_paper(
    record: RunRecord,
    printed: Mapping[str, PublishedTable],
    measure: str,
    methods: Sequence[str],
    side: str = "test",
) -> list[Row]:
    """One measure by disease, ours and the paper's: a row for each disease, the mean last, and two
    columns for each method, "aligned, ours" and "aligned, paper"; a method that the paper does not
    have has one. With more than three methods the table is too wide for a page.

    Args:
        record: of our runs; the mean over seeds is shown, with as many digits as the paper prints.
        printed: the paper's tables by measure, from `published`.
        measure: identifier without a disease, such as "loc_acc@0.3".
        methods: arms of the record, or of the paper.
        side: of the record: `train`, `validation` or `test`.

    Raises:
        RecordError: neither the record nor the paper has the measure, or a method.
    """
    tables = {measure: printed[measure]} if measure in printed else {}
    _check(record, tables, [measure], methods, side)
    theirs = tables.get(measure, PublishedTable("", {}))
    rows: list[Row] = []
    for name in [*record.classes, "mean"]:
        row: Row = {"disease": name}
        for method in methods:
            identifier = measure if name == "mean" else f"{measure}/{name}"
            ours = _mean(_values(record.results.get(method, ()), side, identifier))
            shown = None if ours is None else f"{ours:.{theirs.digits or 2}f}"
            if method in theirs.numbers:
                row[f"{method}, ours"] = shown
                row[f"{method}, paper"] = theirs.text(method, name)
            else:
                row[method] = shown
        rows.append(row)
    return rows


def _check(
    record: RunRecord,
    tables: Mapping[str, PublishedTable],
    measures: Sequence[str],
    methods: Sequence[str],
    side: str,
) -> None:
    """Raises RecordError where neither the record nor the paper knows a measure or a method."""
    ours = {m for runs in record.results.values() for run in runs for m in run.side(side)}
    for measure in measures:
        if measure not in ours and measure not in tables:
            there = ", ".join(sorted(m for m in ours if "/" not in m))
            raise RecordError(f"{side}: no measure {measure!r}; there are {there}")
    known = dict.fromkeys([*record.results, *(m for t in tables.values() for m in t.numbers)])
    for method in methods:
        if method not in known:
            raise RecordError(f"no method {method!r}; there are {', '.join(known)}")


def _values(runs: Sequence[ArmRun], side: str, measure: str) -> list[float]:
    """The measure of each seed that has it."""
    found = [run.side(side).get(measure) for run in runs]
    return [v for v in found if v is not None and not math.isnan(v)]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _with_margin(values: Sequence[float]) -> str | None:
    if not values:
        return None
    mean, margin = mean_and_margin(values)
    return f"{mean:.3f}\u00a0±\u00a0{margin:.3f}" if math.isfinite(margin) else f"{mean:.3f}"
