"""Claims whose status is computed."""

import re
from pathlib import Path

import pytest

from cxrtut.experiments.claims import (
    ClaimError,
    claims_table,
    difference,
    fall,
    read_claims,
)

ROOT = Path(__file__).resolve().parents[2]
TESTED = "record: r\n  measure: AP\n  protocol: p\n  better: A\n  worse: B"
ENTRY = f"- claim: A beats B\n  where: Fig. 1\n  paper: .5 against .4\n  {TESTED}\n"


def record(a, b, layers=18):
    return {
        "configuration": {"classifier_layers": layers},
        "results": {k: [{"p": {"AP": v}} for v in values] for k, values in (("A", a), ("B", b))},
    }


def gain(a, b):
    return difference(record(a, b), measure="AP", protocol="p", better="A", worse="B")


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        ([0.50, 0.51, 0.52], [0.30, 0.31, 0.31], "reproduced"),
        ([0.30, 0.31, 0.31], [0.50, 0.51, 0.52], "opposite"),
        ([0.5, 0.3, 0.6], [0.3, 0.4, 0.3], "weaker"),
        ([0.3, 0.4], [0.1, 0.2], "weaker"),  # two seeds settle nothing
        ([0.9], [0.1], "weaker"),
        ([0.3, 0.3, 0.3], [0.3, 0.31, 0.3], "no difference seen"),
    ],
)
def test_the_status_follows_from_the_interval_over_seeds(a, b, status):
    assert gain(a, b).status == status


def test_the_interval_is_students_of_the_paired_differences():
    d = gain([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])  # differences .1, .2, .3
    assert d.mean == pytest.approx(0.2)
    assert d.margin == pytest.approx(4.302652729696142 * 0.1 / 3**0.5)
    one = gain([0.9], [0.1])
    assert one.mean == pytest.approx(0.8) and one.margin == float("inf") and one.n == 1


def write(tmp_path, text):
    path = tmp_path / "x.claims.yml"
    path.write_text(text)
    return path


def test_the_table_says_what_our_records_say(tmp_path):
    path = write(tmp_path, ENTRY + "- {claim: C, where: w, paper: p, untested: no data}\n")
    good = record([0.50, 0.51, 0.52], [0.30, 0.31, 0.31])
    rows = claims_table(path, lambda name: {"r": good}[name])
    assert [row["status"] for row in rows] == ["reproduced", "not tested: no data"]
    assert re.fullmatch(r"\+0\.203 ± 0\.014 \(3 seeds\)", rows[0]["ours"])
    assert rows[1]["ours"] == "–"


def test_small_networks_and_missing_records_settle_nothing(tmp_path):
    path = write(tmp_path, ENTRY)
    small = record([0.50, 0.51, 0.52], [0.30, 0.31, 0.31], layers=10)
    (row,) = claims_table(path, lambda name: small)
    assert row["status"] == "not tested; small networks agree"

    def missing(name):
        raise FileNotFoundError(name)

    assert claims_table(path, missing)[0]["status"] == "not tested: no record"


def test_a_file_that_cannot_be_read_names_the_entry(tmp_path):
    with pytest.raises(ClaimError, match=r"claim 1: missing or not known: worse"):
        read_claims(write(tmp_path, ENTRY.replace("  worse: B\n", "")))
    with pytest.raises(ClaimError, match="expected a list of claims, got dict"):
        read_claims(write(tmp_path, "claim: x\n"))
    with pytest.raises(ClaimError, match=r"the record has no 'A'"):
        difference({"results": {}}, measure="AP", protocol="p", better="A", worse="B")


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_measure_that_is_not_defined_is_refused(value):
    with pytest.raises(ClaimError, match="'B', AP: expected numbers, got"):
        gain([0.5, 0.6], [0.4, value])


def test_a_measure_that_falls_is_a_gain(tmp_path):
    runs = [{"p": {"off before": b, "off after": a}} for b, a in ((0.9, 0.5), (0.8, 0.5))]
    found = {"configuration": {"classifier_layers": 18}, "results": {"alignment": runs}}
    d = fall(found, method="alignment", protocol="p", less="off after", than="off before")
    assert d.mean == pytest.approx(0.35) and d.n == 2
    text = (
        "  record: r\n  method: alignment\n  protocol: p\n  less: off after\n  than: off before\n"
    )
    path = write(tmp_path, f"- claim: it falls\n  where: Abstract\n  paper: none\n{text}")
    (row,) = claims_table(path, lambda name: found)
    assert row["ours"].startswith("+0.350") and row["status"] == "weaker"
    with pytest.raises(ClaimError, match="the record has no 'other' for 'alignment'"):
        fall(found, method="alignment", protocol="p", less="other", than="off before")
    path = write(tmp_path, f"- claim: it falls\n  where: Abstract\n  paper: none\n{text[:-19]}")
    with pytest.raises(ClaimError, match="claim 1: missing or not known: than"):
        read_claims(path)


@pytest.mark.parametrize("path", sorted((ROOT / "book").rglob("*.claims.yml")), ids=str)
def test_the_claims_of_the_book_are_whole(path):
    assert read_claims(path)


def test_a_measure_may_lie_deeper_in_the_scores():
    runs = {k: [{"p": {"by class": {"T .3": {"Nodule": v}}}}] for k, v in (("A", 0.5), ("B", 0.2))}
    found = difference(
        {"results": runs}, measure="by class > T .3 > Nodule", protocol="p", better="A", worse="B"
    )
    assert found.mean == pytest.approx(0.3) and found.n == 1
    with pytest.raises(ClaimError, match="the record has no 'Mass' for 'A'"):
        difference(
            {"results": runs}, measure="by class > T .3 > Mass", protocol="p", better="A", worse="B"
        )
