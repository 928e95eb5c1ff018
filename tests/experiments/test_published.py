"""The papers' printed numbers: what the texts say about their order."""

from cxrtut.experiments.published import BIOMARKER, BIOMARKER_CHANCE


def test_the_biomarker_papers_order_is_as_printed():
    retina, skin = BIOMARKER["retina"], BIOMARKER["skin"]
    assert max(retina, key=retina.get) == max(skin, key=skin.get) == "G-D-C"
    assert (
        skin["Grad-CAM-2"] < BIOMARKER_CHANCE["skin"] < BIOMARKER_CHANCE["retina"]
    )  # below chance
    assert round(BIOMARKER_CHANCE["retina"], 4) == 0.0175
