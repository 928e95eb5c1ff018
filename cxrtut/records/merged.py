"""Records of one comparison, made by several processes or on several days, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cxrtut.records.run_record import ArmRun, RecordError, RunRecord, read_record_file

# What must agree for numbers to stand in one table
_SAME = (
    "paper", "preset", "faithful", "configuration", "settings", "classes", "better", "code",
    "versions", "version",
)  # fmt: skip


def differences(shorter: RunRecord, longer: RunRecord) -> list[str]:
    """In what two records differ that must agree for numbers to stand in one table; the shorter may
    have fewer seeds, if they are the first of the longer's.
    """
    wrong = [name for name in _SAME if getattr(shorter, name) != getattr(longer, name)]
    n = len(shorter.seeds)
    if shorter.seeds != longer.seeds[:n]:
        wrong.append("seeds")
    if list(shorter.data) != list(longer.data)[:n]:
        wrong.append("data")
    return wrong


def merged(records: Sequence[RunRecord]) -> RunRecord:
    """The arms of all records in one, in their order.

    An arm may have fewer seeds than another; it then has the first of them, so that arms are still
    compared seed by seed on the same images. An arm that several records have is taken from the one
    with the most seeds.

    Args:
        records: of one paper, preset, configuration and code, on the same images.

    Returns:
        A record whose command is all their commands, and whose seconds are the sum of theirs.

    Raises:
        RecordError: no records, or what does not go together; says in what they differ.
    """
    if not records:
        raise RecordError("expected records to merge, got none")
    longest = max(records, key=lambda record: len(record.seeds))
    for record in records:
        if wrong := differences(record, longest):
            raise RecordError(
                f"expected records that differ in their arms only, got other {', '.join(wrong)}"
            )
    results: dict[str, tuple[ArmRun, ...]] = {}
    for record in records:
        for arm, runs in record.results.items():
            if len(runs) > len(results.get(arm, ())):
                results[arm] = tuple(runs)
    revisions = sorted({record.revision for record in records})
    return replace(
        longest, results=results, command=" && ".join(record.command for record in records),
        weights={arm: found for record in records for arm, found in record.weights.items()},
        revision=", ".join(revisions), seconds=round(sum(r.seconds for r in records), 1),
        remarks=tuple(dict.fromkeys(remark for record in records for remark in record.remarks)),
    )  # fmt: skip


def record_to_go_on_with(path: Path) -> RunRecord:
    """The record of a run that is to go on after its last seed.

    Args:
        path: of the record.

    Raises:
        RecordError: there is none, or it was merged of arms with unequal seeds.
    """
    if not path.is_file():
        raise RecordError(f"expected the record of a run to go on with, found none: {path}")
    record = read_record_file(path)
    few = [arm for arm, runs in record.results.items() if len(runs) < len(record.seeds)]
    if few:
        raise RecordError(
            f"{path}: expected {len(record.seeds)} seeds of every arm, fewer has {', '.join(few)}"
        )
    return record
