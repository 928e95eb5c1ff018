"""A table that was interrupted goes on after its last whole seed."""

from dataclasses import replace

import pytest
from experiments.toy_comparison import COMPARISON

from cxrtut.data.split import Split
from cxrtut.experiments.comparison import ConfigurationError, How, reproduce
from cxrtut.records.run_record import read_record_file, write_record

HOW = How(callbacks=None, settings=("steps=3",))


class Interrupted(Exception):
    pass


def numbers(record):
    return {
        arm: [{side: run.side(side) for side in ("train", "test")} for run in runs]
        for arm, runs in record.results.items()
    }


def test_the_record_is_kept_after_each_seed_and_a_later_run_goes_on_after_it(tmp_path):
    kept = []

    def keep(record):
        kept.append(record)
        write_record(tmp_path / "record.json", record)
        if len(kept) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        reproduce(COMPARISON, HOW, seeds=3, keep=keep, weights_folder=tmp_path)
    assert [record.seeds for record in kept] == [(0,), (0, 1)]
    begun, trained = read_record_file(tmp_path / "record.json"), []
    watched = replace(HOW, callbacks=lambda stage: trained.append(stage) or (lambda report: None))
    found = reproduce(COMPARISON, watched, seeds=3, begun=begun)
    whole = reproduce(COMPARISON, HOW, seeds=3)
    assert numbers(found) == numbers(whole) and found.seeds == whole.seeds == (0, 1, 2)
    assert found.data == whole.data and found.weights == begun.weights != {}
    assert all(", seed 2," in stage for stage in trained) and trained
    assert found.seconds >= begun.seconds
    long = replace(found, seconds=1e4)  # the seconds of the runs before are counted too
    again = reproduce(COMPARISON, watched, seeds=3, begun=long)
    assert again.seconds >= 1e4
    assert numbers(again) == numbers(whole) and len(trained) == len(set(trained))


@pytest.mark.parametrize(
    ("how", "arms", "named"),
    [
        (replace(HOW, settings=("steps=4",)), (), "configuration"),
        (replace(HOW, precision="bfloat16"), (), "settings"),
        (HOW, ("still",), "arms"),
    ],
)
def test_another_run_is_not_gone_on_with(how, arms, named):
    begun = reproduce(COMPARISON, HOW, seeds=1)
    with pytest.raises(ConfigurationError, match=f"the same run, but it had other {named}$"):
        reproduce(COMPARISON, how, seeds=2, arms=arms, begun=begun)
    longer = replace(begun, seeds=(0, 1))
    with pytest.raises(ConfigurationError, match=r"other data$"):
        reproduce(COMPARISON, HOW, seeds=3, begun=longer)


def test_an_arm_that_a_record_lacks_would_lack_its_seeds():
    begun = reproduce(COMPARISON, HOW, seeds=1, arms=("own",))
    with pytest.raises(ConfigurationError, match=r"the same run, but it had other arms$"):
        reproduce(COMPARISON, HOW, seeds=2, begun=begun)
    assert len(reproduce(COMPARISON, HOW, seeds=2, arms=("own",), begun=begun).results["own"]) == 2


def test_an_arm_that_has_no_boxes_to_learn_from_is_not_missed(monkeypatch):
    monkeypatch.setattr(Split, "has_boxes_to_learn_from", False)
    boxes = replace(COMPARISON.arms["still"], needs_boxes=True)
    needing = replace(COMPARISON, arms={**COMPARISON.arms, "boxes": boxes})
    begun = reproduce(needing, HOW, seeds=1)
    assert set(begun.results) == set(COMPARISON.arms)
    assert reproduce(needing, HOW, seeds=2, begun=begun).seeds == (0, 1)
