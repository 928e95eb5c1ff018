"""Claims whose status is computed."""

from dataclasses import replace

import pytest
from records.test_run_record import a_record

from cxrtut.records.claims import (
    ClaimError,
    Difference,
    as_differences,
    claims_table,
    difference,
    read_claims,
    stale_note,
    status,
)
from cxrtut.records.recorded import CLAIMS
from cxrtut.records.run_record import ArmRun, RecordError

ENTRY = """- claim: A beats B
  where: Fig. 1
  pair: [0.5, 0.41]
  record: r
  measure: ap
  rows: test
  better: A
  worse: B
"""
STAGES = """- claim: it falls
  where: Abstract
  paper: none
  record: r
  rows: test
  method: A
  after: error_after
  before: error_before
"""
PAPERS = frozenset({"NIH ChestX-ray14"})
BETTER = {"ap": "higher", "error": "lower", "error_after": "lower", "pairs": "neither"}


def record(a, b, measure="ap", faithful=True, source="NIH ChestX-ray14"):
    results = {
        k: tuple(ArmRun(test={measure: v}) for v in values) for k, values in (("A", a), ("B", b))
    }
    return a_record(
        results=results, better=BETTER, faithful=faithful, data=[{"source": source}], remarks=()
    )


def write(tmp_path, text):
    path = tmp_path / "x.yml"
    path.write_text(text)
    return path


@pytest.fixture
def claim(tmp_path):
    return read_claims(write(tmp_path, ENTRY))[0]


def gain(claim, a, b, measure="ap"):
    return difference(record(a, b, measure), replace(claim, measure=measure))


@pytest.mark.parametrize(
    ("a", "b", "direction"),
    [
        ([0.50, 0.51, 0.52], [0.30, 0.31, 0.31], "agrees"),
        ([0.30, 0.31, 0.31], [0.50, 0.51, 0.52], "disagrees"),
        ([0.5, 0.3, 0.6], [0.3, 0.4, 0.3], "no difference"),
        ([0.3, 0.4], [0.1, 0.2], "no difference"),  # two seeds settle nothing
        ([0.9], [0.1], "no difference"),
        ([0.3, 0.3, 0.3], [0.3, 0.31, 0.3], "no difference"),
        ([0.3, 0.3, 0.3], [0.3, 0.3, 0.3], "no difference"),
    ],
)
def test_the_direction_follows_from_the_interval_over_seeds(claim, a, b, direction):
    assert gain(claim, a, b).direction == direction
    mirrored = {"agrees": "disagrees", "disagrees": "agrees"}.get(direction, direction)
    assert gain(claim, a, b, "error").direction == mirrored  # lower is better


def test_arms_of_unequal_seeds_are_compared_on_the_seeds_that_both_have(claim):
    three = [0.5, 0.6, 0.7], [0.1, 0.2, 0.6]
    for a, b in (([*three[0], 0.0], three[1]), (three[0], [*three[1], 9.0])):
        found = gain(claim, a, b)
        assert found.n == 3 and found.mean == pytest.approx(0.3)
        assert found.pair == pytest.approx((0.6, 0.3))


def test_the_interval_is_students_of_the_paired_differences(claim):
    d = gain(claim, [0.5, 0.6, 0.7], [0.4, 0.4, 0.4])  # differences .1, .2, .3
    assert d.mean == pytest.approx(0.2)
    assert d.margin == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-4)
    one = gain(claim, [0.9], [0.1])
    assert one.mean == pytest.approx(0.8) and one.margin == float("inf") and one.n == 1
    assert d.text == "+.200 ± .248 (3 seeds)" and one.text == "+.800 (1 seed)"
    assert d.pair == pytest.approx((0.6, 0.4)) and one.pair == pytest.approx((0.9, 0.1))


@pytest.mark.parametrize(
    ("faithful", "source", "words"),
    [
        (True, "NIH ChestX-ray14", ("reproduced", "opposite")),
        (False, "NIH ChestX-ray14", ("agrees at small size", "disagrees at small size")),
        (True, "simulated", ("agrees on other images", "disagrees on other images")),
        (False, "simulated", ("agrees at small size", "disagrees at small size")),
    ],
)
def test_only_the_papers_networks_on_the_papers_images_settle_a_claim(faithful, source, words):
    r = record([1.0], [0.0], faithful=faithful, source=source)
    gains = [Difference(mean, 0.1, 3) for mean in (0.5, -0.5, 0.05)]
    expected = [*words, "no difference"]
    assert [status(r, d, PAPERS) for d in gains] == expected
    old = replace(r, code={})
    assert [status(old, d, PAPERS) for d in gains] == [f"{e} (stale)" for e in expected]


def test_a_record_whose_code_has_changed_is_noted():
    fresh, old = record([1.0], [0.0]), replace(record([1.0], [0.0]), code={})
    assert stale_note([fresh]) == "" and stale_note([]) == ""
    assert stale_note([fresh, old]).startswith("1 of 2 records shown here are stale")


def test_the_table_says_what_our_records_say(tmp_path):
    path = write(tmp_path, ENTRY + "- {claim: C, where: w, paper: p, untested: no data}\n")
    good = record([0.50, 0.51, 0.52], [0.30, 0.31, 0.31])
    rows = claims_table(path, lambda name: {"r": good}[name], PAPERS)
    assert [row["status"] for row in rows] == ["reproduced", "not testable: no data"]
    assert list(rows[0])[:2] == ["claim", "status"]
    assert (rows[0]["paper"], rows[0]["ours"]) == (".50 against .41", ".510 against .307")
    assert rows[0]["difference, paper"] == "+.09"
    assert rows[0]["difference, ours"] == "+.203 ± .014 (3 seeds)"
    assert rows[1]["paper"] == "p" and rows[1]["ours"] == "–"
    assert rows[1]["difference, paper"] == rows[1]["difference, ours"] == "–"


def test_a_record_of_many_claims_is_read_once(tmp_path):
    good, asked = record([0.50, 0.51, 0.52], [0.30, 0.31, 0.31]), []

    def read(name):
        asked.append(name)
        if name == "gone":
            raise FileNotFoundError(name)
        return good

    gone = ENTRY.replace("record: r", "record: gone")
    assert len(claims_table(write(tmp_path, (ENTRY + gone) * 3), read, PAPERS)) == 6
    assert sorted(asked) == ["gone", "r"]


def test_small_networks_and_missing_records_settle_nothing(tmp_path):
    path = write(tmp_path, ENTRY)
    small = record([0.50, 0.51, 0.52], [0.30, 0.31, 0.31], faithful=False)
    (row,) = claims_table(path, lambda name: small, PAPERS)
    assert row["status"] == "agrees at small size"

    def missing(name):
        raise FileNotFoundError(name)

    assert claims_table(path, missing, PAPERS)[0]["status"] == "not testable: there is no record"


def test_a_file_that_cannot_be_read_names_the_entry(tmp_path):
    with pytest.raises(ClaimError, match=r"claim 1: missing or not known: worse"):
        read_claims(write(tmp_path, ENTRY.replace("  worse: B\n", "")))
    with pytest.raises(ClaimError, match=r"claim 2: missing or not known: before"):
        read_claims(write(tmp_path, ENTRY + STAGES.replace("  before: error_before\n", "")))
    with pytest.raises(ClaimError, match="claim 1: missing or not known: colour"):
        read_claims(write(tmp_path, ENTRY + "  colour: blue\n"))
    for pair in ("0.5", "[0.5]", "[0.5, x]", "[1, 2, 3]"):
        wrong = ENTRY.replace("[0.5, 0.41]", pair)
        with pytest.raises(ClaimError, match="claim 1: pair: expected two numbers, got"):
            read_claims(write(tmp_path, wrong))
    with pytest.raises(ClaimError, match="claim 1: missing or not known: paper"):
        read_claims(write(tmp_path, ENTRY.replace("  pair: [0.5, 0.41]\n", "")))
    with pytest.raises(ClaimError, match="claim 1: missing or not known: paper"):
        read_claims(write(tmp_path, ENTRY + "  paper: words beside a pair\n"))
    empty = "- claim: x\n  where: y\n  paper: z\n  untested:\n"
    with pytest.raises(ClaimError, match="claim 1: expected a value, got none: untested"):
        read_claims(write(tmp_path, empty))
    with pytest.raises(ClaimError, match="expected a list of claims, got dict"):
        read_claims(write(tmp_path, "claim: x\n"))


def test_a_claim_that_does_not_fit_its_record_is_refused(claim):
    with pytest.raises(RecordError, match="no arm 'A'"):
        difference(replace(record([1.0], [0.0]), results={}), claim)
    with pytest.raises(ClaimError, match="'A beats B': pairs has no better side"):
        gain(claim, [1.0], [0.0], "pairs")


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_measure_that_is_not_defined_is_refused(claim, value):
    with pytest.raises(RecordError, match="'B', test, ap: expected numbers, got"):
        gain(claim, [0.5, 0.6], [0.4, value])


def test_a_stage_is_compared_with_the_one_before(tmp_path):
    (claim,) = read_claims(write(tmp_path, STAGES))
    runs = tuple(
        ArmRun(test={"error_before": b, "error_after": a})
        for b, a in ((0.9, 0.5), (0.8, 0.5), (0.9, 0.5))
    )
    found = replace(record([1.0], [0.0]), results={"A": runs})
    d = difference(found, claim)
    assert d.pair == pytest.approx((0.5, 2.6 / 3))
    assert d.mean == pytest.approx(-1.1 / 3) and d.n == 3
    assert d.lower_is_better and d.direction == "agrees"
    (row,) = claims_table(tmp_path / "x.yml", lambda name: found, PAPERS)
    assert row["difference, ours"].startswith("-.367") and row["status"] == "reproduced"


def test_a_measure_may_be_of_one_class(claim):
    assert gain(claim, [0.5] * 3, [0.2] * 3, "ap/Nodule").direction == "agrees"
    assert gain(claim, [0.5] * 3, [0.2] * 3, "error/Nodule").direction == "disagrees"


@pytest.mark.parametrize("path", sorted(CLAIMS.glob("*.yml")), ids=lambda path: path.stem)
def test_the_claims_of_the_library_are_whole(path):
    assert read_claims(path)


def test_the_short_form_has_the_differences_alone() -> None:
    row = {
        "claim": "A is better.", "status": "agrees at small size", "where": "Table 1",
        "paper": ".5 against .4", "ours": ".32 against .30", "difference, paper": "+.1",
        "difference, ours": "+.020 ± .010 (3 seeds)",
    }  # fmt: skip
    untold = row | {"difference, paper": "–", "difference, ours": "–"}
    short = [list(line.items()) for line in as_differences([row, untold])]
    begun = [("claim", "A is better."), ("status", "agrees at small size")]
    assert short == [
        [*begun, ("paper", "+.1"), ("ours", "+.020 ± .010")],
        [*begun, ("paper", "–"), ("ours", "–")],
    ]
