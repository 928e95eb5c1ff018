"""Aligned images to train on, and how well they are aligned."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from cxrtut.experiments.alignment import (
    AlignedLoader,
    composed,
    score_alignment,
    spread_of_poses,
)
from cxrtut.experiments.label_study import LabelStudy, phantom_labels
from torch import nn

from cxrtut.data.loader import Loader
from cxrtut.data.phantom.frame import alignment_theta, canonical_pose
from cxrtut.data.store import ArrayStore
from cxrtut.engine.task import Data
from cxrtut.nn.spatial_transformer import five_parameter_matrix, warp
from cxrtut.papers.disease_masks import SMOKE, align, anchor_image, make_aligner, smooth
from cxrtut.randomness import shuffled

TINY = replace(SMOKE, size=32, cells=8, classifier_width=4)


class Still(nn.Module):
    """Leaves every image as it is."""

    def forward(self, image):
        return torch.eye(2, 3).expand(len(image), 2, 3).contiguous()


class ByTurns(nn.Module):
    """A turn, a zoom and a shift that depend on the image's mean."""

    def forward(self, image):
        z = image.mean((1, 2, 3))
        return five_parameter_matrix(1 + 0.3 * z, 1 - 0.2 * z, 0.2 * z, 0.1 - z / 9, 0.4 * z)


class Knowing(nn.Module):
    """Aligns by the true poses, image after image."""

    def __init__(self, pose):
        super().__init__()
        self.theta, self.given = alignment_theta(pose), 0

    def forward(self, image):
        self.given += len(image)
        return self.theta[self.given - len(image) : self.given]


@pytest.fixture(scope="module")
def study():
    return phantom_labels(32, n=120)


@pytest.fixture(scope="module")
def feeds(study):
    return study.feed(), AlignedLoader(study.feed(), ByTurns())


def poses(*shifts):
    """Canonical poses, moved by so many cm."""
    pose = canonical_pose(len(shifts))
    pose[:, :, 2] += torch.tensor(shifts)
    return pose


def test_images_are_those_of_the_aligner_in_the_order_of_the_feed(feeds):
    plain, aligned = (feed.batches(batch_size=8, seed=4) for feed in feeds)
    for one, other in islice(zip(plain, aligned, strict=False), 3):
        expected, matrix = align(ByTurns(), one.image)
        assert torch.equal(other.image, expected) and torch.equal(other.index, one.index)
        assert torch.equal(other.label_vector, one.label_vector)
        assert torch.equal(expected, warp(one.image, matrix).clamp(-1, 1))
        assert (other.image - one.image).abs().mean() > 0.05


def test_boxes_masks_and_healthy_twins_stay_behind(feeds):
    plain, aligned = (next(feed.batches(batch_size=32, seed=0)) for feed in feeds)
    assert (plain.box_label >= 0).any() and plain.mask is not None and plain.healthy is not None
    assert aligned.boxes.shape == (32, 0, 4) and aligned.box_label.shape == (32, 0)
    assert aligned.mask is None and aligned.healthy is None
    assert all(len(boxes) == 0 for boxes, _ in (aligned.boxes_of(i) for i in range(32)))


def test_a_step_has_the_same_images_whenever_it_is_asked_for(feeds):
    _, aligned = feeds
    whole = list(islice(aligned.batches(batch_size=16, seed=2), 6))
    for start in (0, 3, 5):
        again = next(aligned.batches(batch_size=16, seed=2, start=start))
        assert torch.equal(again.image, whole[start].image)
    other = next(aligned.batches(batch_size=16, seed=3))
    assert not torch.equal(other.index, whole[0].index)


def test_ranks_share_a_batch(feeds):
    _, aligned = feeds
    whole = next(aligned.batches(batch_size=8, seed=0, start=2))
    parts = [
        next(aligned.batches(batch_size=8, seed=0, start=2, rank=rank, ranks=2)) for rank in (0, 1)
    ]
    assert [len(part) for part in parts] == [4, 4]
    assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
    assert torch.allclose(torch.cat([part.image for part in parts]), whole.image, atol=1e-6)


def test_it_is_a_feed_as_long_as_the_other(feeds):
    plain, aligned = feeds
    assert isinstance(aligned, Data)
    assert aligned.steps_per_epoch(16) == plain.steps_per_epoch(16) > 1


def test_training_on_aligned_images_does_not_move_the_aligner(study):
    aligner = make_aligner(TINY, seed=0)
    nn.init.normal_(aligner.head[2].weight, std=0.1)
    aligner.train()
    before = {name: value.clone() for name, value in aligner.state_dict().items()}
    batch = next(AlignedLoader(study.feed(), aligner).batches(batch_size=16, seed=0))
    assert not batch.image.requires_grad and aligner.training
    assert all(torch.equal(value, before[name]) for name, value in aligner.state_dict().items())


def test_equal_poses_have_no_spread():
    assert spread_of_poses(canonical_pose(5)) == 0
    assert spread_of_poses(poses((2.0, -3.0), (2.0, -3.0))) == 0


def test_two_poses_a_centimetre_apart_lie_half_a_centimetre_from_their_mean():
    assert spread_of_poses(poses((0.0, 0.0), (1.0, 0.0))) == pytest.approx(0.5, abs=1e-6)
    assert spread_of_poses(poses((0.0, 0.0), (0.0, -1.0))) == pytest.approx(0.5, abs=1e-6)
    # 3 and 4 cm: 5 cm apart
    assert spread_of_poses(poses((0.0, 0.0), (3.0, 4.0))) == pytest.approx(2.5, abs=1e-6)
    # -1, 0, 1: the mean square is 2/3
    three = spread_of_poses(poses((-1.0, 0.0), (0.0, 0.0), (1.0, 0.0)))
    assert three == pytest.approx((2 / 3) ** 0.5, abs=1e-6)


def test_two_zooms_differ_by_how_far_points_of_the_frame_move():
    pose = canonical_pose(2)
    pose[1, :, :2] *= 1.1  # each point moves by a tenth of its distance from the centre
    at = torch.linspace(-0.8, 0.8, 9).double()
    distance = 18.5 * (2 * at.square().mean()).sqrt()
    assert pose[0, 0, 0] == 18.5
    assert spread_of_poses(pose) == pytest.approx(0.1 * distance.item() / 2, rel=1e-5)


def test_where_the_frame_lies_in_the_patient_does_not_matter(study):
    true = study.poses(study.test)
    moved = true.clone()
    moved[:, :, 2] += torch.tensor([5.0, -7.0])
    assert spread_of_poses(moved) == pytest.approx(spread_of_poses(true), rel=1e-5)
    assert spread_of_poses(true) > 1


def test_a_pose_and_an_identity_are_the_pose(study):
    true = study.poses(study.test)
    assert torch.equal(composed(true, Still()(true)), true)


def test_a_pose_and_a_warp_say_where_a_point_of_the_warped_image_lies():
    pose, matrix = (
        study_pose(),
        five_parameter_matrix(*torch.tensor([[0.8], [1.2], [0.3], [-0.1], [0.5]])),
    )
    point = torch.tensor([0.25, -0.5, 1.0]).double()
    in_image = matrix[0].double() @ point
    expected = pose[0].double() @ torch.cat([in_image, torch.ones(1).double()])
    found = composed(pose, matrix)[0].double() @ point
    assert torch.allclose(found, expected, atol=1e-5)


def study_pose():
    return torch.tensor([[[17.0, -3.0, 1.5], [2.0, 19.0, -4.0]]])


def test_true_poses_align_perfectly_in_the_canonical_frame(study):
    true = study.poses(study.test)
    moved = composed(true, alignment_theta(true))
    assert spread_of_poses(true) > 1 > 1e-3 > spread_of_poses(moved)
    assert torch.allclose(moved, canonical_pose(len(moved)), atol=1e-3)


def test_aligned_by_their_true_poses_images_differ_less(study):
    anchor = anchor_image(align(Knowing(study.poses(study.normal)), normal(study))[0])
    aligner = Knowing(study.poses(study.test))
    scores = score_alignment(aligner, anchor, study, TINY, "cpu")
    assert scores["pose error before"] == pytest.approx(spread_of_poses(study.poses(study.test)))
    assert scores["pose error after"] < 1e-3 < 1 < scores["pose error before"]
    assert scores["anchor distance after"] < 0.9 * scores["anchor distance before"]


def normal(study):
    return study.store.batch(study.normal).image


def test_nothing_is_gained_where_nothing_moves(study):
    anchor = anchor_image(normal(study))
    scores = score_alignment(Still(), anchor, study, TINY, "cpu")
    assert scores["pose error after"] == scores["pose error before"]
    assert scores["anchor distance after"] == pytest.approx(scores["anchor distance before"], 1e-4)
    images = study.store.batch(study.test).image
    by_hand = (anchor - smooth(images, TINY.cells)).abs().mean()
    assert scores["anchor distance before"] == pytest.approx(by_hand.item(), rel=1e-5)


class Zooming(nn.Module):
    """Shows the middle half of every image, and aligns nothing."""

    def forward(self, image):
        return (torch.eye(2, 3) / 2).expand(len(image), 2, 3).contiguous()


def test_zooming_in_is_no_alignment(study):
    # all poses alike but for shifts, so that nothing else changes
    pose = canonical_pose(len(study.test))
    pose[:, 0, 2] += torch.linspace(-3, 3, len(pose))
    shifted = replace(study, poses=lambda rows: pose)
    scores = score_alignment(Zooming(), anchor_image(normal(study)), shifted, TINY, "cpu")
    assert scores["frame width before"] == pytest.approx(37, rel=1e-3)
    assert scores["frame width after"] == pytest.approx(18.5, rel=1e-3)
    assert scores["pose error after"] == pytest.approx(scores["pose error before"], rel=1e-4)
    assert scores["misplaced after"] == pytest.approx(2 * scores["misplaced before"], rel=1e-3)


def test_an_image_that_is_the_anchor_is_at_no_distance_from_it():
    store = ArrayStore.from_arrays(
        np.full((4, 1, 32, 32), 200, np.uint8), np.zeros((4, 1), np.uint8), ("A",)
    )
    flat = LabelStudy("flat", store, np.arange(2), np.arange(2, 4))
    anchor = anchor_image(store.batch(flat.train).image)
    scores = score_alignment(Still(), anchor, flat, TINY, "cpu")
    assert set(scores) == {"anchor distance before", "anchor distance after"}, "no pose is known"
    assert all(value == pytest.approx(0, abs=1e-6) for value in scores.values())
    black = score_alignment(Still(), torch.full_like(anchor, -1), flat, TINY, "cpu")
    assert black["anchor distance before"] == pytest.approx(400 / 255, rel=1e-5)


def test_at_most_so_many_poses_are_asked_for(study, monkeypatch):
    asked = []
    monkeypatch.setattr("cxrtut.experiments.alignment.POSED", 5)
    counted = replace(study, poses=lambda rows: (asked.append(rows), study.poses(rows))[1])
    scores = score_alignment(Still(), anchor_image(normal(study)), counted, TINY, "cpu")
    assert [rows.tolist() for rows in asked] == [study.test[:5].tolist()]
    assert scores["pose error before"] == spread_of_poses(study.poses(study.test[:5]))


def test_a_feed_that_is_too_short_is_refused():
    store = ArrayStore.from_arrays(
        np.zeros((4, 1, 8, 8), np.uint8), np.zeros((4, 1), np.uint8), ("A",)
    )
    feed = AlignedLoader(Loader(store, shuffled(torch.arange(4))), Still())
    with pytest.raises(ValueError, match="expected an epoch of at least one batch of 8, got 4"):
        next(feed.batches(batch_size=8, seed=0))
