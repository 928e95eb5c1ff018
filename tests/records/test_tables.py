"""Records as tables: means over seeds, what is missing, what things are called."""

import math

import pytest
from records.test_run_record import a_record

from cxrtut.records.run_record import ArmRun
from cxrtut.records.tables import WORDS, class_table, measures_table

NBSP = "\u00a0"


def record(*seeds, other=()):
    """A record of arm A, and of B if `other` is given: numbers of the test images by seed."""
    results = {"A": tuple(ArmRun(test=numbers) for numbers in seeds)}
    if other:
        results["B"] = tuple(ArmRun(test=numbers) for numbers in other)
    return a_record(results=results)


def test_a_cell_is_the_mean_over_seeds_and_half_its_interval_by_students_t():
    """Of 1, 2, 3: mean 2, standard error 1 / sqrt 3; t(2, .975) = 4.3027 in printed tables."""
    (row,) = measures_table(record({"auroc": 1.0}, {"auroc": 2.0}, {"auroc": 3.0}))
    assert row == {"method": "A", "AUROC": f"2.000{NBSP}±{NBSP}{4.3027 / math.sqrt(3):.3f}"}


def test_one_seed_has_no_interval():
    assert measures_table(record({"auroc": 0.5})) == [{"method": "A", "AUROC": "0.500"}]


def test_a_seed_without_a_number_is_left_out_and_an_arm_without_any_has_an_empty_cell():
    numbers = {"auroc": None, "accuracy": math.nan}
    made = record({"auroc": 0.5, "accuracy": 0.75}, numbers, other=[numbers])
    a, b = measures_table(made)
    assert a == {"method": "A", "accuracy": "0.750", "AUROC": "0.500"}
    assert b == {"method": "B", "accuracy": None, "AUROC": None}


def test_columns_are_in_the_order_of_the_words_and_hold_what_any_arm_has():
    made = record({"auroc": 0.5, "pixel_ap": 0.25, "auroc/Mass": 0.1}, other=[{"chance": 0.05}])
    for row in measures_table(made):
        assert list(row) == ["method", "pixel AP", "chance", "AUROC"]


def test_arms_and_measures_that_are_asked_for_keep_their_order_and_unknown_ones_their_name():
    made = record({"auroc": 0.5, "own": 2.0}, other=[{"auroc": 0.25, "own": 1.0}])
    rows = measures_table(made, measures=["own", "auroc"], arms=["B", "A"])
    assert [list(row.values()) for row in rows] == [
        ["B", "1.000", "0.250"],
        ["A", "2.000", "0.500"],
    ]
    assert list(rows[0]) == ["method", "own", "AUROC"]


def test_another_side_is_another_table_and_one_without_numbers_has_no_rows():
    made = record({"auroc": 0.5})
    assert measures_table(made, "train") == []


def test_classes_are_columns_with_the_mean_over_seeds():
    made = record({"auroc/Mass": 0.25, "auroc/Nodule": 1.0}, {"auroc/Mass": 0.75})
    assert class_table(made, "auroc", ["A"]) == [{"method": "A", "Mass": 0.5, "Nodule": 1.0}]
    assert class_table(made, "ap", ["A"]) == [{"method": "A", "Mass": None, "Nodule": None}]


@pytest.mark.parametrize("identifier", ["loc_acc@0.3", "loc_acc_any@0.5", "loc_acc_oracle@0.7"])
def test_thresholds_of_the_overlap_are_in_the_words(identifier):
    assert f"IoU > {identifier.partition('@')[2]}" in WORDS[identifier]
    assert len(set(WORDS.values())) == len(WORDS)
