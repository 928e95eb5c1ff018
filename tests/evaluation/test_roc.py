"""How heat maps rank pixels and images, of any system."""

import numpy as np
import pytest
import torch
from evaluation.answers import Answers, split_by_hand
from sklearn.metrics import roc_auc_score

from cxrtut.data.device_store import pack_masks
from cxrtut.data.store import ArrayStore
from cxrtut.evaluation.roc import BETTER, roc, roc_measure
from cxrtut.metrics.intervals import bootstrap_interval
from cxrtut.metrics.pixels import image_auroc

SIZE, N = 10, 23


def truths():
    """Every third image has a patch; of other sizes each."""
    rng = np.random.default_rng(0)
    masks = np.zeros((N, 1, SIZE, SIZE), bool)
    for i in range(1, N, 3):
        y, x = rng.integers(1, 6, 2)
        masks[i, 0, y : y + 3, x : x + rng.integers(2, 5)] = True
    return masks


def split_of(masks, labels=None, boxes=()):
    labels = np.arange(N) % 3 == 1 if labels is None else labels
    store = ArrayStore.from_arrays(
        np.zeros((N, 1, SIZE, SIZE), np.uint8), np.asarray(labels, np.uint8)[:, None], ("A",),
        masks=None if masks is None else pack_masks(masks), boxes_rows=boxes,
    )  # fmt: skip
    return split_by_hand(store, range(4), range(4, N))


def noise(k=1):
    """Heat of a few levels, each image of another range."""
    heat = torch.randint(0, 9, (N - 4, k, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    scale = 1.0 + torch.arange(N - 4) * 8 % 19
    return heat * scale[:, None, None, None] + 3


def unit(map_):
    return (map_ - map_.min()) / (map_.max() - map_.min())


def test_the_areas_are_those_of_scikit_learn():
    masks, heat = truths(), noise()
    split = split_of(masks)
    found = roc(Answers(split, heatmap=heat), split, "test")
    ill = masks[4:].any((1, 2, 3))
    scaled = np.stack([unit(m) for m in heat[ill, 0].numpy()])
    truth = masks[4:][ill, 0]
    pooled = roc_auc_score(truth.ravel(), scaled.ravel())
    each = [roc_auc_score(t.ravel(), s.ravel()) for t, s in zip(truth, scaled, strict=True)]
    assert found["pixel_auroc"] == pytest.approx(pooled, abs=1e-9)
    assert found["pixel_auroc_image"] == pytest.approx(np.mean(each), abs=1e-6)
    largest = roc_auc_score(ill, heat.amax((1, 2, 3)).numpy())
    assert found["auroc_max_heat"] == pytest.approx(largest, abs=1e-9) and largest != 0.5
    assert set(found) == set(BETTER)


def test_the_interval_is_that_of_the_means_of_images():
    masks, heat = truths(), noise()
    split = split_of(masks)
    found = roc(Answers(split, heatmap=heat), split, "test")
    ill = masks[4:].any((1, 2, 3))
    areas = image_auroc(heat[ill, 0], torch.from_numpy(masks[4:][ill, 0]))
    wanted = bootstrap_interval(areas.float(), 0)
    assert found["pixel_auroc_image_low"] == pytest.approx(wanted.low, abs=1e-6)
    assert found["pixel_auroc_image_high"] == pytest.approx(wanted.high, abs=1e-6)
    assert wanted.low < found["pixel_auroc_image"] < wanted.high


def test_the_truth_as_heat_is_perfect_and_a_constant_map_is_chance():
    masks = truths()
    split = split_of(masks)
    heat = torch.from_numpy(masks[4:]).float() * torch.arange(1.0, N - 3)[:, None, None, None]
    found = roc(Answers(split, heatmap=heat), split, "test")
    assert found["pixel_auroc"] == found["pixel_auroc_image"] == found["auroc_max_heat"] == 1
    found = roc(Answers(split, heatmap=torch.ones_like(heat)), split, "test")
    assert found["pixel_auroc"] == found["pixel_auroc_image"] == found["auroc_max_heat"] == 0.5


def test_the_scale_of_an_image_matters_to_the_ranks_of_images_alone():
    masks, heat = truths(), noise()
    split = split_of(masks)
    first = roc(Answers(split, heatmap=heat), split, "test")
    scale = torch.arange(N - 4.0, 0, -1)[:, None, None, None] ** 2
    again = roc(Answers(split, heatmap=heat * scale), split, "test")
    assert again["pixel_auroc"] == pytest.approx(first["pixel_auroc"], abs=1e-6)
    assert again["pixel_auroc_image"] == pytest.approx(first["pixel_auroc_image"], abs=1e-6)
    assert abs(again["auroc_max_heat"] - first["auroc_max_heat"]) > 0.01


def test_images_are_ranked_by_their_hottest_pixel_and_not_by_their_mean():
    masks = truths()
    ill = torch.from_numpy(masks[4:].any((1, 2, 3)))
    heat = torch.where(ill[:, None, None, None], 0.0, 0.5).expand(-1, 1, SIZE, SIZE).clone()
    heat[ill, 0, 0, 0] = 1
    split = split_of(masks)
    assert roc(Answers(split, heatmap=heat), split, "test")["auroc_max_heat"] == 1


def test_where_there_are_no_masks_the_boxes_are_the_truth_and_images_without_count_nowhere():
    split = split_of(
        None, boxes=[(7, 0, 1.0, 2.0, 5.0, 6.0, "x"), (13, 0, 4.0, 4.0, 8.0, 9.0, "x")]
    )
    heat = torch.full((N - 4, 1, SIZE, SIZE), 0.5)
    heat[3, 0, 2:6, 1:5] = 1
    heat[9, 0, 4:9, 4:8] = 1
    heat[6, 0, 0, 0] = 9  # abnormal, but nobody has said where
    found = roc(Answers(split, heatmap=heat), split, "test")
    assert found["pixel_auroc"] == found["auroc_max_heat"] == 1


def test_of_several_classes_the_sum_of_the_splits_is_ranked():
    masks, heat = truths(), noise(k=3)
    split = split_of(masks)
    for classes, chosen in (
        (("B", "A", "C"), heat[:, 1:2]),
        (("X", "Y", "Z"), heat.sum(1)[:, None]),
    ):
        found = roc(Answers(split, heatmap=heat, classes=classes), split, "test")
        assert found == roc(Answers(split, heatmap=chosen), split, "test")


def test_without_heat_maps_or_outlines_nothing_is_said():
    split = split_of(truths())
    assert roc(Answers(split, scores=torch.rand(N - 4, 1)), split, "test") == {}
    bare = split_of(None)
    system = Answers(bare, heatmap=noise())
    assert roc(system, bare, "test") == {} and system.asked == []


def test_without_normal_images_the_images_are_not_ranked():
    split = split_of(np.ones((N, 1, SIZE, SIZE), bool) & (np.arange(SIZE) > 4), np.ones(N))
    found = roc(Answers(split, heatmap=noise()), split, "test")
    assert set(found) == set(BETTER) - {"auroc_max_heat"}


def test_at_most_so_many_images_of_each_kind_and_those_of_the_side_are_asked_for():
    split, measure = split_of(truths()), roc_measure("test", at_most=3)
    system = Answers(split, heatmap=noise())
    assert set(measure.measure(system, split, measure.side)) == set(measure.better)
    assert system.asked == [3, 3]
    system = Answers(split, heatmap=noise()[:4], rows=split.train)
    assert roc(system, split, "train")["pixel_auroc"] > 0 and system.asked == [1, 3]
