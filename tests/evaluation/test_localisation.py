"""From the heat maps of any system to localisation accuracy and false positives."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from evaluation.answers import Answers
from evaluation.localised import (
    CUT,
    LARGEST,
    SIZE,
    certain,
    maps_of,
    one_box_each,
    scored,
    study_of,
    system_of,
)

from cxrtut.evaluation.localisation import (
    BETTER,
    IOU_THRESHOLDS,
    every_region,
    largest_region,
    localisation_accuracy,
    localisation_measure,
    predicted_boxes,
)
from cxrtut.experiments.source import Source
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.metrics.detection import iou_matrix
from cxrtut.nn.spatial_transformer import five_parameter_matrix, warp


def by_class(scores, t, study):
    return {name: scores[f"loc_acc@{t}/{name}"] for name in study.classes}


def test_perfect_maps_find_every_box_and_nothing_else(simulated):
    maps = maps_of(simulated, 32)
    scores = scored(maps, certain(simulated), simulated)
    assert scores["pairs"] == len(simulated.pairs()[0]) > 20
    assert scores["loc_acc@0.3"] > 0.95 and scores["loc_acc@0.5"] > 0.8
    assert scores["loc_acc@0.3"] >= scores["loc_acc@0.5"] >= scores["loc_acc@0.7"]
    assert scores["false_positives"] <= 0.05


def test_boxes_of_whole_pixels_are_found_exactly(four_boxes):
    scores = scored(maps_of(four_boxes, SIZE), certain(four_boxes), four_boxes)
    for t in IOU_THRESHOLDS:
        assert scores[f"loc_acc@{t}"] == scores[f"loc_acc_any@{t}"] == 1.0
        assert scores[f"loc_acc_oracle@{t}"] == 1.0
    assert scores["false_positives"] == 0 and scores["pairs"] == 3


@pytest.mark.parametrize("level", [0.0, -3.0, 5.0])
def test_constant_maps_miss_everything(four_boxes, level):
    maps = torch.full((3, 3, 4, 4), level)
    scores = scored(maps, certain(four_boxes), four_boxes)
    kinds = ("loc_acc", "loc_acc_any", "loc_acc_oracle")
    assert all(scores[f"{kind}@{t}"] == 0 for t in IOU_THRESHOLDS for kind in kinds)
    assert scores["false_positives"] == 0


def test_each_pair_is_scored_on_the_map_of_its_image_and_its_class(four_boxes):
    perfect, logits = maps_of(four_boxes, SIZE), certain(four_boxes)
    for moved in (perfect.roll(1, 0), perfect.roll(1, 1)):
        assert scored(moved, logits, four_boxes)["loc_acc@0.7"] == 0
    wrong = perfect.clone()
    wrong[four_boxes.test.tolist().index(3), 1] = torch.eye(SIZE)  # of class B's only pair
    scores = by_class(scored(wrong, logits, four_boxes), 0.5, four_boxes)
    assert scores["A"] == 1 and scores["B"] == 0


def test_the_mean_is_over_classes_and_a_class_without_boxes_is_not_in_it(four_boxes):
    maps = maps_of(four_boxes, SIZE)
    maps[four_boxes.test.tolist().index(2), 0] = 0  # one of A's two is missed
    scores = scored(maps, certain(four_boxes), four_boxes)
    found = by_class(scores, 0.3, four_boxes)
    assert found["A"] == 0.5 and found["B"] == 1.0 and math.isnan(found["C"])
    assert scores["loc_acc@0.3"] == 0.75, "the mean over pairs would be 2/3, with C as zero 1/2"


def test_the_mean_over_three_classes_by_hand():
    study = study_of(
        *((1, k, 2.0, 2.0, 10.0, 10.0) for k in range(3)), (2, 0, 2.0, 2.0, 10.0, 10.0),
        (3, 0, 2.0, 2.0, 10.0, 10.0), (3, 1, 2.0, 2.0, 10.0, 10.0),
    )  # fmt: skip
    maps = torch.zeros(3, 3, SIZE, SIZE)
    place = study.test.tolist().index
    maps[place(1), 0, 2:10, 2:10] = 1  # IoU 1
    maps[place(2), 0, 2:10, 2:6] = 1  # IoU 1/2
    maps[place(3), 0, 2:10, 2:4] = 1  # IoU 1/4
    maps[place(1), 1, 2:10, 2:8] = 1  # IoU 3/4
    maps[place(1), 2, 2:6, 2:7] = 1  # IoU 20/64
    scores = scored(maps, certain(study), study)
    third = pytest.approx(1 / 3)
    assert by_class(scores, 0.3, study) == {"A": pytest.approx(2 / 3), "B": 0.5, "C": 1.0}
    # 1/2 is not above 1/2
    assert by_class(scores, 0.5, study) == {"A": third, "B": 0.5, "C": 0.0}
    assert by_class(scores, 0.7, study) == {"A": third, "B": 0.5, "C": 0.0}
    assert [scores[f"pairs/{name}"] for name in "ABC"] == [3, 2, 1] and scores["pairs"] == 6
    assert scores["loc_acc@0.3"] == pytest.approx((2 / 3 + 0.5 + 1) / 3)
    assert scores["loc_acc@0.5"] == scores["loc_acc@0.7"] == pytest.approx((1 / 3 + 0.5) / 3)


def test_a_map_without_contrast_is_a_miss():
    levels = torch.rand(64, generator=torch.Generator().manual_seed(0))
    flat = levels[:, None, None].expand(64, 8, 8)
    boxes = [found for found, _ in LARGEST(heatmap_from_maps(flat[:, None], (64, 64))[:, 0])]
    assert all(len(found) == 0 for found in boxes)


def test_what_nobody_knows_is_no_false_positive():
    # Of three test images: one with the disease and its box, one with the disease alone, one well.
    labels = np.array([[0], [1], [1], [0]], np.uint8)
    study = study_of((1, 0, 0, 0, 8, 8), classes=("A",), labels=labels)
    maps = torch.zeros(3, 1, SIZE, SIZE)
    maps[:, :, 10:14, 10:14] = 1  # beside the box
    scores = scored(maps, torch.ones(3, 1), study)
    assert scores["false_positives"] == pytest.approx(2 / 3)


def smooth_maps(study, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = len(study.test), len(study.store.classes), 8, 8
    noise = torch.randn(shape, generator=generator)
    true = torch.nn.functional.adaptive_avg_pool2d(maps_of(study, 32), 8)
    return true + 0.15 * noise


def test_any_region_and_the_best_cut_are_upper_bounds(simulated):
    seen = []
    for seed in range(8):
        scores = scored(smooth_maps(simulated, seed), certain(simulated), simulated)
        for t in IOU_THRESHOLDS:
            one = scores[f"loc_acc@{t}"]
            anywhere, best = scores[f"loc_acc_any@{t}"], scores[f"loc_acc_oracle@{t}"]
            assert anywhere >= one and best >= one
            seen.append((one, anywhere, best))
    assert any(one < other for one, other, _ in seen) and any(one < best for one, _, best in seen)


def test_the_best_cut_is_never_worse_than_the_one_in_use():
    """One that falls between those that are tried."""
    study = study_of((1, 0, 2.0, 2.0, 10.0, 10.0))
    maps = torch.zeros(3, 3, SIZE, SIZE)
    heat = maps[study.test.tolist().index(1), 0]
    heat[1:, 1:] = 0.702  # between 0.70 and 180/255
    heat[2:10, 2:10] = 0.72  # between 180/255 and 0.75
    heat[2, 2] = 1.0
    scores = scored(maps, certain(study), study)
    assert scores["loc_acc@0.7"] == scores["loc_acc_oracle@0.7"] == 1.0
    without = scored(maps, certain(study), study, cut=0.75)
    assert without["loc_acc@0.7"] == without["loc_acc_oracle@0.7"] == 0.0


def test_any_region_may_be_the_one_that_is_right(four_boxes):
    maps = maps_of(four_boxes, SIZE)
    maps[:, :, 13:, 2:] = 1.0  # a larger region elsewhere: no, for the two of A it is the largest
    scores = scored(maps, certain(four_boxes), four_boxes)
    found = by_class(scores, 0.7, four_boxes)
    assert found["A"] == 0.5  # 36 pixels lose against 42, 64 do not
    assert scores["loc_acc_any@0.7"] == 1.0


def test_any_looks_at_a_lower_cut_as_well():
    study = study_of((1, 0, 2.0, 2.0, 10.0, 10.0))
    maps = torch.zeros(3, 3, SIZE, SIZE)
    maps[study.test.tolist().index(1), 0, 2:10, 2:10] = 0.4  # between 60/255 and 180/255
    maps[study.test.tolist().index(1), 0, 3, 3] = 1.0
    scores = scored(maps, certain(study), study)
    assert (
        scores["loc_acc@0.3"] == 0
        and scores["loc_acc_any@0.7"] == scores["loc_acc_oracle@0.7"] == 1
    )


def moved_frames(n):
    """n matrices: zoomed out, turned and shifted, so that aligned images show the whole image."""
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(5, n, generator=generator) - 0.5
    return five_parameter_matrix(
        1.35 + 0.1 * u[0], 1.35 + 0.1 * u[1], 0.3 * u[2].sign(), 0.3 * u[3].sign(), 0.3 * u[4]
    )


def test_maps_of_aligned_images_score_as_well_if_and_only_if_they_are_brought_back():
    """At 64 px: at half of that a nodule is so small that resampling alone moves its box."""
    simulated = one_box_each(Source().all_diseases(64, 0, 160))
    maps, logits = maps_of(simulated, 64), certain(simulated)
    matrix = moved_frames(len(maps))
    aligned = warp(maps, matrix, outside=0.0)
    there = scored(maps, logits, simulated, cut=0.5)
    back = scored(aligned, logits, simulated, cut=0.5, matrix=matrix)
    forgotten = scored(aligned, logits, simulated, cut=0.5)
    assert back["loc_acc@0.3"] > 0.9 and back["loc_acc@0.3"] > there["loc_acc@0.3"] - 0.06
    assert back["loc_acc@0.5"] > there["loc_acc@0.5"] - 0.15
    assert forgotten["loc_acc@0.3"] < back["loc_acc@0.3"] - 0.4
    assert back["false_positives"] < 0.2 < forgotten["false_positives"]


def test_each_map_is_brought_back_by_the_matrix_of_its_own_image(simulated):
    maps, matrix = maps_of(simulated, 64), moved_frames(len(simulated.test))
    aligned, logits = warp(maps, matrix, outside=0.0), certain(simulated)
    right = scored(aligned, logits, simulated, cut=0.5, matrix=matrix)
    other = scored(aligned, logits, simulated, cut=0.5, matrix=matrix.roll(1, 0))
    assert other["loc_acc@0.3"] < right["loc_acc@0.3"] - 0.2
    assert other["false_positives"] > right["false_positives"] + 0.2


def test_an_identity_changes_nothing(simulated):
    maps, logits = smooth_maps(simulated), certain(simulated)
    still = torch.eye(2, 3).expand(len(maps), 2, 3).contiguous()
    one = scored(maps, logits, simulated)
    other = scored(maps, logits, simulated, cut=CUT, matrix=still)
    assert one["loc_acc@0.3"] == pytest.approx(other["loc_acc@0.3"], abs=0.03)
    assert one["false_positives"] == pytest.approx(other["false_positives"], abs=0.03)


def test_false_positives_are_counted_for_predicted_classes_and_per_image(four_boxes):
    maps = maps_of(four_boxes, SIZE)
    maps[:, 2, :3, :3] = 1.0  # C, which no test image has

    def count(logits):
        return scored(maps, logits, four_boxes)["false_positives"]

    none = torch.full((3, 3), -1.0)
    assert count(none) == 0.0
    assert count(torch.zeros(3, 3)) == 0.0, "a logit of 0 predicts nothing"
    one = none.clone()
    one[1, 2] = 0.5
    assert count(one) == pytest.approx(1 / 3)
    one[:, 2] = 3.0
    assert count(one) == 1.0
    assert count(certain(four_boxes)) == 0.0, "where boxes are hit there are none"
    assert count(torch.ones(3, 3)) == 1.0, "a map of zeros has no box that could be false"


def test_a_box_beside_the_true_one_is_a_false_positive(four_boxes):
    maps = maps_of(four_boxes, SIZE).flip(-1)  # A's second box is symmetric and stays
    scores = scored(maps, certain(four_boxes), four_boxes)
    assert scores["loc_acc@0.3/A"] == 0.5 and scores["loc_acc@0.3/B"] == 0
    assert scores["false_positives"] == pytest.approx(2 / 3)


def test_scores_do_not_depend_on_scale_and_offset_of_a_map(simulated):
    maps, logits = smooth_maps(simulated), certain(simulated)
    one = scored(maps, logits, simulated)
    other = scored(8 * maps - 64, logits, simulated)
    assert (
        one["loc_acc@0.3"] == other["loc_acc@0.3"]
        and one["false_positives"] == other["false_positives"]
    )


def test_the_largest_region_or_every_region_becomes_a_box():
    study = study_of((1, 0, 0, 0, 8, 8), size=8)
    maps = torch.zeros(3, 3, 8, 8)
    heat = maps[study.test.tolist().index(1), 0]
    heat[1:3, 1:3], heat[5:8, 4:8] = 1.0, 0.9
    every, hot = partial(every_region, threshold=CUT), partial(every_region, threshold=0.95)
    system, pairs = Answers(study, heatmap=maps), study.pairs()
    [one], [both], [hottest] = predicted_boxes(system, study, *pairs, LARGEST, every, hot)
    assert one.tolist() == [[4, 5, 8, 8]]
    assert both.tolist() == [[1, 1, 3, 3], [4, 5, 8, 8]]
    assert hottest.tolist() == [[1, 1, 3, 3]]
    none = pairs[0][:0], pairs[1][:0]
    assert predicted_boxes(system, study, *none, LARGEST, every) == [[], []]


def test_each_image_is_asked_for_once_for_all_rules_and_all_its_classes():
    study = study_of((1, 0, 0, 0, 8, 8), (1, 1, 0, 0, 8, 8), (1, 2, 0, 0, 8, 8), (3, 0, 0, 0, 8, 8))
    system = Answers(study, heatmap=torch.rand(3, 3, SIZE, SIZE))
    predicted_boxes(system, study, *study.pairs(), LARGEST, LARGEST, LARGEST)
    assert system.asked == [2]


def test_boxes_are_in_pixels_of_the_image_as_it_was():
    study = study_of((1, 0, 0, 0, 8, 8), n=2, classes=("A",), size=64)
    maps = torch.zeros(1, 1, 16, 16)
    maps[0, 0, 4:8, 2:6] = 1.0
    half = partial(largest_region, threshold=0.5)

    def box_of(matrix):
        system = system_of(maps, None, study, matrix)
        ([box],) = predicted_boxes(system, study, *study.pairs(), half)
        return box

    truth = torch.tensor([[8.0, 16.0, 24.0, 32.0]])
    assert iou_matrix(box_of(None), truth).item() > 0.9
    shifted = five_parameter_matrix(*(torch.tensor([v]) for v in (1.0, 1.0, 0.5, -0.25, 0.0)))
    moved = box_of(shifted)  # looked 16 px right and 8 px up
    assert iou_matrix(moved, truth + torch.tensor([16.0, -8.0, 16.0, -8.0])).item() > 0.9


def test_nothing_is_said_without_heat_maps_or_without_boxes(four_boxes):
    logits = torch.zeros(3, 3).double()
    assert localisation_accuracy(Answers(four_boxes, scores=logits), four_boxes, "test") == {}
    study = study_of()
    system = Answers(study, heatmap=torch.rand(3, 3, SIZE, SIZE))
    assert localisation_accuracy(system, study, "test") == {} and system.asked == []


def test_without_scores_false_positives_are_left_out_and_all_else_is_there(four_boxes):
    maps = maps_of(four_boxes, SIZE)
    without, with_scores = (
        scored(maps, None, four_boxes),
        scored(maps, certain(four_boxes), four_boxes),
    )
    assert set(with_scores) - set(without) == {"false_positives"}
    assert without["loc_acc@0.7"] == 1.0


def test_maps_of_other_classes_than_the_splits_are_refused(four_boxes):
    system = Answers(four_boxes, heatmap=torch.rand(3, 2, SIZE, SIZE))
    with pytest.raises(ValueError, match="heat map for each of 3 classes, got 2"):
        localisation_accuracy(system, four_boxes, "test")


def test_the_side_asked_for_is_scored(four_boxes):
    heatmap = torch.zeros(1, 3, SIZE, SIZE)
    heatmap[0, 2, :4, :4] = 1
    system = Answers(four_boxes, heatmap=heatmap, rows=four_boxes.train)
    scores = localisation_accuracy(system, four_boxes, "train")
    assert scores["pairs"] == scores["pairs/C"] == scores["loc_acc@0.7"] == 1


def test_the_measure_is_the_function_and_says_which_side_is_better(four_boxes):
    system = system_of(maps_of(four_boxes, SIZE), certain(four_boxes), four_boxes)
    measure = localisation_measure("test", 0.4)
    found = measure.measure(system, four_boxes, measure.side)
    wanted = localisation_accuracy(system, four_boxes, "test", threshold=0.4)
    assert found == pytest.approx(wanted, nan_ok=True)
    assert {name for name in found if "/" not in name} == set(measure.better) == set(BETTER)
