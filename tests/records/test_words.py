"""Words of result tables: each is explained, once."""

import pytest

from cxrtut.evaluation import translation
from cxrtut.experiments.pretrained import MEASURES as ASKED_FOR
from cxrtut.experiments.registered import COMPARISONS
from cxrtut.records import measure_words
from cxrtut.records.measure_words import MEASURES
from cxrtut.records.published import published
from cxrtut.records.recorded import RUNS, read_record
from cxrtut.records.words import ARMS, explained, explained_arms, name_of


@pytest.mark.parametrize("paper", sorted(COMPARISONS))
def test_every_arm_of_a_paper_and_every_method_that_it_prints_is_explained(paper):
    methods = {m for table in published(paper).values() for m in table.numbers}
    assert set(COMPARISONS[paper].arms) | methods - {"data"} == set(ARMS[paper])
    assert [row["method"] for row in explained_arms(paper)] == list(ARMS[paper])


def with_a_better_side(better):
    return {name for name, side in better.items() if side != "neither"}


def test_every_measure_of_the_records_with_a_better_side_is_explained():
    records = [read_record(path.stem, RUNS) for path in RUNS.glob("*.json")]
    known = [record.better for record in records if record.paper in COMPARISONS]
    assert known and set().union(*map(with_a_better_side, known)) <= set(MEASURES)


@pytest.mark.parametrize("paper", sorted(COMPARISONS))
def test_every_measure_of_a_comparison_with_a_better_side_is_explained(paper):
    assert with_a_better_side(COMPARISONS[paper].better()) <= set(MEASURES)


def test_every_measure_that_can_be_asked_for_is_explained():
    asked = {name: side for measure in ASKED_FOR for name, side in measure.better.items()}
    assert with_a_better_side(asked) <= set(MEASURES)


def test_tolerances_and_shares_are_those_that_are_measured():
    assert measure_words.TOLERANCES == translation.TOLERANCES
    assert measure_words.SHARES == translation.SHARES
    explained = {m for m in MEASURES if m.partition("@")[0].startswith(("pixel_change", "flipped"))}
    measured = {*translation.CHANGE_BETTER, *translation.TRANSLATION_BETTER}
    assert explained <= measured
    assert measured <= set(MEASURES)


@pytest.mark.parametrize(("kind", "shown"), [("abnormal", "P to H"), ("normal", "H to H")])
def test_a_kind_of_images_is_in_the_name_and_in_the_meaning(kind, shown):
    for measure in (f"translated_{kind}", f"pixel_change_{kind}@2"):
        assert shown in MEASURES[measure].name and f"({shown})" in MEASURES[measure].meaning
    judged = MEASURES[f"judge_{kind}"]  # images as they were, which are translated to nothing
    assert judged.name.endswith(f", {shown[0]}") and judged.meaning.endswith(f"({shown[0]}).")
    assert MEASURES[f"pixel_change_{kind}@2"].meaning.count("more than 2 of 255") == 1
    assert "at least one grey level" in MEASURES[f"pixel_change_{kind}@0"].meaning


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
