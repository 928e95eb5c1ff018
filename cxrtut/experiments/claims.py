"""A paper's claims, tested on run records: the status is computed, never typed.

A claims file is YAML, a list of

    - claim: what the paper says
      where: its place in the paper
      paper: what it prints, in words
      record: name of the run record
      measure: AP, or within tables of scores: by class > T .3 > Nodule
      protocol: same images
      better: G-D-C
      worse: CAM

or, where a measure is to fall from one stage of a method to the next, instead of the last three

      method: alignment
      protocol: held out
      less: misplaced after
      than: misplaced before

or, where nothing here could test it, `untested: why` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrtut.metrics.intervals import mean_and_margin

ENOUGH_SEEDS = 3
SMALL_LAYERS = 10  # of the classifier at the CPU's size; no paper has it
_SMALL = {
    "reproduced": "agree",
    "weaker": "agree, within the noise",
    "no difference seen": "show no difference",
    "opposite": "disagree",
}
_FIELDS = {"claim", "where", "paper"}
_COMPARED = {"record", "measure", "protocol", "better", "worse"}
_LOWERED = {"record", "method", "protocol", "less", "than"}
_KINDS = ({"untested"}, _COMPARED, _LOWERED)


class ClaimError(Exception):
    """A claims file that cannot be read; says which entry, what was expected and what came."""


@dataclass(frozen=True)
class Difference:
    """Of two methods (or two stages of one) over seeds, each pair on the same data.

    Attributes:
        mean: better minus worse.
        margin: half the 95 % interval of the mean; infinite for one seed.
        n: seeds.
    """

    mean: float
    margin: float
    n: int

    @property
    def status(self) -> str:
        """`reproduced` when the whole interval is above zero and there are three seeds or more,
        `opposite` when it is below, `weaker` when the mean is above zero only, else `no difference
        seen`.
        """
        if self.n >= ENOUGH_SEEDS and self.mean - self.margin > 0:
            return "reproduced"
        if self.n >= ENOUGH_SEEDS and self.mean + self.margin < 0:
            return "opposite"
        return "weaker" if self.mean > 0 else "no difference seen"


def difference(
    record: Mapping[str, Any], *, measure: str, protocol: str, better: str, worse: str
) -> Difference:
    """Of a record of `compare`, of any paper.

    Raises:
        ClaimError: the record lacks a method, a protocol or a measure.
    """
    good, bad = (_values(record, method, protocol, measure) for method in (better, worse))
    return _difference(good, bad)


def fall(
    record: Mapping[str, Any], *, method: str, protocol: str, less: str, than: str
) -> Difference:
    """How much lower one measure of a method is than another.

    Raises:
        ClaimError: as in `difference`.
    """
    high, low = (_values(record, method, protocol, measure) for measure in (than, less))
    return _difference(high, low)


def _values(record: Mapping[str, Any], method: str, protocol: str, measure: str) -> list[float]:
    """Of each seed."""
    try:
        values = [measured(run[protocol], measure) for run in record["results"][method]]
    except KeyError as error:
        raise ClaimError(f"the record has no {error} for {method!r}") from error
    if any(value is None or math.isnan(value) for value in values):
        raise ClaimError(f"{method!r}, {measure}: expected numbers, got {values}")
    return [float(value) for value in values]


def _difference(high: Sequence[float], low: Sequence[float]) -> Difference:
    gains = [a - b for a, b in zip(high, low, strict=True)]
    return Difference(*mean_and_margin(gains), len(gains))


def measured(scores: Mapping[str, Any], measure: str) -> Any:
    """A measure by its name, or by its path: by class > T .3 > Nodule."""
    found: Any = scores
    for name in measure.split(" > "):
        found = found[name]
    return found


def read_claims(path: Path) -> list[dict[str, str]]:
    """The entries of a claims file.

    Raises:
        ClaimError: an entry lacks a field, or has one that is not known.
    """
    import yaml

    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not entries:
        raise ClaimError(f"{path}: expected a list of claims, got {type(entries).__name__}")
    for i, entry in enumerate(entries, 1):
        kind = max(_KINDS, key=lambda fields: len(fields & set(entry)) / len(fields))
        if set(entry) != _FIELDS | kind:
            wrong = sorted(set(entry) ^ (_FIELDS | kind))
            raise ClaimError(f"{path}, claim {i}: missing or not known: {', '.join(wrong)}")
    return [{key: str(value) for key, value in entry.items()} for entry in entries]


def claims_table(
    path: Path, read: Callable[[str], Mapping[str, Any]]
) -> list[dict[str, str | int | float | None]]:
    """The claims with what our records say of them, as rows for a page.

    A record made with networks that are not the paper's shows a direction, and settles nothing: the
    status is then "not tested".

    Args:
        path: the claims file.
        read: the name of a record to the record; FileNotFoundError where there is none.
    """
    rows: list[dict[str, str | int | float | None]] = []
    for entry in read_claims(path):
        row: dict[str, str | int | float | None] = {
            "claim": entry["claim"], "where": entry["where"], "paper": entry["paper"],
        }  # fmt: skip
        ours, status = "–", ""
        if "untested" in entry:
            status = f"not tested: {entry['untested']}"
        else:
            try:
                record = read(entry["record"])
            except FileNotFoundError:
                status = "not tested: no record"
            else:
                tested = {k: v for k, v in entry.items() if k not in {*_FIELDS, "record"}}
                gain = (fall if "than" in entry else difference)(record, **tested)
                margin = f" ± {gain.margin:.3f}" if math.isfinite(gain.margin) else ""
                ours = f"{gain.mean:+.3f}{margin} ({gain.n} seeds)"
                small = record["configuration"].get("classifier_layers") == SMALL_LAYERS
                status = (
                    f"not tested; small networks {_SMALL[gain.status]}" if small else gain.status
                )
        rows.append(row | {"ours": ours, "status": status})
    return rows
