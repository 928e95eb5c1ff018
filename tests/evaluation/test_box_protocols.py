"""Chosen thresholds, MaxBoxAccV2, FROC and accuracy by size, against loops over images with scipy's
regions.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.answers import Answers, split_by_hand
from evaluation.localised import study_of
from scipy import ndimage
from torchvision.ops import box_iou

from cxrtut.data.boxes import boxes_to_mask
from cxrtut.evaluation.box_protocols import (
    BETTER,
    RATES,
    THRESHOLDS,
    accuracy_by_size,
    best_threshold_accuracy,
    box_protocol_measures,
    chosen_threshold_accuracy,
    froc_recall,
)
from cxrtut.evaluation.localisation import HEADLINE, localisation_accuracy
from cxrtut.experiments.source import Source


@pytest.fixture(scope="module")
def halved():
    """Images whose boxes are to choose thresholds on, and as many to score."""
    simulated = Source().all_diseases(32, 0, 256).store.store
    split = split_by_hand(simulated, [0, 1], range(2, 256))
    return replace(split, validation=split.test[::2], test=split.test[1::2])


@pytest.fixture(scope="module")
def heat(halved):
    """Boxes of the classes with their right scale, and as much noise: some are found."""
    rows = np.sort(np.concatenate([halved.validation, halved.test]))
    maps = torch.randn(
        len(rows), 8, halved.size, halved.size, generator=torch.Generator().manual_seed(0)
    )
    maps = torch.nn.functional.avg_pool2d(maps, 5, 1, 2) * 4
    for i, row in enumerate(rows):
        for k in range(8):
            inside = boxes_to_mask(halved.boxes_of(int(row), k), halved.size, halved.size)
            maps[i, k] += inside.float() * (1 + k / 4)
    return rows, maps.clamp_min(0)


@pytest.fixture(scope="module")
def system(halved, heat):
    return Answers(halved, rows=heat[0], heatmap=heat[1])


def regions(heat, threshold):
    """Boxes, areas and peaks of all regions, by scipy."""
    label, n = ndimage.label(heat > threshold * heat.max(), structure=np.ones((3, 3)))
    found = []
    for k, (ys, xs) in enumerate(ndimage.find_objects(label), start=1):
        box = [xs.start, ys.start, xs.stop, ys.stop]
        found.append((box, int((label == k).sum()), float(heat[label == k].max())))
    assert len(found) == n
    return found


def iou_with(box, true):
    return float(box_iou(torch.tensor([box]).double(), true.double()).max())


def pair_ious(split, side, heat, threshold, *, largest):
    rows, maps = heat
    found = []
    for row, k in zip(*split.pairs(side), strict=True):
        of = regions(maps[int(np.searchsorted(rows, row)), k].numpy(), threshold)
        if largest:
            of = [max(of, key=lambda r: (r[1], r[2]))] if of else []  # of equals the hottest
        true = split.boxes_of(int(row), int(k))
        found.append(max((iou_with(box, true) for box, *_ in of), default=0.0))
    return found


def test_thresholds_are_chosen_on_the_validation_images_for_each_class(halved, heat, system):
    found = chosen_threshold_accuracy(system, halved, "test")
    label = {side: halved.pairs(side)[1].tolist() for side in ("validation", "test")}
    iou = {
        side: [pair_ious(halved, side, heat, t, largest=True) for t in THRESHOLDS] for side in label
    }
    rows_used = set()
    for t in (0.3, 0.5, 0.7):
        accuracies = []
        for k, name in enumerate(halved.classes):
            hits = [
                sum(v > t for v, c in zip(row, label["validation"], strict=True) if c == k)
                for row in iou["validation"]
            ]
            best = hits.index(max(hits))
            rows_used.add(best)
            own = [v > t for v, c in zip(iou["test"][best], label["test"], strict=True) if c == k]
            accuracies.append(sum(own) / len(own))
            assert found[f"loc_acc_chosen@{t}/{name}"] == pytest.approx(accuracies[-1])
        assert found[f"loc_acc_chosen@{t}"] == pytest.approx(sum(accuracies) / 8)
    assert len(rows_used) > 3 and 0.1 < found["loc_acc_chosen@0.5"] < 0.95


def test_the_best_threshold_of_all_is_that_of_any_region(halved, heat, system):
    (number,) = best_threshold_accuracy(system, halved, "test").values()
    by_threshold = [pair_ious(halved, "test", heat, t, largest=False) for t in THRESHOLDS]
    expected = [
        max(np.mean([v >= t for v in row]) for row in by_threshold) for t in (0.3, 0.5, 0.7)
    ]
    assert number == pytest.approx(np.mean(expected)) and 0.1 < number < 0.95


def test_accuracy_is_counted_by_the_size_of_the_true_box(halved, heat, system):
    found = accuracy_by_size(system, halved, "test")
    ious = pair_ious(halved, "test", heat, HEADLINE, largest=True)
    hits = {"small": [], "medium": [], "large": []}
    for row, k, iou in zip(*halved.pairs("test"), ious, strict=True):
        boxes = halved.boxes_of(int(row), int(k)).tolist()
        side = math.sqrt(max((b[2] - b[0]) * (b[3] - b[1]) for b in boxes)) / halved.size
        hits["small" if side <= 1 / 8 else "medium" if side <= 1 / 4 else "large"].append(iou > 0.3)
    assert all(len(of) > 3 for of in hits.values())
    for name, of in hits.items():
        assert found[f"pairs_{name}"] == len(of)
        assert found[f"loc_acc_{name}"] == pytest.approx(np.mean(of))


def test_froc_is_what_counting_at_each_score_gives(halved, heat, system):
    found = froc_recall(system, halved, "test")
    rows, maps = heat
    for k, name in enumerate(halved.classes):
        candidates, n_true, n_images = [], 0, 0
        for row in halved.test:
            true = halved.boxes_of(int(row), k)
            if halved.store.labels[row, k] and not len(true):
                continue  # somewhere, but nobody knows where
            n_images, n_true = n_images + 1, n_true + len(true)
            of = regions(maps[int(np.searchsorted(rows, row)), k].numpy(), HEADLINE)
            for box, _, peak in of:
                overlaps = [iou_with(box, t[None]) > 0.3 for t in true]
                candidates.append((peak, row, overlaps))
        for rate in RATES:
            best = 0.0
            for level in {peak for peak, *_ in candidates}:
                shown = [c for c in candidates if c[0] >= level]
                false = sum(not any(overlaps) for *_, overlaps in shown)
                hit = {(row, j) for _, row, of in shown for j, is_hit in enumerate(of) if is_hit}
                if false / n_images <= rate:
                    best = max(best, len(hit) / n_true)
            assert found[f"froc@{rate}/{name}"] == pytest.approx(best)
        mean = np.mean([found[f"froc@0.1/{name}"] for name in halved.classes])
    assert found["froc@0.1"] == pytest.approx(mean)
    assert 0 < found["froc@0.05"] < found["froc@0.2"] < 1


def test_images_whose_boxes_nobody_drew_are_left_out_of_froc():
    labels = np.array([[0], [1], [1], [0]], np.uint8)  # the third has the disease, and no box
    split = study_of((1, 0, 2.0, 2.0, 8.0, 8.0), n=4, classes=("A",), labels=labels)
    maps = torch.zeros(3, 1, 16, 16)
    for i, row in enumerate(split.test):
        maps[i, 0, 2:8, 2:8] = {1: 1.0, 2: 3.0, 3: 2.0}[int(row)]
    system = Answers(split, heatmap=maps)
    found = froc_recall(system, split, "test")
    # Of two images one is known to be without: its false box is hotter than the true one
    assert found["froc@0.2"] == 0.0
    maps[[int(row) for row in split.test].index(3)] = 0.0
    assert froc_recall(Answers(split, heatmap=maps), split, "test")["froc@0.05"] == 1.0


def test_an_image_whose_boxes_nobody_drew_is_none_of_those_that_false_boxes_are_shared_by():
    labels = np.array([[0], [1], [1], [0], [0], [0]], np.uint8)  # the third has no box
    split = study_of((1, 0, 2.0, 2.0, 8.0, 8.0), n=6, classes=("A",), labels=labels)
    maps = torch.zeros(5, 1, 16, 16)
    for i, row in enumerate(split.test):
        if int(row) in (1, 3):  # found, and a hotter false box
            maps[i, 0, 2:8, 2:8] = float(row)
    # One false box in four images is more than .2; in five it would not be
    assert froc_recall(Answers(split, heatmap=maps), split, "test")["froc@0.2"] == 0.0


@pytest.mark.parametrize(("box", "elsewhere"), [(1.0, 0.94), (0.01, 0.0)])
def test_thresholds_reach_from_nothing_to_nearly_all(box, elsewhere):
    split = study_of((1, 0, 2.0, 2.0, 14.0, 14.0), n=2, classes=("A",))
    maps = torch.full((1, 1, 16, 16), elsewhere)
    maps[0, 0, 2:14, 2:14], maps[0, 0, 8, 8] = box, 1.0
    found = best_threshold_accuracy(Answers(split, heatmap=maps), split, "test")
    assert found == {"max_box_acc": 1.0}


@pytest.mark.parametrize(("measure", "name"), [
    (froc_recall, "froc@0.05"), (accuracy_by_size, "loc_acc_large"),
])  # fmt: skip
def test_another_threshold_of_the_maps_can_be_asked_for(measure, name):
    split = study_of((1, 0, 2.0, 2.0, 14.0, 14.0), n=2, classes=("A",))
    maps = torch.zeros(1, 1, 16, 16)
    maps[0, 0, 2:14, 2:14], maps[0, 0, 8, 8] = 0.5, 1.0
    system = Answers(split, heatmap=maps)
    assert measure(system, split, "test")[name] == 0.0
    assert measure(system, split, "test", threshold=0.4)[name] == 1.0


def test_classes_without_boxes_are_not_in_the_means(four_boxes):
    maps = torch.zeros(3, 3, 16, 16)
    for i, row in enumerate(four_boxes.test):
        for k in range(2):
            maps[i, k] = boxes_to_mask(four_boxes.boxes_of(int(row), k), 16, 16).float()
    system = Answers(four_boxes, heatmap=maps)
    found = froc_recall(system, four_boxes, "test")
    assert found["froc@0.05"] == found["froc@0.05/A"] == 1.0
    assert math.isnan(found["froc@0.05/C"])
    sizes = accuracy_by_size(system, four_boxes, "test")
    assert sizes == {"pairs_small": 0, "pairs_medium": 0, "pairs_large": 3, "loc_acc_large": 1.0}


def test_without_validation_boxes_nothing_is_chosen(halved, system):
    none = replace(halved, validation=np.zeros(0, np.int64))
    assert chosen_threshold_accuracy(system, none, "test") == {}
    assert best_threshold_accuracy(system, none, "test") != {}


def test_a_system_without_heat_maps_has_none_of_these_numbers(halved, heat):
    system = Answers(halved, rows=heat[0], scores=torch.zeros(len(heat[0]), 8))
    assert [m.measure(system, halved, "test") for m in box_protocol_measures("test")] == [{}] * 4


def test_maps_of_other_classes_are_refused(halved, heat):
    system = Answers(halved, rows=heat[0], heatmap=heat[1][:, :3])
    for measure in box_protocol_measures("test"):
        with pytest.raises(ValueError, match="expected a heat map for each of 8 classes, got 3"):
            measure.measure(system, halved, "test")


def test_every_number_has_a_better_side_and_every_side_a_number(halved, system):
    seen = set()
    for measure in box_protocol_measures("test"):
        numbers = measure.measure(system, halved, measure.side)
        names = {name.partition("/")[0] for name in numbers}
        assert names == set(measure.better)
        seen |= names
    assert seen == set(BETTER)


def test_the_chosen_thresholds_lie_between_a_fixed_one_and_the_oracle_here(halved, system):
    fixed = localisation_accuracy(system, halved, "test")
    chosen = chosen_threshold_accuracy(system, halved, "test")
    assert chosen["loc_acc_chosen@0.5"] > fixed["loc_acc@0.5"]
