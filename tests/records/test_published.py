"""The papers' printed numbers: what the texts say about their order."""

import pytest

from cxrtut.records.published import (
    BIOMARKER,
    BIOMARKER_CHANCE,
    DISEASE_MASK_CLASSES,
    DISEASE_MASKS,
    DISEASE_MASKS_14,
)


def test_the_biomarker_papers_order_is_as_printed():
    retina, skin = BIOMARKER["retina"], BIOMARKER["skin"]
    assert max(retina, key=retina.get) == max(skin, key=skin.get) == "G-D-C"
    assert (
        skin["Grad-CAM-2"] < BIOMARKER_CHANCE["skin"] < BIOMARKER_CHANCE["retina"]
    )  # below chance
    assert round(BIOMARKER_CHANCE["retina"], 4) == 0.0175


@pytest.mark.parametrize("table", ["loc_acc@0.3", "loc_acc@0.5", "loc_acc@0.7", "auroc"])
def test_the_mean_column_of_the_disease_masks_paper_is_the_mean_over_classes(table: str):
    for row in DISEASE_MASKS[table].values():
        assert len(row) == len(DISEASE_MASK_CLASSES) == 9
        assert abs(sum(row[:8]) / 8 - row[8]) < 0.0065  # two digits are printed


def test_the_printed_gains_of_the_masks_are_those_of_the_text():
    def gain(table: str, worse: str) -> float:
        return round(DISEASE_MASKS[table]["aligned + DM"][8] - DISEASE_MASKS[table][worse][8], 2)

    assert gain("loc_acc@0.3", "Liu") == 0.09 and gain("loc_acc@0.5", "Liu") == 0.03
    assert [gain(t, "aligned + PDM") for t in ("loc_acc@0.3", "loc_acc@0.5", "loc_acc@0.7")] == [
        0.04,
        0.03,
        0.02,
    ]


def test_the_mean_row_of_table_3_is_the_mean_over_14_diseases():
    rows = {k: v for k, v in DISEASE_MASKS_14.items() if k != "mean"}
    assert len(rows) == 14
    for column, printed in enumerate(DISEASE_MASKS_14["mean"]):
        assert abs(sum(row[column] for row in rows.values()) / 14 - printed) < 0.0065
