"""Records of some arms each become one record, or it is said why not."""

from dataclasses import replace

import pytest

from cxrtut.__main__ import main
from cxrtut.records.claims import Claim, difference
from cxrtut.records.merged import merged, record_to_go_on_with
from cxrtut.records.run_record import (
    ArmRun,
    RecordError,
    RunRecord,
    Weights,
    read_record_file,
    write_record,
)
from cxrtut.records.tables import over_seeds


def record(arms, n, **more):
    """A record whose arm `name` has the value `start + seed`."""
    kept = {
        "paper": "toy", "what": "toy", "command": f"run {' '.join(arms)}",
        "configuration": {"n": 1},
        "data": [{"source": "s", "seed": seed} for seed in range(n)], "classes": ("P",),
        "seeds": tuple(range(n)), "better": {"m": "higher"}, "code": {"a.py": "1"},
        "revision": "abc", "hardware": {}, "versions": {"torch": "2"}, "seconds": 10.0,
    }  # fmt: skip
    results = {
        name: tuple(ArmRun(test={"m": start + seed}) for seed in range(n))
        for name, start in arms.items()
    }
    return RunRecord(**kept | {"results": results} | more)


def test_the_arms_of_all_are_in_one_and_the_longest_gives_the_seeds():
    one = record({"a": 0.0, "b": 10.0}, 3, weights={"a": Weights("a.safetensors", "1")})
    two = record({"c": 20.0}, 2, weights={"c": Weights("c.safetensors", "2")}, revision="def")
    for order in ([one, two], [two, one]):
        found = merged(order)
        assert found.seeds == (0, 1, 2) and len(found.data) == 3 and found.seconds == 20.0
        assert set(found.results) == {"a", "b", "c"} and set(found.weights) == {"a", "c"}
        assert found.values("c", "test", "m") == [20.0, 21.0]
        assert found.revision == "abc, def"
    assert merged([one, two]).command == "run a b && run c"
    assert merged([one]) == one


def test_an_arm_of_several_is_that_with_the_most_seeds():
    found = merged([record({"a": 5.0}, 1), record({"a": 0.0}, 3)])
    assert found.values("a", "test", "m") == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"configuration": {"n": 2}}, "configuration"),
        ({"code": {"a.py": "2"}}, "code"),
        ({"preset": "paper"}, "preset"),
        ({"versions": {"torch": "3"}}, "versions"),
        ({"seeds": (1, 2)}, "seeds"),
        ({"data": [{"source": "s", "seed": 7}] * 2}, "data"),
    ],
)
def test_what_does_not_go_together_is_named(other, named):
    with pytest.raises(RecordError, match=f"differ in their arms only, got other {named}$"):
        merged([record({"a": 0.0}, 3), record({"b": 0.0}, 2, **other)])


def test_nothing_cannot_be_merged():
    with pytest.raises(RecordError, match="expected records to merge, got none"):
        merged([])


def test_arms_are_compared_on_the_seeds_that_both_have_and_captions_say_how_many():
    found = merged([record({"a": 0.0}, 5), record({"b": 1.0}, 3)])
    assert over_seeds(found) == "mean over 3 to 5 seeds ± half its 95 % interval"
    assert over_seeds(found, ["a"]) == "mean over 5 seeds ± half its 95 % interval"
    assert over_seeds(record({"a": 0.0}, 1)) == "one seed"
    assert over_seeds(record({"a": 0.0}, 2)) == "mean over 2 seeds ± half its 95 % interval"
    longer = replace(found, results=found.results | {"b": found.results["b"]})
    assert len(longer.values("a", "test", "m")) == 5
    claim = Claim(
        claim="b is better", where="here", record="toy", measure="m", rows="test", better="b",
        worse="a",
    )  # fmt: skip
    gain = difference(found, claim)
    assert gain.n == 3 and gain.mean == 1.0 and gain.pair == (2.0, 1.0)


def test_a_run_goes_on_from_a_whole_record_only(tmp_path):
    path = tmp_path / "record.json"
    with pytest.raises(RecordError, match=r"a run to go on with, found none: .*record\.json"):
        record_to_go_on_with(path)
    write_record(path, record({"a": 0.0}, 2))
    assert record_to_go_on_with(path).values("a", "test", "m") == [0.0, 1.0]
    write_record(path, merged([record({"a": 0.0}, 3), record({"b": 0.0, "c": 0.0}, 2)]))
    with pytest.raises(RecordError, match="expected 3 seeds of every arm, fewer has b, c"):
        record_to_go_on_with(path)


def test_the_command_merges_files(tmp_path, capsys):
    paths = [tmp_path / name for name in ("one.json", "two.json", "both.json")]
    write_record(paths[0], record({"a": 0.0}, 2))
    write_record(paths[1], record({"b": 1.0}, 1))
    assert main(["merge", *map(str, paths[:2]), "--out", str(paths[2])]) == 0
    assert capsys.readouterr().out.startswith("a, b\nwritten: ")
    assert set(read_record_file(paths[2]).results) == {"a", "b"}
    write_record(paths[1], record({"b": 1.0}, 1, code={"a.py": "2"}))
    paths[2].unlink()
    assert main(["merge", *map(str, paths[:2]), "--out", str(paths[2])]) != 0
    assert "expected records that differ in their arms only, got other code" in (
        capsys.readouterr().err
    )
    assert not paths[2].exists()
