"""Heat maps against outlines, pixel by pixel, of any system."""

import numpy as np
import pytest
import torch
from evaluation.answers import Answers, split_by_hand

from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.device_store import pack_masks
from cxrtut.data.store import ArrayStore
from cxrtut.evaluation.pixels import BETTER, pixel_localisation, pixel_measure, truth_of
from cxrtut.localize.heatmap import normalise, smooth_heatmap
from cxrtut.metrics.intervals import bootstrap_interval
from cxrtut.metrics.pixels import (
    image_average_precision,
    pixel_average_precision,
    pixel_prevalence,
)

SIZE, N = 12, 16


def truths():
    """Of every other image a disc or two, others empty."""
    rng = np.random.default_rng(0)
    masks = np.zeros((N, 1, SIZE, SIZE), bool)
    for i in range(1, N, 2):
        y, x = rng.integers(2, 8, 2)
        masks[i, 0, y : y + 3, x : x + rng.integers(2, 5)] = True
    return masks


def split_of(masks=None, boxes=()):
    labels = (np.arange(N) % 2).astype(np.uint8)[:, None]
    store = ArrayStore.from_arrays(
        np.zeros((N, 1, SIZE, SIZE), np.uint8), labels, ("A",), boxes_rows=boxes,
        masks=None if masks is None else pack_masks(masks),
    )  # fmt: skip
    return split_by_hand(store, range(4), range(4, N))


def noise(n=N - 4, k=1):
    return torch.rand(n, k, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_numbers_are_those_of_the_metrics_on_the_outlined_images():
    masks, heat = truths(), noise()
    split = split_of(masks)
    found = pixel_localisation(Answers(split, heatmap=heat), split, "test")
    maps, truth = heat[1::2, 0], torch.from_numpy(masks[5::2, 0])
    unit = normalise(maps)
    interval = bootstrap_interval(image_average_precision(unit, truth).float(), 0)
    assert found == pytest.approx(
        {
            "pixel_ap": pixel_average_precision(unit, truth),
            "pixel_ap_global_norm": pixel_average_precision(maps, truth),
            "pixel_ap_smoothed": pixel_average_precision(normalise(smooth_heatmap(maps)), truth),
            "pixel_ap_image": interval.mean,
            "pixel_ap_image_low": interval.low,
            "pixel_ap_image_high": interval.high,
            "chance": pixel_prevalence(truth),
        }
    )
    assert set(found) == set(BETTER)


def test_the_truth_as_heat_is_perfect_whatever_its_scale():
    masks = truths()
    split = split_of(masks)
    scale = torch.arange(1.0, N - 3)[:, None, None, None]
    heat = torch.from_numpy(masks[4:]).float() * scale
    found = pixel_localisation(Answers(split, heatmap=heat), split, "test")
    assert found["pixel_ap"] == found["pixel_ap_image"] == 1.0
    assert 0 < found["chance"] < 0.2


def test_where_there_are_no_masks_the_boxes_are_the_truth():
    boxes = [(5, 0, 1.0, 2.0, 5.0, 6.0, "x"), (9, 0, 4.0, 4.0, 8.0, 8.0, "x")]
    split = split_of(boxes=boxes)
    truth = truth_of(split, np.array([5, 9]), torch.device("cpu"))
    inside = [boxes_to_mask(torch.tensor([box[2:6]]), SIZE, SIZE) for box in boxes]
    assert torch.equal(truth, torch.stack(inside))
    system = Answers(split, heatmap=noise())
    found = pixel_localisation(system, split, "test")
    assert sum(system.asked) == 2
    maps = noise()[[1, 5], 0]
    assert found["pixel_ap"] == pytest.approx(pixel_average_precision(normalise(maps), truth))


def test_of_several_classes_the_sum_of_the_splits_is_taken():
    masks, heat = truths(), noise(k=3)
    split = split_of(masks)
    truth = torch.from_numpy(masks[5::2, 0])
    for classes, maps in ((("B", "A", "C"), heat[:, 1]), (("X", "Y", "Z"), heat.sum(1))):
        system = Answers(split, heatmap=heat, classes=classes)
        found = pixel_localisation(system, split, "test")["pixel_ap_global_norm"]
        assert found == pytest.approx(pixel_average_precision(maps[1::2], truth))


def test_without_heat_maps_or_outlines_nothing_is_said():
    split = split_of(truths())
    assert pixel_localisation(Answers(split, scores=torch.rand(12, 1)), split, "test") == {}
    bare = split_of()
    system = Answers(bare, heatmap=noise())
    assert pixel_localisation(system, bare, "test") == {} and system.asked == []


def test_the_side_and_so_many_images_as_asked_for_are_scored():
    split = split_of(truths())
    system = Answers(split, heatmap=noise(4), rows=split.train)
    assert pixel_localisation(system, split, "train")["pixel_ap"] > 0 and system.asked == [2]
    system, measure = Answers(split, heatmap=noise()), pixel_measure("test", at_most=3)
    assert set(measure.measure(system, split, measure.side)) == set(measure.better)
    assert system.asked == [3]
