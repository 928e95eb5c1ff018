"""The RSNA challenge's score at a score of boxes that other patients chose."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.answers import rows_of
from evaluation.localised import study_of

from cxrtut.data.sample import Detections, Prediction
from cxrtut.evaluation.challenge import (
    BETTER,
    answers,
    best_score,
    challenge,
    challenge_measure,
)
from cxrtut.metrics.rsna_map import rsna_map

WHOLE = (0.0, 0.0, 10.0, 10.0)


class Boxes:
    """Says of each row the boxes and scores that a test has chosen; of others none."""

    def __init__(self, study, of_row, *, silent=False):
        self.classes, self.size, self.channels = study.classes, study.size, study.channels
        self.networks, self.of_row, self.silent = {}, of_row, silent

    def predict(self, images):
        if self.silent:
            return Prediction()
        told = [self.of_row.get(row, []) for row in rows_of(images)]
        return Prediction(boxes=tuple(
            Detections(
                torch.tensor([b for b, _ in boxes]).view(-1, 4).float(),
                torch.tensor([s for _, s in boxes]).float(),
                torch.zeros(len(boxes), dtype=torch.int64),
            )
            for boxes in told
        ))  # fmt: skip


def part(share):
    return (0.0, 0.0, 10.0, 10.0 * share)


@pytest.fixture
def study():
    """Rows 1 and 2 choose the score, 3 to 6 are tested; 2 and 6 are normal."""
    boxed = [(row, 0, *WHOLE) for row in (1, 3, 4, 5)]
    made = study_of(*boxed, n=7, classes=("A",))
    return replace(
        made, validation=np.array([1, 2], np.int64), test=np.array([3, 4, 5, 6], np.int64)
    )


def test_the_score_is_chosen_on_other_images(study):
    system = Boxes(study, {
        1: [(part(1), 0.8)], 2: [(part(1), 0.5)],  # so the score lies above .5
        3: [(part(1), 0.9)], 4: [(part(1), 0.6)], 5: [(part(1), 0.9), (part(0.2), 0.85)],
        6: [(part(1), 0.4)],
    })  # fmt: skip
    found = challenge(system, study, "test", chosen_on="validation")
    # Above .5 and at most .8: row 3 is right, row 4 is missed or right, row 5 has one box too many
    cut = best_score(answers(system, study, "validation"))
    assert 0.5 < cut < 0.81
    right_of_4 = float(cut <= 0.6)
    assert found["rsna_map"] == pytest.approx((1 + right_of_4 + 0.5) / 3)
    assert found["precision_map"] == pytest.approx((1 + right_of_4 + 0.5) / 3)
    assert found["rsna_map_oracle"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["voc_ap"] == pytest.approx(found["voc_ap@0.5"])


def test_each_overlap_has_its_own_column(study):
    system = Boxes(study, {
        1: [(part(1), 0.5)], 3: [(part(0.45), 0.9)], 4: [(part(0.55), 0.9)], 5: [(part(1), 0.9)],
    })  # fmt: skip
    found = challenge(system, study, "test", chosen_on="validation")
    for t, share in ((0.4, 1), (0.5, 2 / 3), (0.6, 1 / 3)):
        assert found[f"rsna_map@{t}"] == pytest.approx(share)
        assert found[f"precision_map@{t}"] == pytest.approx(share)
    assert found["precision_map"] == pytest.approx(2 / 3)
    assert found["box_froc@0.05"] == pytest.approx(1.0)
    assert set(found) == set(BETTER)


def test_a_missed_image_counts_against_the_map_and_a_silent_normal_one_does_not(study):
    system = Boxes(study, {1: [(part(1), 0.5)], 3: [(part(1), 0.9)], 4: [(part(1), 0.9)]})
    found = challenge(system, study, "test", chosen_on="validation")
    assert found["rsna_map"] == pytest.approx(2 / 3) and found["precision_map"] == pytest.approx(
        2 / 3
    )
    assert found["box_froc@0.2"] == pytest.approx(2 / 3)
    false = Boxes(study, system.of_row | {6: [(part(1), 0.9)]})
    assert challenge(false, study, "test", chosen_on="validation")["rsna_map"] == pytest.approx(
        2 / 4
    )


def test_boxes_are_taken_from_the_surest_down(study):
    system = Boxes(study, {3: [(part(0.2), 0.3), (part(1), 0.7)]})
    told = answers(system, study, "test")
    assert told.scores[0].tolist() == pytest.approx([0.7, 0.3])
    assert told.boxes[0][0].tolist() == list(WHOLE)
    assert [len(b) for b in told.above(0.5)] == [1, 0, 0, 0]


def test_the_best_score_has_the_highest_map_of_all_that_are_tried(study):
    draw = torch.Generator().manual_seed(0)
    drawn = {row: torch.rand(3, 2, generator=draw).tolist() for row in (3, 4, 5, 6)}
    rows = {row: [(part(share), score) for share, score in of] for row, of in drawn.items()}
    told = answers(Boxes(study, rows), study, "test")
    best = rsna_map(told.above(best_score(told)), told.truth)
    every = torch.cat(list(told.scores)).sort(descending=True).values
    assert len(every) == 12
    assert best >= max(rsna_map(told.above(float(s)), told.truth) for s in every[:9])


def test_unsure_boxes_besides_do_not_change_the_score_that_is_chosen(study):
    unsure = [(part(0.1 + 0.001 * k), 0.001 + 0.0001 * k) for k in range(80)]
    rows = {row: [(part(1), 0.9)] * (row < 6) + unsure for row in (3, 4, 5, 6)}
    told = answers(Boxes(study, rows), study, "test")
    assert rsna_map(told.above(best_score(told)), told.truth) == 1.0


def test_nothing_is_said_of_a_system_without_boxes_or_of_images_without(study):
    assert challenge(Boxes(study, {}, silent=True), study, "test", chosen_on="validation") == {}
    assert challenge(Boxes(study, {}), study, "train", chosen_on="validation") == {}
    silent = challenge(Boxes(study, {}), study, "test", chosen_on="validation")
    assert silent["rsna_map"] == 0 and silent["voc_ap"] == 0


def test_more_than_one_disease_is_refused():
    with pytest.raises(ValueError, match="expected one disease, got A, B, C"):
        challenge(
            Boxes(study_of((1, 0, *WHOLE)), {}), study_of((1, 0, *WHOLE)), "test", chosen_on="test"
        )


def test_as_a_measure_it_chooses_on_the_validation_images(study):
    measure = challenge_measure("test")
    system = Boxes(study, {1: [(part(1), 0.5)], 3: [(part(1), 0.9)]})
    assert measure.measure(system, study, "test") == challenge(
        system, study, "test", chosen_on="validation"
    )
    assert measure.better is BETTER and measure.side == "test"
