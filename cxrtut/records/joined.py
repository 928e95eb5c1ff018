"""Records of one comparison whose arms were run apart, as one record."""

from __future__ import annotations

from dataclasses import replace

from cxrtut.records.run_record import RecordError, RunRecord


def joined(first: RunRecord, *others: RunRecord) -> RunRecord:
    """The arms of several records as those of one, which has the seeds of the record with most of
    them. An arm keeps the seeds that it had: the first ones, on the same images as all others.

    A file of the library that did not have the same code in all of them counts as changed, so that
    the joined record is stale.

    Args:
        first: whose words are kept.
        others: of the same comparison.

    Raises:
        RecordError: another paper, preset, configuration or kind of classes; seeds or images that
            do not begin alike; or an arm that two records have.
    """
    found = first
    for other in others:
        for name in ("paper", "preset", "configuration", "classes"):
            ours, theirs = getattr(found, name), getattr(other, name)
            if ours != theirs:
                raise RecordError(f"{name}: expected {ours!r} in both records, got {theirs!r}")
        shared = min(len(found.seeds), len(other.seeds))
        for name in ("seeds", "data"):
            ours, theirs = getattr(found, name)[:shared], getattr(other, name)[:shared]
            if list(ours) != list(theirs):
                raise RecordError(f"{name}: expected {ours!r} in both records, got {theirs!r}")
        twice = sorted(set(found.results) & set(other.results))
        if twice:
            raise RecordError(f"arms: expected each in one record, got twice {', '.join(twice)}")
        most = max(found, other, key=lambda record: len(record.seeds))
        found = replace(
            found, command=f"{found.command}\n{other.command}", seeds=most.seeds, data=most.data,
            faithful=found.faithful and other.faithful,
            results={**found.results, **other.results}, better={**found.better, **other.better},
            weights={**found.weights, **other.weights}, code=_code(found, other),
            seconds=round(found.seconds + other.seconds, 1),
            remarks=(*found.remarks, *other.remarks),
        )  # fmt: skip
    return found


def _code(one: RunRecord, other: RunRecord) -> dict[str, str]:
    """The files of both; one that differs has no code, and no records without code are fresh."""
    if not one.code or not other.code:
        return {}
    differ = {file for file in one.code if other.code.get(file, one.code[file]) != one.code[file]}
    return {**one.code, **other.code} | dict.fromkeys(differ, "")
