"""How well images are aligned: closed forms, and true poses as the aligner."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cxrtut.data.phantom.frame import alignment_theta, canonical_pose
from cxrtut.data.split import Split
from cxrtut.data.store import ArrayStore
from cxrtut.data.view import view
from cxrtut.evaluation import alignment
from cxrtut.evaluation.alignment import (
    BETTER,
    alignment_numbers,
    composed,
    field_of_view,
    spread_of_poses,
)
from cxrtut.experiments.source import Source
from cxrtut.nn.spatial_transformer import align, five_parameter_matrix
from cxrtut.papers.disease_masks import anchor_image, smooth

GRID = 8
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def study():
    return Source().all_diseases(32, 0, 120)


def numbers_of(aligner, anchor, study):
    """With the distance of the disease-masks paper."""

    def distance(images):
        return (anchor - smooth(images, GRID)).abs().mean((1, 2, 3))

    return alignment_numbers(lambda images: align(aligner, images), distance, study, "test", CPU)


class Still(nn.Module):
    """Leaves every image as it is."""

    def forward(self, image):
        return torch.eye(2, 3).expand(len(image), 2, 3).contiguous()


class Knowing(nn.Module):
    """Aligns by the true poses, image after image."""

    def __init__(self, pose):
        super().__init__()
        self.theta, self.given = alignment_theta(pose), 0

    def forward(self, image):
        self.given += len(image)
        return self.theta[self.given - len(image) : self.given]


def poses(*shifts):
    """Canonical poses, moved by so many cm."""
    pose = canonical_pose(len(shifts))
    pose[:, :, 2] += torch.tensor(shifts)
    return pose


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
    assert pose[0, 0, 0] == 18.5 and field_of_view(pose[:1]) == pytest.approx(37)
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
    anchor = anchor_image(align(Knowing(study.poses(study.normal())), normal(study))[0])
    aligner = Knowing(study.poses(study.test))
    scores = numbers_of(aligner, anchor, study)
    assert scores["pose_error_before"] == pytest.approx(spread_of_poses(study.poses(study.test)))
    assert scores["pose_error_after"] < 1e-3 < 1 < scores["pose_error_before"]
    assert scores["anchor_distance_after"] < 0.9 * scores["anchor_distance_before"]


def normal(study):
    return study.batch(study.normal()).image


def test_nothing_is_gained_where_nothing_moves(study):
    anchor = anchor_image(normal(study))
    scores = numbers_of(Still(), anchor, study)
    assert scores["pose_error_after"] == scores["pose_error_before"]
    assert scores["anchor_distance_after"] == pytest.approx(scores["anchor_distance_before"], 1e-4)
    images = study.batch(study.test).image
    by_hand = (anchor - smooth(images, GRID)).abs().mean()
    assert scores["anchor_distance_before"] == pytest.approx(by_hand.item(), rel=1e-5)


class Zooming(nn.Module):
    """Shows the middle half of every image, and aligns nothing."""

    def forward(self, image):
        return (torch.eye(2, 3) / 2).expand(len(image), 2, 3).contiguous()


def test_zooming_in_is_no_alignment(study):
    # all poses alike but for shifts, so that nothing else changes
    pose = canonical_pose(len(study.test))
    pose[:, 0, 2] += torch.linspace(-3, 3, len(pose))
    shifted = replace(study, poses=lambda rows: pose)
    scores = numbers_of(Zooming(), anchor_image(normal(study)), shifted)
    assert scores["field_of_view_cm_before"] == pytest.approx(37, rel=1e-3)
    assert scores["field_of_view_cm_after"] == pytest.approx(18.5, rel=1e-3)
    assert scores["pose_error_after"] == pytest.approx(scores["pose_error_before"], rel=1e-4)
    before, after = (scores[f"relative_pose_error_{when}"] for when in ("before", "after"))
    assert after == pytest.approx(2 * before, rel=1e-3)
    assert before == scores["pose_error_before"] / scores["field_of_view_cm_before"]
    assert set(scores) == set(BETTER)


def test_an_image_that_is_the_anchor_is_at_no_distance_from_it():
    store = ArrayStore.from_arrays(
        np.full((4, 1, 32, 32), 200, np.uint8), np.zeros((4, 1), np.uint8), ("A",)
    )
    flat = Split("flat", view(store), np.arange(2), np.arange(0), np.arange(2, 4), {})
    anchor = anchor_image(flat.batch(flat.train).image)
    scores = numbers_of(Still(), anchor, flat)
    assert set(scores) == {"anchor_distance_before", "anchor_distance_after"}, "no pose is known"
    assert all(value == pytest.approx(0, abs=1e-6) for value in scores.values())
    black = numbers_of(Still(), torch.full_like(anchor, -1), flat)
    assert black["anchor_distance_before"] == pytest.approx(400 / 255, rel=1e-5)


def test_at_most_so_many_poses_are_asked_for(study, monkeypatch):
    asked = []
    monkeypatch.setattr(alignment, "POSED", 5)
    counted = replace(study, poses=lambda rows: (asked.append(rows), study.poses(rows))[1])
    scores = numbers_of(Still(), anchor_image(normal(study)), counted)
    assert [rows.tolist() for rows in asked] == [study.test[:5].tolist()]
    assert scores["pose_error_before"] == spread_of_poses(study.poses(study.test[:5]))
