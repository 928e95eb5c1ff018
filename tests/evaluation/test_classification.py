"""AUROC of any system, and normal images told from abnormal ones."""

import math

import numpy as np
import pytest
import torch
from evaluation.answers import Answers, split_by_hand

from cxrtut.data.store import ArrayStore
from cxrtut.evaluation.classification import (
    auroc_measure,
    disease_auroc,
    normal_or_not,
    normal_or_not_measure,
)
from cxrtut.metrics.classification import auroc, auroc_by_class

LABELS = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 0, 1]], np.uint8)


def split_of(labels=LABELS, boxes=(), test=(3, 2, 1)):
    images = np.zeros((len(labels), 1, 8, 8), np.uint8)
    names = [*"ABCD"][: labels.shape[1]]
    store = ArrayStore.from_arrays(images, labels, names, boxes_rows=boxes)
    return split_by_hand(store, [0], test)


def normal_and_abnormal(n=20):
    """Every other image is abnormal; of three of these nobody drew a box."""
    labels = (np.arange(n) % 2).astype(np.uint8)[:, None]
    boxes = [(i, 0, 0.0, 0.0, 4.0, 4.0, "hand") for i in range(1, n, 2) if i not in (3, 5, 7)]
    return split_of(labels, boxes, [*range(2, n)])


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_scores_that_are_the_labels_have_an_area_of_one():
    split = split_of()
    truth = torch.from_numpy(LABELS[split.test]).float()
    scores = disease_auroc(Answers(split, scores=truth), split, "test")
    assert scores["auroc"] == scores["auroc/A"] == scores["auroc/B"] == 1.0
    assert math.isnan(scores["auroc/C"]), "every image has C"
    assert disease_auroc(Answers(split, scores=1 - truth), split, "test")["auroc"] == 0.0
    assert disease_auroc(Answers(split, scores=torch.zeros(3, 3)), split, "test")["auroc"] == 0.5


def test_the_mean_area_is_over_the_classes_where_it_is_defined():
    split = split_of()
    scores = torch.from_numpy(LABELS[split.test]).float()
    scores[:, 1] = 1 - scores[:, 1]
    assert disease_auroc(Answers(split, scores=scores), split, "test")["auroc"] == 0.5


def test_areas_are_those_of_the_metric_on_the_rows_of_the_side():
    labels = np.random.default_rng(0).integers(0, 2, (30, 3)).astype(np.uint8)
    split, scores = split_of(labels, test=range(5, 30)), noise(25, 3)
    found = disease_auroc(Answers(split, scores=scores), split, "test")
    areas = auroc_by_class(scores, torch.from_numpy(labels[5:] > 0))
    assert [found[f"auroc/{name}"] for name in "ABC"] == areas.tolist()
    assert found["auroc"] == pytest.approx(areas.mean().item())


def test_without_scores_there_is_no_area():
    split = split_of()
    assert disease_auroc(Answers(split, heatmap=noise(3, 3, 8, 8)), split, "test") == {}
    assert normal_or_not(Answers(normal_and_abnormal()), normal_and_abnormal(), "test") == {}


def test_abnormal_images_with_an_outline_are_told_from_normal_ones():
    split, scores, heat = normal_and_abnormal(), noise(18, 1), noise(18, 1, 8, 8)
    found = normal_or_not(Answers(split, scores=scores, heatmap=heat), split, "test")
    rows = [row for row in split.test.tolist() if row not in (3, 5, 7)]
    places, abnormal = [row - 2 for row in rows], torch.tensor([row % 2 == 1 for row in rows])
    right = ((scores[places, 0] > 0.5) == abnormal).float().mean()
    assert found["accuracy"] == pytest.approx(right.item())
    assert found["auroc_mean_heat"] == pytest.approx(auroc(heat[places, 0].mean((1, 2)), abnormal))


def test_where_no_image_has_an_outline_all_abnormal_ones_count():
    """A reader's own films with labels alone."""
    labels = (np.arange(20) % 2).astype(np.uint8)[:, None]
    split, scores = split_of(labels, (), [*range(2, 20)]), noise(18, 1)
    found = normal_or_not(Answers(split, scores=scores), split, "test")
    right = (scores[:, 0] > 0.5) == (torch.arange(18) % 2 == 1)
    assert found == {"accuracy": pytest.approx(right.float().mean().item())}


def test_each_answer_has_its_number():
    split = normal_and_abnormal()
    only_scores = normal_or_not(Answers(split, scores=noise(18, 1)), split, "test")
    only_heat = normal_or_not(Answers(split, heatmap=noise(18, 1, 8, 8)), split, "test")
    assert set(only_scores) == {"accuracy"} and set(only_heat) == {"auroc_mean_heat"}


def test_where_one_kind_has_no_image_nothing_is_said():
    for labels, boxes in ((LABELS, [(1, 0, 0, 0, 4, 4, "x")]), (LABELS[:, :2] * 0, [])):
        split = split_of(labels, boxes)
        system = Answers(split, scores=noise(3, labels.shape[1]))
        assert normal_or_not(system, split, "test") == {} and system.asked == []
    split = split_of(LABELS[:, :2])  # ill, but nobody outlined anything
    assert normal_or_not(Answers(split, scores=noise(3, 2)), split, "test") == {}


def test_the_heat_is_of_the_splits_diseases_or_of_all_where_it_has_none_of_them():
    split, heat = normal_and_abnormal(), noise(18, 2, 8, 8)
    ill = torch.from_numpy(split.test % 2 == 1)
    asked = ~torch.from_numpy(np.isin(split.test, (3, 5, 7)))
    for classes, map_of in ((("B", "A"), heat[:, 1]), (("X", "Y"), heat.sum(1))):
        system = Answers(split, heatmap=heat, classes=classes)
        found = normal_or_not(system, split, "test")["auroc_mean_heat"]
        assert found == pytest.approx(auroc(map_of.mean((1, 2))[asked], ill[asked]))


def test_at_most_so_many_of_each_kind_are_asked_for():
    split = normal_and_abnormal()
    system = Answers(split, scores=noise(18, 1))
    measure = normal_or_not_measure("test", at_most=3)
    assert set(measure.measure(system, split, measure.side)) <= set(measure.better)
    assert sum(system.asked) == 6


def test_the_measure_is_the_function():
    split = split_of()
    system, measure = Answers(split, scores=noise(3, 3)), auroc_measure("test")
    found = measure.measure(system, split, measure.side)
    assert found == pytest.approx(disease_auroc(system, split, "test"), nan_ok=True)
    assert {name for name in found if "/" not in name} == set(measure.better) == {"auroc"}
