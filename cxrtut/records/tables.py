"""Records as tables for a page or a terminal: of each arm the mean over seeds and half its 95 %
interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cxrtut.metrics.intervals import mean_and_margin
from cxrtut.records.run_record import RunRecord

Row = dict[str, str | int | float | None]
WORDS: Mapping[str, str] = {
    "pixel_ap": "pixel AP",
    "pixel_ap_global_norm": "pixel AP, one range",
    "pixel_ap_smoothed": "pixel AP, smoothed",
    "pixel_ap_image": "pixel AP of an image",
    "chance": "chance",
    "residual_ratio": "residual lesion",
    "background_change": "change outside (grey levels)",
    "accuracy": "accuracy",
    "auroc_mean_heat": "AUROC of the mean heat",
    "auroc": "AUROC",
    "false_positives": "false boxes an image",
    **{f"loc_acc@{t}": f"found at IoU > {t}" for t in (0.3, 0.5, 0.7)},
    **{f"loc_acc_any@{t}": f"any box at IoU > {t}" for t in (0.3, 0.5, 0.7)},
    **{f"loc_acc_oracle@{t}": f"best threshold, IoU > {t}" for t in (0.3, 0.5, 0.7)},
}
"""What an identifier is called in a table."""


def measures_table(
    record: RunRecord,
    side: str = "test",
    measures: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
) -> list[Row]:
    """A row for each arm, a column for each measure.

    Args:
        record: of a run.
        side: `train`, `validation` or `test`.
        measures: identifiers; by default those of `WORDS` that any arm has.
        arms: all by default.
    """
    names = list(arms or record.results)
    known = {m for arm in names for run in record.results[arm] for m in run.side(side)}
    wanted = [m for m in WORDS if m in known] if measures is None else list(measures)
    rows: list[Row] = []
    for arm in names:
        row: Row = {"method": arm}
        for measure in wanted:
            row[WORDS.get(measure, measure)] = _with_margin(_values(record, arm, side, measure))
        rows.append(row)
    return rows if wanted else []


def class_table(
    record: RunRecord, measure: str, arms: Sequence[str], side: str = "test"
) -> list[Row]:
    """One measure by class: a row for each arm, the mean over seeds."""
    rows: list[Row] = []
    for arm in arms:
        row: Row = {"method": arm}
        for name in record.classes:
            values = _values(record, arm, side, f"{measure}/{name}")
            row[name] = sum(values) / len(values) if values else None
        rows.append(row)
    return rows


def _values(record: RunRecord, arm: str, side: str, measure: str) -> list[float]:
    """The measure of each seed that has it."""
    found = [run.side(side).get(measure) for run in record.results[arm]]
    return [v for v in found if v is not None and not math.isnan(v)]


def _with_margin(values: Sequence[float]) -> str | None:
    if not values:
        return None
    mean, margin = mean_and_margin(values)
    return f"{mean:.3f}\u00a0±\u00a0{margin:.3f}" if math.isfinite(margin) else f"{mean:.3f}"
