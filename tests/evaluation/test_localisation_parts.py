"""Localisation part by part: which images are asked for, and where diseases are."""

import numpy as np
import pytest
import torch
from evaluation.localised import CUT, LARGEST, SIZE, certain, maps_of, scored, study_of, system_of

from cxrtut.evaluation import localisation
from cxrtut.evaluation.localisation import (
    CHESTXRAY8_THRESHOLDS,
    HEADLINE,
    IOU_THRESHOLDS,
    accuracies_at,
    localisation_accuracy,
    occurrence,
    predicted_boxes,
    true_masks,
)
from cxrtut.nn.spatial_transformer import five_parameter_matrix, warp


def test_perfect_maps_find_every_box_and_nothing_else(simulated):
    maps = maps_of(simulated, 32)
    scores = scored(maps, certain(simulated), simulated)
    assert scores["pairs"] == len(simulated.pairs()[0]) > 20
    assert scores["loc_acc@0.3"] > 0.95 and scores["loc_acc@0.5"] > 0.8


def smooth_maps(study, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = len(study.test), len(study.store.classes), 8, 8
    noise = torch.randn(shape, generator=generator)
    true = torch.nn.functional.adaptive_avg_pool2d(maps_of(study, 32), 8)
    return true + 0.15 * noise


def moved_frames(n):
    """n matrices: zoomed out, turned and shifted, so that aligned images show the whole image."""
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(5, n, generator=generator) - 0.5
    return five_parameter_matrix(
        1.35 + 0.1 * u[0], 1.35 + 0.1 * u[1], 0.3 * u[2].sign(), 0.3 * u[3].sign(), 0.3 * u[4]
    )


def in_parts_of(monkeypatch, size):
    parts = localisation.row_parts
    monkeypatch.setattr(localisation, "row_parts", lambda rows, most=256: parts(rows, size))


def test_images_are_asked_for_in_parts_and_each_pair_gets_its_own_map(simulated, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    n = len(simulated.test)
    maps = torch.rand(n, len(simulated.classes), 8, 8, generator=generator)
    system = system_of(maps, certain(simulated), simulated, moved_frames(n))
    whole = localisation_accuracy(system, simulated, "test")
    (boxes,) = predicted_boxes(system, simulated, *simulated.pairs(), LARGEST)
    in_parts_of(monkeypatch, 3)
    parts = localisation_accuracy(system, simulated, "test")
    (others,) = predicted_boxes(system, simulated, *simulated.pairs(), LARGEST)
    assert parts == pytest.approx(whole, nan_ok=True)
    assert len(boxes) == len(others) == len(simulated.pairs()[0])
    assert all(torch.equal(a, b) for a, b in zip(boxes, others, strict=True))


def test_accuracies_at_a_threshold_are_those_of_the_scores(simulated):
    maps, matrix = smooth_maps(simulated), moved_frames(len(simulated.test))
    for there in (None, matrix):
        system = system_of(maps, certain(simulated), simulated, there)
        for cut in (0.4, CUT):
            scores = localisation_accuracy(system, simulated, "test", threshold=cut)
            found = accuracies_at(system, simulated, cut)
            assert found == [scores[f"loc_acc@{t}"] for t in IOU_THRESHOLDS]
            other = accuracies_at(system, simulated, cut, (0.7, 0.0, 0.3))
            assert [other[0], other[2]] == [scores["loc_acc@0.7"], scores["loc_acc@0.3"]]
            assert other[1] >= scores["loc_acc@0.3"]


def test_occurrence_is_the_share_of_the_images_with_a_disease_that_have_it_there(monkeypatch):
    study = study_of(
        (1, 0, 0, 0, 8, 8), (2, 0, 0, 8, 8, 16), (3, 0, 0, 0, 16, 8), (3, 1, 8, 8, 12, 16),
        (0, 0, 0, 0, 16, 16),
    )  # fmt: skip
    expected = [[[2 / 3, 1 / 3], [1 / 3, 0]], [[0, 0], [0, 0.5]], [[0, 0], [0, 0]]]
    assert torch.allclose(occurrence(study, 2), torch.tensor(expected))
    in_parts_of(monkeypatch, 3)
    assert torch.allclose(occurrence(study, 2), torch.tensor(expected))
    one, zero = torch.ones(4), torch.zeros(4)
    right = five_parameter_matrix(one, one, zero + 1.0, zero, zero)  # looks half an image right
    seen = []

    def moving(inside, rows):
        seen.extend(rows.tolist())
        return warp(inside, right[: len(rows)], outside=0.0)

    moved = occurrence(study, 2, moving)
    assert seen == study.pairs()[0].tolist()
    assert torch.allclose(moved[0], torch.tensor([[1 / 3, 0], [0, 0]]), atol=0.02)
    assert torch.allclose(moved[1], torch.tensor([[0, 0], [0.5, 0]]), atol=0.05)


def test_true_masks_are_the_boxes_of_the_class(four_boxes):
    masks = true_masks(four_boxes, np.array([2, 3, 1]), np.array([0, 1, 2]))
    assert masks.shape == (3, SIZE, SIZE) and masks.sum((1, 2)).tolist() == [64, 48, 0]
    assert masks[0, 4:12, 4:12].all() and masks[1, :6, :8].all()


def test_the_thresholds_are_the_papers():
    assert IOU_THRESHOLDS == (0.3, 0.5, 0.7)
    assert HEADLINE == CUT and CHESTXRAY8_THRESHOLDS == (60 / 255, 180 / 255)
