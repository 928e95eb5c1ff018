"""Records as tables: means over seeds, what is missing, what things are called."""

import math
from dataclasses import replace

import pytest
from records.test_run_record import a_record

from cxrtut.records.published import PublishedTable
from cxrtut.records.run_record import ArmRun, CurvePoint, RecordError
from cxrtut.records.tables import (
    IMAGES_OF,
    beside_paper,
    classes_beside_paper,
    learning_curves,
    means,
    measures_table,
    over_seeds,
)

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


def test_classes_have_the_mean_of_the_seeds_that_have_them():
    first = {"auroc": 0.6, "auroc/Mass": 0.25, "auroc/Nodule": 1.0}
    rows = classes_beside_paper(record(first, {"auroc/Mass": 0.75}), {}, "auroc", ["A"])
    assert [list(row.values()) for row in rows] == [
        ["Mass", "0.50"],
        ["Nodule", "1.00"],
        ["mean", "0.60"],
    ]


PRINTED = {
    "auroc": PublishedTable(
        "Table 4",
        {
            "A": {"Mass": 0.8, "Nodule": 0.75, "mean": 0.78},
            "C": {"Mass": 0.7, "mean": 0.7},
            "D": {"Nodule": 0.6},
        },
    )
}


def test_ours_and_the_papers_stand_side_by_side_with_what_either_lacks():
    made = record({"auroc": 0.5, "chance": 0.1}, {"auroc": 0.7, "chance": 0.1}, other=[{}])
    a, b, c = beside_paper(made, PRINTED, ["auroc", "chance"])
    assert a == {
        "method": "A",
        "AUROC, ours": f"0.600{NBSP}±{NBSP}{12.7062 * 0.1:.3f}",  # t(1, .975) / sqrt 2 * sd
        "AUROC, paper": "0.78",
        "chance": f"0.100{NBSP}±{NBSP}0.000",
    }
    assert list(b.values()) == ["B", None, None, None]
    assert list(c.values()) == ["C", None, "0.70", None]


def test_another_column_of_the_paper_and_other_words_can_be_asked_for():
    made = record({"auroc": 0.5})
    rows = beside_paper(
        made, PRINTED, ["auroc"], ["D", "A"], column="Nodule", labels=("here", "there")
    )
    assert rows == [
        {"method": "D", "AUROC, here": None, "AUROC, there": "0.60"},
        {"method": "A", "AUROC, here": "0.500", "AUROC, there": "0.75"},
    ]
    (row,) = beside_paper(record({"auroc": 0.5}), PRINTED, ["auroc"], column="retina")
    assert row == {"method": "A", "AUROC": "0.500"}


def test_another_side_is_compared_when_it_is_asked_for():
    made = a_record(results={"A": (ArmRun(train={"auroc": 0.9}, test={"auroc": 0.5}),)})
    assert beside_paper(made, PRINTED, ["auroc"], ["A"], "train")[0]["AUROC, ours"] == "0.900"


def test_diseases_are_rows_and_methods_pairs_of_columns_and_the_mean_comes_last():
    made = record(
        {"auroc": 0.6, "auroc/Mass": 0.5, "auroc/Nodule": 0.7}, other=[{"auroc/Mass": 0.256}]
    )
    rows = classes_beside_paper(made, PRINTED, "auroc", ["A", "B", "C"])
    assert rows[0] == {
        "disease": "Mass", "A, ours": "0.50", "A, paper": "0.80", "B": "0.26",
        "C, ours": None, "C, paper": "0.70",
    }  # fmt: skip
    assert list(rows[1].values()) == ["Nodule", "0.70", "0.75", None, None, None]
    assert list(rows[2].values()) == ["mean", "0.60", "0.78", None, None, "0.70"]


@pytest.mark.parametrize("table", [beside_paper, classes_beside_paper])
def test_what_neither_the_record_nor_the_paper_has_is_named(table):
    made = record({"auroc": 0.5, "auroc/Mass": 0.5})
    one = str if table is classes_beside_paper else lambda name: [name]
    with pytest.raises(RecordError, match=r"test: no measure 'aurocc'; there are auroc$"):
        table(made, PRINTED, one("aurocc"), ["A"])
    with pytest.raises(RecordError, match="no method 'E'; there are A, C, D"):
        table(made, PRINTED, one("auroc"), ["A", "E"])


def test_a_curve_has_the_means_of_each_arm_that_has_any():
    runs = [{"x@1": 0.2, "x@2": 0.5}, {"x@1": 0.4, "x@2": None}]
    results = {"A": [ArmRun(test=run) for run in runs], "B": [ArmRun(train=runs[0])]}
    made = a_record(results=results)
    assert means(made, ["x@1", "x@2"], ["A", "B"]) == {"A": pytest.approx([0.3, 0.5])}
    assert means(made, ["x@2"], ["B"], "train") == {"B": [0.5]}
    (a,) = means(made, ["x@1", "y"], ["A"]).values()
    assert a[0] == pytest.approx(0.3) and math.isnan(a[1])
    with pytest.raises(RecordError, match="no method 'C'; there are A, B"):
        means(made, ["x@1"], ["C"])


def test_a_caption_can_say_what_a_cell_is():
    run = ArmRun()
    seeds = over_seeds(a_record(results={"A": (run, run, run)}))
    assert seeds == "mean over 3 seeds ± half its 95 % interval"
    assert over_seeds(a_record(results={"A": (run,)})) == "one seed"
    with pytest.raises(RecordError):
        ArmRun().side("elsewhere")
    assert all(ArmRun().side(side) == {} for side in IMAGES_OF)


def test_learning_curves_have_the_steps_that_measured_it_of_each_seed():
    def run(*points):
        return ArmRun(curve=tuple(CurvePoint(step, numbers) for step, numbers in points))

    curved = replace(
        record(), results={
            "A": [run((5, {"m": 0.1}), (10, {"m": 0.2})), run((5, {"m": None}), (10, {"m": 0.4}))],
            "B": [run((5, {"other": 1.0}), (10, {"m": math.nan}))],
            "C": [ArmRun()],
        },
    )  # fmt: skip
    found = learning_curves(curved, "m", ["C", "B", "A"])
    assert found == {"A": [([5, 10], [0.1, 0.2]), ([10], [0.4])]}
    with pytest.raises(RecordError, match=r"no method 'D'; there are A, B, C"):
        learning_curves(curved, "m", ["D"])
