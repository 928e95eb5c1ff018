"""From maps to localisation accuracy, false positives and AUROC."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cxrtut.experiments.label_study import LabelStudy, phantom_labels
from cxrtut.experiments.localisation import (
    THRESHOLDS,
    accuracies_at_cut,
    every_region,
    occurrence,
    predicted_boxes,
    score_classification,
    score_localisation,
    true_masks,
)

from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.store import ArrayStore
from cxrtut.metrics.detection import iou_matrix
from cxrtut.nn.spatial_transformer import five_parameter_matrix, warp
from cxrtut.papers.disease_masks import boxes_from_heat, heat_in_image

CUT = 180 / 255
LARGEST = partial(boxes_from_heat, cut=CUT)
SIZE = 16


def study_of(*boxes, n=4, classes=("A", "B", "C"), labels=None):
    """Images of which the first is for training and the others for testing, in another order."""
    found = np.zeros((n, len(classes)), np.uint8)
    for row, label, *_ in boxes:
        found[row, label] = 1
    store = ArrayStore.from_arrays(
        np.zeros((n, 1, SIZE, SIZE), np.uint8), found if labels is None else labels, classes,
        boxes_rows=[(*box, "hand") for box in boxes],
    )  # fmt: skip
    return LabelStudy("by hand", store, np.arange(1), np.arange(1, n)[::-1].copy())


def maps_of(study, cells):
    """Maps that are 1 in the boxes of their class and 0 elsewhere, on a grid of so many cells."""
    maps = torch.zeros(len(study.test), len(study.store.classes), cells, cells)
    for i, row in enumerate(study.test):
        for k in range(maps.shape[1]):
            boxes = study.boxes_of(int(row), k) * cells / study.store.size
            maps[i, k] = boxes_to_mask(boxes, cells, cells).float()
    return maps


def one_box_each(study):
    """The study without the pairs that have several boxes, of which no single box can be right."""
    table = study.store.boxes
    key = table.row * 1000 + table.label
    alone = np.array([(key == k).sum() == 1 for k in key])
    kept = replace(
        table, row=table.row[alone], label=table.label[alone], xyxy=table.xyxy[alone],
        origin=table.origin[alone],
    )  # fmt: skip
    return replace(study, store=replace(study.store, boxes=kept))


@pytest.fixture(scope="module")
def simulated():
    return one_box_each(phantom_labels(32, n=160))


def certain(study):
    """Logits that are right about every image."""
    labels = torch.from_numpy(study.store.labels[study.test]).float()
    boxed = torch.zeros_like(labels)
    place = {int(row): i for i, row in enumerate(study.test)}
    for row, label in zip(*study.pairs, strict=True):
        boxed[place[int(row)], int(label)] = 1
    return 20 * boxed - 10


@pytest.fixture
def four_boxes():
    """A has two pairs, B one, C none; the fourth box is of a training image."""
    return study_of(
        (1, 0, 2.0, 2.0, 8.0, 8.0), (2, 0, 4.0, 4.0, 12.0, 12.0), (3, 1, 0.0, 0.0, 8.0, 6.0),
        (0, 2, 0.0, 0.0, 4.0, 4.0),
    )  # fmt: skip


def test_perfect_maps_find_every_box_and_nothing_else(simulated):
    maps = maps_of(simulated, 32)
    scores = score_localisation(maps, certain(simulated), None, simulated, cut=CUT)
    assert scores["pairs"] == len(simulated.pairs[0]) > 20
    assert scores["T .3"] > 0.95 and scores["T .5"] > 0.8
    assert scores["T .3"] >= scores["T .5"] >= scores["T .7"]
    assert scores["false positives"] <= 0.05


def test_boxes_of_whole_pixels_are_found_exactly(four_boxes):
    scores = score_localisation(
        maps_of(four_boxes, SIZE), certain(four_boxes), None, four_boxes, cut=CUT
    )
    for name in ("T .3", "T .5", "T .7"):
        assert scores[name] == scores[f"{name}, any"] == scores[f"{name}, oracle"] == 1.0
    assert scores["false positives"] == 0 and scores["pairs"] == 3


@pytest.mark.parametrize("level", [0.0, -3.0, 5.0])
def test_constant_maps_miss_everything(four_boxes, level):
    maps = torch.full((3, 3, 4, 4), level)
    scores = score_localisation(maps, certain(four_boxes), None, four_boxes, cut=CUT)
    assert all(scores[f"T .{t}{x}"] == 0 for t in (3, 5, 7) for x in ("", ", any", ", oracle"))
    assert scores["false positives"] == 0


def test_each_pair_is_scored_on_the_map_of_its_image_and_its_class(four_boxes):
    perfect, logits = maps_of(four_boxes, SIZE), certain(four_boxes)
    for moved in (perfect.roll(1, 0), perfect.roll(1, 1)):
        assert score_localisation(moved, logits, None, four_boxes, cut=CUT)["T .7"] == 0
    wrong = perfect.clone()
    wrong[four_boxes.test.tolist().index(3), 1] = torch.eye(SIZE)  # of class B's only pair
    scores = score_localisation(wrong, logits, None, four_boxes, cut=CUT)["by class"]["T .5"]
    assert scores["A"] == 1 and scores["B"] == 0


def test_the_mean_is_over_classes_and_a_class_without_boxes_is_not_in_it(four_boxes):
    maps = maps_of(four_boxes, SIZE)
    maps[four_boxes.test.tolist().index(2), 0] = 0  # one of A's two is missed
    scores = score_localisation(maps, certain(four_boxes), None, four_boxes, cut=CUT)
    found = scores["by class"]["T .3"]
    assert found["A"] == 0.5 and found["B"] == 1.0 and math.isnan(found["C"])
    assert scores["T .3"] == 0.75, "the mean over pairs would be 2/3, with C as zero 1/2"


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
    scores = score_localisation(maps, certain(study), None, study, cut=CUT)
    assert scores["by class"] == {
        "T .3": {"A": pytest.approx(2 / 3), "B": 0.5, "C": 1.0},
        "T .5": {"A": pytest.approx(1 / 3), "B": 0.5, "C": 0.0},  # 1/2 is not above 1/2
        "T .7": {"A": pytest.approx(1 / 3), "B": 0.5, "C": 0.0},
        "pairs": {"A": 3, "B": 2, "C": 1},
    }
    assert scores["T .3"] == pytest.approx((2 / 3 + 0.5 + 1) / 3)
    assert scores["T .5"] == scores["T .7"] == pytest.approx((1 / 3 + 0.5) / 3)


def test_a_map_without_contrast_is_a_miss():
    levels = torch.rand(64, generator=torch.Generator().manual_seed(0))
    flat = levels[:, None, None].expand(64, 8, 8)
    (boxes,) = predicted_boxes(flat, None, 64, LARGEST)
    assert all(len(found) == 0 for found in boxes)


def test_what_nobody_knows_is_no_false_positive():
    # Of three test images: one with the disease and its box, one with the disease alone, one well.
    labels = np.array([[0], [1], [1], [0]], np.uint8)
    study = study_of((1, 0, 0, 0, 8, 8), classes=("A",), labels=labels)
    maps = torch.zeros(3, 1, SIZE, SIZE)
    maps[:, :, 10:14, 10:14] = 1  # beside the box
    scores = score_localisation(maps, torch.ones(3, 1), None, study, cut=CUT)
    assert scores["false positives"] == pytest.approx(2 / 3)


def smooth_maps(study, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = len(study.test), len(study.store.classes), 8, 8
    noise = torch.randn(shape, generator=generator)
    true = torch.nn.functional.adaptive_avg_pool2d(maps_of(study, 32), 8)
    return true + 0.15 * noise


def test_any_region_and_the_best_cut_are_upper_bounds(simulated):
    seen = []
    for seed in range(3):
        scores = score_localisation(
            smooth_maps(simulated, seed), certain(simulated), None, simulated, cut=CUT
        )
        for t in ("T .3", "T .5", "T .7"):
            assert scores[f"{t}, any"] >= scores[t]
            assert scores[f"{t}, oracle"] >= scores[t]
            seen.append((scores[t], scores[f"{t}, any"], scores[f"{t}, oracle"]))
    assert any(one < other for one, other, _ in seen) and any(one < best for one, _, best in seen)


def test_the_best_cut_is_never_worse_than_the_one_in_use():
    """One that falls between those that are tried."""
    study = study_of((1, 0, 2.0, 2.0, 10.0, 10.0))
    maps = torch.zeros(3, 3, SIZE, SIZE)
    heat = maps[study.test.tolist().index(1), 0]
    heat[1:, 1:] = 0.702  # between 0.70 and 180/255
    heat[2:10, 2:10] = 0.72  # between 180/255 and 0.75
    heat[2, 2] = 1.0
    scores = score_localisation(maps, certain(study), None, study, cut=CUT)
    assert scores["T .7"] == scores["T .7, oracle"] == 1.0
    without = score_localisation(maps, certain(study), None, study, cut=0.75)
    assert without["T .7"] == without["T .7, oracle"] == 0.0


def test_any_region_may_be_the_one_that_is_right(four_boxes):
    maps = maps_of(four_boxes, SIZE)
    maps[:, :, 13:, 2:] = 1.0  # a larger region elsewhere: no, for the two of A it is the largest
    scores = score_localisation(maps, certain(four_boxes), None, four_boxes, cut=CUT)
    found = scores["by class"]["T .7"]
    assert found["A"] == 0.5  # 36 pixels lose against 42, 64 do not
    assert scores["T .7, any"] == 1.0


def test_any_looks_at_a_lower_cut_as_well():
    study = study_of((1, 0, 2.0, 2.0, 10.0, 10.0))
    maps = torch.zeros(3, 3, SIZE, SIZE)
    maps[study.test.tolist().index(1), 0, 2:10, 2:10] = 0.4  # between 60/255 and 180/255
    maps[study.test.tolist().index(1), 0, 3, 3] = 1.0
    scores = score_localisation(maps, certain(study), None, study, cut=CUT)
    assert scores["T .3"] == 0 and scores["T .7, any"] == scores["T .7, oracle"] == 1


def moved_frames(n):
    """n matrices: zoomed out, turned and shifted, so that aligned images show the whole image."""
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(5, n, generator=generator) - 0.5
    return five_parameter_matrix(
        1.35 + 0.1 * u[0], 1.35 + 0.1 * u[1], 0.3 * u[2].sign(), 0.3 * u[3].sign(), 0.3 * u[4]
    )


def test_maps_of_aligned_images_score_as_well_if_and_only_if_they_are_brought_back(simulated):
    maps, logits = maps_of(simulated, 64), certain(simulated)
    matrix = moved_frames(len(maps))
    aligned = warp(maps, matrix, outside=0.0)
    there = score_localisation(maps, logits, None, simulated, cut=0.5)
    back = score_localisation(aligned, logits, matrix, simulated, cut=0.5)
    forgotten = score_localisation(aligned, logits, None, simulated, cut=0.5)
    assert back["T .3"] > 0.9 and back["T .3"] > there["T .3"] - 0.06
    assert back["T .5"] > there["T .5"] - 0.15
    assert forgotten["T .3"] < back["T .3"] - 0.4
    assert back["false positives"] < 0.2 < forgotten["false positives"]


def test_each_map_is_brought_back_by_the_matrix_of_its_own_image(simulated):
    maps, matrix = maps_of(simulated, 64), moved_frames(len(simulated.test))
    aligned, logits = warp(maps, matrix, outside=0.0), certain(simulated)
    right = score_localisation(aligned, logits, matrix, simulated, cut=0.5)
    other = score_localisation(aligned, logits, matrix.roll(1, 0), simulated, cut=0.5)
    assert other["T .3"] < right["T .3"] - 0.2
    assert other["false positives"] > right["false positives"] + 0.2


def test_an_identity_changes_nothing(simulated):
    maps, logits = smooth_maps(simulated), certain(simulated)
    still = torch.eye(2, 3).expand(len(maps), 2, 3).contiguous()
    one = score_localisation(maps, logits, None, simulated, cut=CUT)
    other = score_localisation(maps, logits, still, simulated, cut=CUT)
    assert one["T .3"] == pytest.approx(other["T .3"], abs=0.03)
    assert one["false positives"] == pytest.approx(other["false positives"], abs=0.03)


def test_false_positives_are_counted_for_predicted_classes_and_per_image(four_boxes):
    maps = maps_of(four_boxes, SIZE)
    maps[:, 2, :3, :3] = 1.0  # C, which no test image has

    def count(logits):
        return score_localisation(maps, logits, None, four_boxes, cut=CUT)["false positives"]

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
    scores = score_localisation(maps, certain(four_boxes), None, four_boxes, cut=CUT)
    assert scores["by class"]["T .3"]["A"] == 0.5 and scores["by class"]["T .3"]["B"] == 0
    assert scores["false positives"] == pytest.approx(2 / 3)


def test_scores_do_not_depend_on_scale_and_offset_of_a_map(simulated):
    maps, logits = smooth_maps(simulated), certain(simulated)
    one = score_localisation(maps, logits, None, simulated, cut=CUT)
    other = score_localisation(8 * maps - 64, logits, None, simulated, cut=CUT)
    assert one["T .3"] == other["T .3"] and one["false positives"] == other["false positives"]


def test_the_largest_region_or_every_region_becomes_a_box():
    maps = torch.zeros(1, 8, 8)
    maps[0, 1:3, 1:3], maps[0, 5:8, 4:8] = 1.0, 0.9
    every, hot = partial(every_region, cut=CUT), partial(every_region, cut=0.95)
    [one], [both], [hottest] = predicted_boxes(maps, None, 8, LARGEST, every, hot)
    assert one.tolist() == [[4, 5, 8, 8]]
    assert both.tolist() == [[1, 1, 3, 3], [4, 5, 8, 8]]
    assert hottest.tolist() == [[1, 1, 3, 3]]
    assert predicted_boxes(maps[:0], None, 8, LARGEST, every) == [[], []]


def test_heat_is_made_once_for_all_rules(monkeypatch):
    made = []

    def counted(*given):
        made.append(len(given[0]))
        return heat_in_image(*given)

    monkeypatch.setattr("cxrtut.experiments.localisation.heat_in_image", counted)
    predicted_boxes(torch.rand(5, 8, 8), None, 16, LARGEST, LARGEST, LARGEST)
    assert made == [5]


def test_boxes_are_in_pixels_of_the_image_as_it_was():
    maps = torch.zeros(1, 16, 16)
    maps[0, 4:8, 2:6] = 1.0
    half = partial(boxes_from_heat, cut=0.5)
    ([box],) = predicted_boxes(maps, None, 64, half)
    truth = torch.tensor([[8.0, 16.0, 24.0, 32.0]])
    assert iou_matrix(box, truth).item() > 0.9
    shifted = five_parameter_matrix(*(torch.tensor([v]) for v in (1.0, 1.0, 0.5, -0.25, 0.0)))
    ([moved],) = predicted_boxes(maps, shifted, 64, half)  # looked 16 px right and 8 px up
    assert iou_matrix(moved, truth + torch.tensor([16.0, -8.0, 16.0, -8.0])).item() > 0.9


def test_maps_are_enlarged_in_blocks_of_their_own_matrices(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    maps, matrix = torch.rand(7, 8, 8, generator=generator), moved_frames(7)
    (whole,) = predicted_boxes(maps, matrix, 32, LARGEST)
    monkeypatch.setattr("cxrtut.experiments.localisation._BLOCK", 3)
    (parts,) = predicted_boxes(maps, matrix, 32, LARGEST)
    assert len(whole) == len(parts) == 7
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_accuracies_at_a_cut_are_those_of_the_scores(simulated):
    maps, matrix = smooth_maps(simulated), moved_frames(len(simulated.test))
    place = {int(row): i for i, row in enumerate(simulated.test)}
    rows, labels = simulated.pairs
    image = torch.tensor([place[int(row)] for row in rows])
    asked = maps[image, torch.from_numpy(labels.copy())]
    for there in (None, matrix):
        for cut in (0.4, CUT):
            scores = score_localisation(maps, certain(simulated), there, simulated, cut=cut)
            moved = None if there is None else there[image]
            found = accuracies_at_cut(asked, moved, simulated, cut)
            assert found == [scores["T .3"], scores["T .5"], scores["T .7"]]
            other = accuracies_at_cut(asked, moved, simulated, cut, (0.7, 0.0, 0.3))
            assert [other[0], other[2]] == [scores["T .7"], scores["T .3"]]
            assert other[1] >= scores["T .3"]


def test_occurrence_is_the_share_of_the_images_with_a_disease_that_have_it_there(monkeypatch):
    study = study_of(
        (1, 0, 0, 0, 8, 8), (2, 0, 0, 8, 8, 16), (3, 0, 0, 0, 16, 8), (3, 1, 8, 8, 12, 16),
        (0, 0, 0, 0, 16, 16),
    )  # fmt: skip
    expected = [[[2 / 3, 1 / 3], [1 / 3, 0]], [[0, 0], [0, 0.5]], [[0, 0], [0, 0]]]
    assert torch.allclose(occurrence(study, None, 2), torch.tensor(expected))
    monkeypatch.setattr("cxrtut.experiments.localisation._BLOCK", 3)
    assert torch.allclose(occurrence(study, None, 2), torch.tensor(expected))
    one, zero = torch.ones(4), torch.zeros(4)
    right = five_parameter_matrix(one, one, zero + 1.0, zero, zero)  # looks half an image right
    moved = occurrence(study, right, 2)
    assert torch.allclose(moved[0], torch.tensor([[1 / 3, 0], [0, 0]]), atol=0.02)
    assert torch.allclose(moved[1], torch.tensor([[0, 0], [0.5, 0]]), atol=0.05)


def test_true_masks_are_the_boxes_of_the_class(four_boxes):
    masks = true_masks(four_boxes, np.array([2, 3, 1]), np.array([0, 1, 2]))
    assert masks.shape == (3, SIZE, SIZE) and masks.sum((1, 2)).tolist() == [64, 48, 0]
    assert masks[0, 4:12, 4:12].all() and masks[1, :6, :8].all()


def test_the_thresholds_are_the_papers():
    assert THRESHOLDS == (0.3, 0.5, 0.7)


def test_logits_that_are_the_labels_have_an_area_of_one():
    labels = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 0, 1]], np.uint8)
    study = study_of(labels=labels)
    truth = torch.from_numpy(labels[study.test]).float()
    scores = score_classification(truth, study)
    assert scores["AUROC"] == 1.0
    assert scores["by class"]["AUROC"]["A"] == scores["by class"]["AUROC"]["B"] == 1.0
    assert math.isnan(scores["by class"]["AUROC"]["C"]), "every image has C"
    assert score_classification(-truth, study)["AUROC"] == 0.0
    assert score_classification(torch.zeros(3, 3), study)["AUROC"] == 0.5


def test_the_mean_area_is_over_the_classes_where_it_is_defined():
    labels = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 0, 1]], np.uint8)
    study = study_of(labels=labels)
    logits = torch.from_numpy(labels[study.test]).float()
    logits[:, 1] *= -1
    assert score_classification(logits, study)["AUROC"] == 0.5
