"""Regions of probable places against true boxes, pixel by pixel."""

from functools import partial

import numpy as np
import pytest
import torch
from evaluation.localised import Looking, study_of
from torch import nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.sample import Prediction
from cxrtut.data.split import row_parts
from cxrtut.evaluation import region_rule
from cxrtut.evaluation.region_rule import BETTER, region_accuracy, region_measure
from cxrtut.localize.heatmap import resize_heatmap
from cxrtut.nn.spatial_transformer import warp

SIZE = 16


class Probable:
    """Says of each row what a test chose."""

    channels, size = 1, SIZE

    def __init__(self, split, maps):
        self.classes, self.networks = split.classes, {}
        self.maps = dict(zip(split.test.tolist(), maps, strict=True))
        self.aligner = None

    def rows(self, images):
        from evaluation.answers import rows_of

        return rows_of(images)

    def probability_maps(self, images):
        return torch.stack([self.maps[row] for row in self.rows(images)])

    def predict(self, images):
        return Prediction(heatmap=self.probability_maps(images))


@pytest.fixture
def split():
    """A has two pairs, one of them of two boxes; B has one; C none."""
    return study_of(
        (1, 0, 2.0, 2.0, 10.0, 10.0), (2, 0, 0.0, 0.0, 4.0, 16.0), (2, 0, 8.0, 0.0, 12.0, 16.0),
        (3, 1, 4.0, 4.0, 12.0, 12.0),
    )  # fmt: skip


def expected(split, maps, t):
    by_class = {}
    for row, k in zip(*split.pairs("test"), strict=True):
        place = split.test.tolist().index(row)
        large = resize_heatmap(maps[place, k][None], (SIZE, SIZE))[0].numpy()
        truth = boxes_to_mask(split.boxes_of(int(row), int(k)), SIZE, SIZE).numpy()
        region = large > 0.5
        iou = (region & truth).sum() / (region | truth).sum()
        by_class.setdefault(int(k), []).append(iou >= t)
    return np.mean([np.mean(hits) for hits in by_class.values()])


@pytest.mark.parametrize("seed", range(3))
def test_all_probable_places_are_compared_with_all_boxes(split, seed):
    draw = torch.Generator().manual_seed(seed)
    maps = torch.zeros(3, 3, SIZE, SIZE)
    for i, row in enumerate(split.test):
        for k in range(3):
            maps[i, k] = boxes_to_mask(split.boxes_of(int(row), k), SIZE, SIZE).float()
    maps = (0.75 * maps + 0.6 * torch.rand(3, 3, SIZE, SIZE, generator=draw)).clamp(0, 1)
    maps = torch.nn.functional.avg_pool2d(maps, 2)  # on a grid of 8 x 8 places
    found = region_accuracy(Probable(split, maps), split, "test")
    assert set(found) == {f"region_acc@{t}" for t in (0.3, 0.5, 0.7)}
    for t in (0.3, 0.5, 0.7):
        assert found[f"region_acc@{t}"] == pytest.approx(expected(split, maps, t))


def test_an_iou_of_exactly_t_is_a_hit_and_a_probability_of_a_half_is_none(split):
    maps = torch.zeros(3, 3, SIZE, SIZE)
    place = split.test.tolist().index(1)
    maps[place, 0, 2:10, 2:6] = 0.51  # half of the box
    maps[place, 0, 2:10, 6:10] = 0.5
    found = region_accuracy(Probable(split, maps), split, "test")
    # Of A one of two pairs, of B none
    assert found["region_acc@0.5"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["region_acc@0.7"] == 0.0


def test_what_is_probable_beside_the_boxes_counts_against_them(split):
    found = region_accuracy(Probable(split, torch.ones(3, 3, 4, 4)), split, "test")
    # Boxes are a quarter of the image, of row 2 a half
    assert [found[f"region_acc@{t}"] for t in (0.3, 0.5, 0.7)] == [0.25, 0.25, 0.0]


def test_places_are_enlarged_bilinearly():
    split = study_of((1, 0, 5.0, 5.0, 7.0, 7.0), n=2, classes=("A",))
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 1] = 0.9  # above one half in the middle of its 4 x 4 pixels alone
    assert region_accuracy(Probable(split, maps), split, "test")["region_acc@0.7"] == 1.0


def test_each_class_of_an_image_has_its_own_map_in_all_parts(monkeypatch):
    boxes = [(row, k, 4.0 * k, 0.0, 4.0 * k + 4, 16.0) for row in (1, 2, 3) for k in range(3)]
    split = study_of(*boxes)
    maps = truth_of(split)
    maps[0, 1] = 0.0
    monkeypatch.setattr(region_rule, "row_parts", partial(row_parts, size=2))
    found = region_accuracy(Probable(split, maps), split, "test")
    assert list(found.values()) == pytest.approx([(1 + 2 / 3 + 1) / 3] * 3)


def test_nothing_probable_overlaps_nothing(split):
    found = region_accuracy(Probable(split, torch.zeros(3, 3, 4, 4)), split, "test")
    assert set(found.values()) == {0.0}


class Behind(Probable):
    """Says of the rows that an aligner has just seen what a test chose."""

    def rows(self, images):
        seen, self.aligner.seen = self.aligner.seen, []
        return seen


def truth_of(split):
    truth = torch.zeros(3, 3, SIZE, SIZE)
    for i, row in enumerate(split.test):
        for k in range(3):
            truth[i, k] = boxes_to_mask(split.boxes_of(int(row), k), SIZE, SIZE).float()
    return truth


def behind(split, maps, matrix):
    inner, place = Behind(split, maps), {int(row): i for i, row in enumerate(split.test)}
    inner.aligner = Looking(place, matrix.expand(3, 2, 3))
    return Aligned(inner, inner.aligner, torch.zeros(1, 1, SIZE, SIZE), grid_size=8)


def test_behind_an_alignment_both_frames_are_scored(split):
    # Looks a quarter of the image further to the right
    matrix = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    moved = warp(truth_of(split), matrix.expand(3, 2, 3), outside=0.0)  # what a perfect one sees
    found = region_accuracy(behind(split, moved, matrix), split, "test")
    assert set(found) == set(BETTER)
    assert {found[f"region_acc_aligned@{t}"] for t in (0.3, 0.5, 0.7)} == {1.0}
    # What the aligned image does not show, the left quarter, cannot be found in the image: of row 1
    # there is .75 of its box, of row 2 one of two boxes, of row 3 all
    assert found["region_acc@0.7"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["region_acc@0.5"] == found["region_acc@0.3"] == 1.0


def test_a_probability_of_a_half_is_none_in_the_aligned_frame_either(split):
    same = torch.eye(2, 3)[None]
    maps = torch.where(truth_of(split) > 0, 0.75, 0.5)
    found = region_accuracy(behind(split, maps, same), split, "test")
    assert set(found) == set(BETTER) and set(found.values()) == {1.0}


@pytest.mark.parametrize("n", [2, 4])
def test_maps_of_other_classes_are_refused(split, n):
    with pytest.raises(ValueError, match=f"expected a map for each of 3 classes, got {n}"):
        region_accuracy(Probable(split, torch.zeros(3, n, 4, 4)), split, "test")


def test_maps_that_are_no_probabilities_and_splits_without_boxes_have_no_number(split):
    class Heat:
        classes, size, channels = split.classes, SIZE, 1
        networks: dict[str, nn.Module] = {}  # noqa: RUF012

        def predict(self, images):
            return Prediction(heatmap=torch.zeros(len(images), 3, SIZE, SIZE))

    measure = region_measure("test")
    assert measure.measure(Heat(), split, "test") == {}
    none = study_of(n=4)
    assert measure.measure(Probable(none, torch.zeros(3, 3, 4, 4)), none, "test") == {}
