"""A paper's claims, tested on run records: the status is computed, never typed.

A claims file is YAML, a list of

    - claim: what the paper says
      where: its place in the paper
      pair: [0.481, 0.065]     # the two numbers that it prints, of the better and of the worse
      record: name of the run record
      measure: pixel_ap        # of one class: auroc/Nodule
      rows: train              # or validation, or test
      better: G-D-C            # arms of the comparison
      worse: CAM

or, where a measure is to improve from one stage of a method to the next, instead of the last two

      method: aligned
      after: relative_pose_error_after
      before: relative_pose_error_before

or, where nothing here could test it, `untested: why` alone. Where the paper prints no such pair,
`paper: what it prints, in words` stands in its place. Whether more is better is declared by the
measure, not here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cxrtut.metrics.intervals import mean_and_margin
from cxrtut.records.published import printed_digits
from cxrtut.records.run_record import RunRecord

ENOUGH_SEEDS = 3


class ClaimError(Exception):
    """A claims file that cannot be read, or does not fit its record; says which entry, what was
    expected and what came.
    """


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An entry of a claims file; see the module."""

    claim: str
    where: str
    paper: str = ""
    pair: tuple[float, float] | None = None
    record: str = ""
    measure: str = ""
    rows: str = ""
    better: str = ""
    worse: str = ""
    method: str = ""
    after: str = ""
    before: str = ""
    untested: str = ""


_ALWAYS = {"claim", "where"}
_KINDS = (
    {"untested"},
    {"record", "measure", "rows", "better", "worse"},
    {"record", "rows", "method", "after", "before"},
)


@dataclass(frozen=True)
class Difference:
    """The difference of two arms (or two stages of one) over seeds, each pair on the same data.

    Attributes:
        mean: of the better one minus the worse one, in the units of the measure.
        margin: half the 95 % interval of the mean; infinite for one seed.
        n: seeds.
        lower_is_better: whether a difference below zero is what the claim expects.
        pair: the mean over seeds of the better one, and of the worse one.
    """

    mean: float
    margin: float
    n: int
    lower_is_better: bool = False
    pair: tuple[float, float] = (math.nan, math.nan)

    @property
    def direction(self) -> str:
        """`agrees` or `disagrees` when the whole interval is on one side of zero and there are
        three seeds or more, else `no difference`.
        """
        if self.n < ENOUGH_SEEDS or abs(self.mean) <= self.margin:
            return "no difference"
        return "agrees" if (self.mean < 0) == self.lower_is_better else "disagrees"

    @property
    def text(self) -> str:
        """Such as "+.041 ± .036 (3 seeds)"."""
        margin = f" ± {_short(self.margin)}" if math.isfinite(self.margin) else ""
        mean = _short(self.mean, sign="+")
        return f"{mean}{margin} ({self.n} seed{'s' if self.n != 1 else ''})"


def difference(record: RunRecord, claim: Claim) -> Difference:
    """What a record says of a claim.

    Raises:
        RecordError: the record lacks an arm or a measure.
        ClaimError: nobody declared which side of the measure is better.
    """
    if claim.method:
        high = record.values(claim.method, claim.rows, claim.after)
        low = record.values(claim.method, claim.rows, claim.before)
        measure = claim.after
    else:
        high = record.values(claim.better, claim.rows, claim.measure)
        low = record.values(claim.worse, claim.rows, claim.measure)
        measure = claim.measure
    direction = record.direction(measure)
    if direction == "neither":
        raise ClaimError(f"{claim.claim!r}: {measure} has no better side")
    # Seed by seed; where an arm has fewer, over the first ones
    n = min(len(high), len(low))
    high, low = high[:n], low[:n]
    gains = [a - b for a, b in zip(high, low, strict=True)]
    pair = sum(high) / len(high), sum(low) / len(low)
    return Difference(*mean_and_margin(gains), len(gains), direction == "lower", pair)


def _short(value: float, digits: int = 3, sign: str = "") -> str:
    """A number as the book writes it, without the zero before the point: ".481", "+.041"."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{digits}f}")


def _against(pair: tuple[float, float], digits: int = 3) -> str:
    return f"{_short(pair[0], digits)} against {_short(pair[1], digits)}"


def read_claims(path: Path) -> list[Claim]:
    """The entries of a claims file.

    Raises:
        ClaimError: an entry lacks a field, or has one that is not known.
    """
    import yaml

    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not entries:
        raise ClaimError(f"{path}: expected a list of claims, got {type(entries).__name__}")
    claims = []
    for i, entry in enumerate(entries, 1):
        known = _ALWAYS | {"pair" if "pair" in entry else "paper"}
        kind = max(_KINDS, key=lambda names: len(names & set(entry)) / len(names))
        wrong = sorted(set(entry) ^ (known | kind))
        if wrong:
            raise ClaimError(f"{path}, claim {i}: missing or not known: {', '.join(wrong)}")
        empty = [k for k, v in entry.items() if v is None or str(v).strip() == ""]
        if empty:
            raise ClaimError(f"{path}, claim {i}: expected a value, got none: {', '.join(empty)}")
        pair = entry.pop("pair", None)
        words = {k: str(v) for k, v in entry.items()}
        claims.append(Claim(**words, pair=None if pair is None else _two(pair, path, i)))
    return claims


def _two(pair: object, path: Path, i: int) -> tuple[float, float]:
    if not isinstance(pair, list) or [type(v) for v in pair] != [float, float]:
        raise ClaimError(f"{path}, claim {i}: pair: expected two numbers, got {pair!r}")
    return (pair[0], pair[1])


def status(record: RunRecord, gain: Difference, sources: Collection[str]) -> str:
    """What a difference settles. Only the paper's networks on the paper's kind of images can
    reproduce a claim, or show its opposite; smaller networks and other images can only agree or
    disagree.

    Args:
        record: whose it is.
        gain: found in it.
        sources: where the paper's kind of images are from.
    """
    if not record.faithful:
        where = " at small size"
    else:
        where = "" if record.source in sources else " on other images"
    words = {"agrees": f"agrees{where}", "disagrees": f"disagrees{where}"}
    if not where:
        words = {"agrees": "reproduced", "disagrees": "opposite"}
    found = words.get(gain.direction, gain.direction)
    return f"{found} (stale)" if record.is_stale else found


def claims_table(
    path: Path, read: Callable[[str], RunRecord], sources: Collection[str]
) -> list[dict[str, str | int | float | None]]:
    """The claims with what our records say of them, as rows for a page: claim, status, place, the
    two numbers of the paper and ours, and their differences. Each record is read once.

    Args:
        path: the claims file.
        read: the name of a record to the record; FileNotFoundError where there is none.
        sources: where the paper's kind of images are from; see `Comparison.sources`.
    """

    @cache
    def known(name: str) -> RunRecord | None:
        try:
            return read(name)
        except FileNotFoundError:
            return None

    rows: list[dict[str, str | int | float | None]] = []
    for claim in read_claims(path):
        record = None if claim.untested else known(claim.record)
        ours = change = "–"
        if record is None:
            said = f"not testable: {claim.untested or 'there is no record'}"
        else:
            gain = difference(record, claim)
            ours, change, said = _against(gain.pair), gain.text, status(record, gain, sources)
        paper, effect = claim.paper, "–"
        if claim.pair is not None:
            digits = max(map(printed_digits, claim.pair))
            paper = _against(claim.pair, digits)
            effect = _short(claim.pair[0] - claim.pair[1], digits, "+")
        rows.append(
            {
                "claim": claim.claim, "status": said, "where": claim.where,
                "paper": paper, "ours": ours,
                "difference, paper": effect, "difference, ours": change,
            }
        )  # fmt: skip
    return rows


def as_differences(
    rows: Sequence[Mapping[str, str | int | float | None]],
) -> list[dict[str, str | int | float | None]]:
    """The rows of `claims_table` in four columns, which a page has room for: claim, status, and the
    difference in the paper and here, without the number of seeds.
    """
    return [
        {
            "claim": row["claim"], "status": row["status"], "paper": row["difference, paper"],
            "ours": str(row["difference, ours"]).partition(" (")[0],
        }
        for row in rows
    ]  # fmt: skip


def stale_note(records: Sequence[RunRecord]) -> str:
    """A sentence for a page that shows records whose code has changed since; "" where none has."""
    old = [record for record in records if record.is_stale]
    if not old:
        return ""
    return (
        f"{len(old)} of {len(records)} records shown here are stale: the code that made them has "
        "changed since, perhaps that of the simulated radiographs too. What this page draws or "
        "computes now may differ from what those runs saw, so compare numbers within a table, not "
        "between tables. `python -m cxrtut reproduce` makes them again; each has its command."
    )
