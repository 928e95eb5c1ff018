"""Boxes of a detector, scored by hand."""

import math

import pytest
import torch
from evaluation.answers import rows_of
from evaluation.localised import study_of
from torchmetrics.detection import MeanAveragePrecision

from cxrtut.data.sample import Detections, Prediction
from cxrtut.evaluation.detection import (
    BETTER,
    IOU_THRESHOLDS,
    any_box,
    detection,
    detection_measure,
    location,
    location_by_class,
    surest_box,
)
from cxrtut.metrics.intervals import bootstrap_interval

NONE = (torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


class Boxes:
    """Says of each row the boxes, scores and labels that a test has chosen; of others none."""

    def __init__(self, study, of_row, *, silent=False):
        self.classes, self.size, self.channels = study.classes, study.size, study.channels
        self.networks, self.of_row, self.silent = {}, of_row, silent

    def predict(self, images):
        if self.silent:
            return Prediction()
        found = [self.of_row.get(row, []) for row in rows_of(images)]
        parts = [
            tuple(map(torch.tensor, zip(*boxes, strict=True))) if boxes else NONE for boxes in found
        ]
        return Prediction(boxes=tuple(Detections(b.float(), s.float(), k) for b, s, k in parts))


def test_the_surest_box_of_a_class_is_chosen_and_any_are_all_of_them():
    found = Detections(
        torch.arange(12.0).view(3, 4), torch.tensor([0.2, 0.9, 0.5]), torch.tensor([1, 0, 1])
    )
    assert surest_box(found, 1).tolist() == [[8, 9, 10, 11]]
    assert any_box(found, 1).tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert surest_box(found, 2).shape == any_box(found, 2).shape == (0, 4)
    nothing = Detections(*NONE)
    assert surest_box(nothing, 0).shape == (0, 4)


@pytest.fixture
def study():
    """Class A in rows 1 to 3, class B in row 3; row 4 is normal, row 0 is learnt from."""
    whole = (0.0, 0.0, 10.0, 10.0)
    return study_of(
        (1, 0, *whole), (2, 0, *whole), (3, 0, *whole), (3, 1, 8.0, 8.0, 16.0, 16.0), n=5
    )


def tenth(share):
    """A box that covers so much of the true one, and nothing else."""
    return (0.0, 0.0, 10.0, 10.0 * share)


def test_correct_location_is_that_of_the_surest_box_of_the_class(study):
    system = Boxes(study, {
        1: [(tenth(1), 0.1, 0)],
        2: [(tenth(0.4), 0.9, 0), (tenth(1), 0.3, 0), (tenth(1), 0.95, 1)],
        3: [(tenth(0.05), 0.9, 0), (tenth(0.8), 0.8, 0), ((8.0, 8.0, 16.0, 16.0), 0.2, 1)],
    })  # fmt: skip
    found = detection(system, study, "test")
    known = {0.1: 2 / 3, 0.3: 2 / 3, 0.5: 1 / 3}
    for t in IOU_THRESHOLDS:
        assert found[f"cl@{t}/A"] == pytest.approx(known[t]) and found[f"cl@{t}/B"] == 1
        assert math.isnan(found[f"cl@{t}/C"])
        assert found[f"cl@{t}"] == pytest.approx((known[t] + 1) / 2)
    assert found["cl_any@0.1"] == 1


def test_an_overlap_of_exactly_a_tenth_is_a_hit(study):
    system = Boxes(study, {row: [(tenth(0.1), 0.5, 0)] for row in (1, 2, 3)})
    assert detection(system, study, "test")["cl@0.1/A"] == 1


def test_precision_counts_boxes_on_normal_images_and_correct_location_does_not(study):
    right = {row: [(tenth(1), 0.5, 0)] for row in (1, 2, 3)}
    alone = detection(Boxes(study, right), study, "test")
    beside = detection(Boxes(study, {**right, 4: [(tenth(1), 0.9, 0)]}), study, "test")
    assert alone["map@0.1/A"] == 1 and alone["map@0.1/B"] == 0
    assert beside["map@0.1/A"] == pytest.approx(0.75)
    assert beside["cl@0.1"] == alone["cl@0.1"]
    assert beside["map@0.1"] == pytest.approx((0.75 + 0) / 2)


def test_precision_is_torchmetrics_over_classes(study):
    draw = torch.Generator().manual_seed(0)
    of_row = {}
    for row in range(1, 5):
        corner = 8 * torch.rand(6, 2, generator=draw)
        boxes = torch.cat((corner, corner + 2 + 6 * torch.rand(6, 2, generator=draw)), 1)
        scores, labels = torch.rand(6, generator=draw), torch.randint(0, 2, (6,), generator=draw)
        of_row[row] = list(zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True))
    system = Boxes(study, of_row)
    oracle = MeanAveragePrecision(iou_thresholds=[0.1])
    answers = system.predict(study.batch(study.test).image).boxes
    oracle.update(
        [{"boxes": a.boxes, "scores": a.scores, "labels": a.labels} for a in answers],
        [
            {
                "boxes": torch.cat([study.boxes_of(int(r), k) for k in (0, 1)]),
                "labels": torch.tensor(
                    [k for k in (0, 1) for _ in study.boxes_of(int(r), k)]
                ).long(),
            }
            for r in study.test
        ],
    )
    found = detection(system, study, "test")["map@0.1"]
    assert found == pytest.approx(float(oracle.compute()["map"]), abs=1e-6)


def test_the_interval_is_of_the_mean_over_classes_and_over_patients(study):
    system = Boxes(study, {1: [(tenth(1), 0.1, 0)], 3: [((8.0, 8.0, 16.0, 16.0), 0.2, 1)]})
    found = detection(system, study, "test")
    rows, labels = study.pairs("test")
    weight = {0: 4 / (2 * 3), 1: 4 / 2}
    hits = {(1, 0): 1.0, (2, 0): 0.0, (3, 0): 0.0, (3, 1): 1.0}
    values = torch.tensor([hits[r, k] * weight[k] for r, k in zip(rows, labels, strict=True)])
    known = bootstrap_interval(values.double(), 0, patients=study.patients(rows))
    assert known.mean == pytest.approx(found["cl@0.1"])
    assert (found["cl@0.1_low"], found["cl@0.1_high"]) == (known.low, known.high)
    assert known.low < known.mean < known.high


def test_a_system_without_boxes_and_images_without_truth_have_no_numbers(study):
    assert detection(Boxes(study, {}, silent=True), study, "test") == {}
    assert detection(Boxes(study, {}), study, "train") == {}
    measure = detection_measure("test")
    numbers = measure.measure(Boxes(study, {}), study, "test")
    assert {name.partition("/")[0] for name in numbers} == set(BETTER) == set(measure.better)
    assert numbers["cl@0.1"] == numbers["map@0.1"] == 0


def test_the_location_alone_is_that_of_the_whole(study):
    system = Boxes(study, {
        1: [(tenth(1), 0.1, 0)],
        2: [(tenth(0.05), 0.9, 0), (tenth(1), 0.3, 0)],
        3: [(tenth(0.8), 0.8, 0), ((8.0, 8.0, 16.0, 16.0), 0.2, 1)],
    })  # fmt: skip
    whole = detection(system, study, "test")
    each = location_by_class(system, study, "test")
    assert location(system, study, "test") == {"cl@0.1": whole["cl@0.1"]}
    assert each[:2].tolist() == [whole["cl@0.1/A"], whole["cl@0.1/B"]] and each[2:].isnan().all()


def test_the_location_asks_for_boxes(study):
    with pytest.raises(ValueError, match="system: expected one that answers with boxes"):
        location_by_class(Boxes(study, {}, silent=True), study, "test")
    assert location(Boxes(study, {}), study_of(n=4), "test") == {}
