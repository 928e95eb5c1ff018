"""What is measured while an arm is trained is in its record; the training is the same without."""

import json
import math
from dataclasses import replace

import pytest
from experiments.toy_comparison import COMPARISON, JUDGED, build, train_judge, train_own

from cxrtut.evaluation.roc import roc
from cxrtut.evaluation.watched import watched_measure
from cxrtut.experiments.comparison import Arm, How, reproduce
from cxrtut.experiments.run import CURVE_POINTS, Run
from cxrtut.experiments.source import Source
from cxrtut.records.run_record import CurvePoint, read_record_file, write_record

STEPS = 2 * CURVE_POINTS + 1
HOW = How(callbacks=None, settings=(f"steps={STEPS}",))
CURVE = watched_measure("pixel_auroc", "train", 4)


def test_a_curve_is_of_the_arm_and_its_training_is_the_same_with_and_without():
    watched = reproduce(replace(JUDGED, learning_curve=CURVE), HOW, seeds=2)
    plain = reproduce(JUDGED, HOW, seeds=2)
    for run, without in zip(watched.results["own"], plain.results["own"], strict=True):
        assert [point.step for point in run.curve] == [*range(3, STEPS, 3), STEPS]
        assert run.test == without.test and without.curve == ()
        assert len({point.numbers["pixel_auroc"] for point in run.curve}) > 1
    first, second = (run.curve for run in watched.results["own"])
    assert first != second
    assert [run.curve for run in watched.results["still"]] == [(), ()]  # nor is the judge's in it


def test_an_arm_that_was_trained_before_as_the_judge_of_another_has_its_curve():
    arms = {"own": JUDGED.arm("own"), "judge": Arm(build, train_judge)}
    comparison = replace(JUDGED, arms=arms, learning_curve=CURVE)
    together = reproduce(comparison, HOW, seeds=1).results
    alone = reproduce(comparison, HOW, seeds=1, arms=("judge",)).results
    assert together["judge"][0].curve == alone["judge"][0].curve != together["own"][0].curve
    assert len(alone["judge"][0].curve) == math.ceil(STEPS / 3) <= CURVE_POINTS


def test_a_run_that_nobody_watches_keeps_no_curve():
    split = COMPARISON.images(Source(), COMPARISON.configuration("smoke"), 0)
    run = Run()
    system = train_own(COMPARISON.configuration("smoke"), split, run)
    assert run.curve_of(system) == ()


def test_its_last_point_is_the_trained_system_on_the_images_of_its_seed_that_were_asked_for():
    config = COMPARISON.configuration("smoke", HOW.settings)
    found = reproduce(replace(COMPARISON, learning_curve=CURVE), HOW, seeds=2, arms=("own",))
    for seed in (0, 1):
        split = COMPARISON.images(Source(), config, seed)
        system = COMPARISON.arm("own").train(config, split, Run(seed=seed))
        known = roc(system, split, "train", at_most=4)["pixel_auroc"]
        last = found.results["own"][seed].curve[-1]
        assert last.numbers == {"pixel_auroc": pytest.approx(known)}


def test_a_training_of_fewer_steps_than_points_is_measured_after_each():
    short = replace(HOW, settings=("steps=3",))
    found = reproduce(replace(COMPARISON, learning_curve=CURVE), short, seeds=1)
    assert [point.step for point in found.results["own"][0].curve] == [1, 2, 3]


def test_a_curve_is_kept_in_the_file_and_an_older_file_has_none(tmp_path):
    record = reproduce(replace(COMPARISON, learning_curve=CURVE), HOW, seeds=1)
    write_record(tmp_path / "record.json", record)
    again = read_record_file(tmp_path / "record.json")
    assert again.results["own"][0].curve == record.results["own"][0].curve
    assert isinstance(again.results["own"][0].curve[0], CurvePoint)
    content = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    for run in (run for runs in content["results"].values() for run in runs):
        del run["curve"]
    (tmp_path / "older.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_record_file(tmp_path / "older.json").results["own"][0].curve == ()
