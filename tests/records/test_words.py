"""Words of result tables: each is explained, once."""

import pytest

from cxrtut.experiments.registered import COMPARISONS
from cxrtut.records.published import published
from cxrtut.records.recorded import RUNS, read_record
from cxrtut.records.words import ARMS, MEASURES, explained, explained_arms, name_of


@pytest.mark.parametrize("paper", sorted(COMPARISONS))
def test_every_arm_of_a_paper_and_every_method_that_it_prints_is_explained(paper):
    methods = {m for table in published(paper).values() for m in table.numbers}
    assert set(COMPARISONS[paper].arms) | methods - {"data"} == set(ARMS[paper])
    assert [row["method"] for row in explained_arms(paper)] == list(ARMS[paper])


def test_every_measure_of_the_records_with_a_better_side_is_explained():
    for paper in COMPARISONS:
        known = read_record(paper, RUNS).better
        assert {name for name, side in known.items() if side != "neither"} <= set(MEASURES)


def test_no_two_measures_share_a_name_and_each_meaning_is_a_sentence():
    assert len({word.name for word in MEASURES.values()}) == len(MEASURES)
    meanings = [word.meaning for word in MEASURES.values()]
    meanings += [meaning for arms in ARMS.values() for meaning in arms.values()]
    assert all(text[0].isupper() and text.endswith((".", ".)")) for text in meanings)
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("identifier", ["loc_acc@0.3", "loc_acc_any@0.5", "loc_acc_oracle@0.7"])
def test_thresholds_of_the_overlap_are_in_the_words(identifier):
    threshold = identifier.partition("@")[2]
    assert f"IoU > {threshold}" in name_of(identifier)
    assert threshold in MEASURES[identifier].meaning


def test_a_measure_of_a_class_is_called_by_both_and_one_without_a_word_by_its_identifier():
    assert name_of("auroc/Mass") == "AUROC, Mass"
    assert name_of("own") == "own" and name_of("own/Mass") == "own, Mass"


def test_explanations_keep_their_order_and_an_unknown_word_is_named():
    assert [row["measure"] for row in explained(["chance", "pixel_ap"])] == ["chance", "pixel AP"]
    assert explained_arms("biomarker", ["ED", "CAM"])[0]["method"] == "ED"
    with pytest.raises(ValueError, match=r"expected one of pixel_ap, .*, got 'ap'"):
        explained(["ap"])
    with pytest.raises(ValueError, match=r"arm: expected one of G-D-C, .*, got 'X'"):
        explained_arms("biomarker", ["X"])
    with pytest.raises(ValueError, match=r"paper: expected one of biomarker, .*, got 'x'"):
        explained_arms("x")
