"""What is drawn, not only what was planned: ribs, vessels, signal, markers."""

import math
from itertools import pairwise

import pytest
import torch

from cxrtut.data.phantom.acquisition import sample_acquisitions
from cxrtut.data.phantom.anatomy import Plan, build_anatomy
from cxrtut.data.phantom.detector import Exposure, signal
from cxrtut.data.phantom.frame import PatientGrid
from cxrtut.data.phantom.patient import sample_patients
from cxrtut.data.phantom.randomness import Draws, keys
from cxrtut.data.phantom.skeleton import rib_unevenness, ribs
from cxrtut.data.phantom.vessels import cut_tree, grow_tree, project_tree


def aligned(n: int) -> tuple[Draws, Draws]:
    patient = torch.arange(n)
    visits = sample_acquisitions(0, patient, torch.zeros_like(patient), strength=0.0)
    return sample_patients(0, patient), visits


def test_about_ten_ribs_are_drawn_above_the_dome():
    """Posterior arcs crossed by a vertical line 5 cm beside the spine; medicine says 9 to 10."""
    people, _ = aligned(40)
    y = torch.linspace(-14, 12, 1041).view(1, -1, 1).expand(40, -1, 1)
    side_x = torch.full_like(y, 5.0)
    p, lateral = people.planes(), torch.full_like(y, 13.8)
    one, uneven = torch.ones_like(y), rib_unevenness(people)
    bone = ribs(p, y, side_x, one, lateral, torch.zeros_like(y), uneven)[..., 0]
    dome = people.dome_right_y
    inside = (y[..., 0] < dome[:, None]) & (bone > 0.12)  # a rib's two cortices merge at this level
    starts = inside[:, 1:] & ~inside[:, :-1]
    count = starts.sum(1).float()
    assert 8 <= float(count.median()) <= 13
    assert bone.amax() > 0.3 and (bone[y[..., 0] < -15] == 0).all()


@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_vessel_tree_keeps_its_volume_at_every_resolution(size):
    people, visits = aligned(3)
    tree = grow_tree(people.key, "vessels", roots=16, levels=7, radius=0.36)
    frame = PatientGrid.of(people, visits, size)
    drawn = project_tree(cut_tree(tree, visits.yaw, size), frame)
    volume = (drawn * frame.pixel**2).sum((1, 2))
    expected = sum(level.volume.sum((1, 2)) for level in tree)
    assert torch.allclose(volume, expected, rtol=0.02)


def test_branches_fork_at_every_level_and_get_thinner():
    tree = grow_tree(keys(0, torch.arange(2)), "x", roots=4, levels=5, radius=0.4)
    assert [level.start.shape[3] for level in tree] == [4, 8, 16, 32, 64]
    end = tree[0].start + tree[0].step + tree[0].bend
    assert torch.equal(tree[1].start[..., :4], end) and torch.equal(tree[1].start[..., 4:], end)


def test_a_branch_is_a_little_shorter_than_the_one_it_leaves():
    """By a factor of .72 to .94, whichever way it turns: directions are unit vectors."""
    tree = grow_tree(keys(0, torch.arange(8)), "x", roots=4, levels=4, radius=0.4)
    for parent, child in pairwise(tree):
        ratio = child.step.norm(dim=1) / parent.step.norm(dim=1).repeat(1, 1, 2)
        assert ratio.min() > 0.72 - 1e-4 and ratio.max() < 0.94 + 1e-4


def test_the_signal_is_the_optical_depth_of_what_arrives():
    """Without scatter and noise -log(exp(-tau)) = tau; with scatter S it is -log(exp(-tau) + S)."""
    tau, zero = torch.full((1, 64, 64), 3.0), torch.zeros(1, 64, 64)
    a, pixel = Draws({"dose": torch.tensor([1e5])}), torch.full((1, 1, 1), 0.15)
    assert torch.allclose(signal(tau, zero, zero, a, pixel), tau, atol=1e-5)
    fogged = signal(tau, zero, zero + 0.1, a, pixel)
    assert torch.allclose(fogged, torch.tensor(-math.log(math.exp(-3) + 0.1)), atol=1e-5)


def test_the_noise_is_that_of_counting_photons():
    """The error of -log I is 1 / sqrt(N I) for N photons at full intensity."""
    tau, zero = torch.full((1, 256, 64), 2.0), torch.zeros(1, 256, 64)
    noise = torch.randn(1, 256, 64, generator=torch.Generator().manual_seed(0))
    a, pixel = Draws({"dose": torch.tensor([1e5])}), torch.full((1, 1, 1), 0.15)
    measured = signal(tau, noise, zero, a, pixel).std()
    assert math.isclose(float(measured), 1 / math.sqrt(1e5 * math.exp(-2)), rel_tol=0.03)


def test_the_marker_stands_on_its_own_side():
    """An L on the patient's left, which is the image's right; an R on the other side."""
    people, visits = aligned(60)
    anatomy = build_anatomy(Plan.of(people, visits, 64), 64)
    exposure, _ = Exposure.of(anatomy, anatomy.tau, None)
    column = torch.arange(64).float()
    weight = exposure.overlay.sum(1)
    centre = (weight * column).sum(1) / weight.sum(1).clamp_min(1e-6)
    says_ap = visits.ap * visits.marker_ap
    shown = (visits.marker > 0) & (says_ap == 0)
    right = shown & (visits.marker_right > 0)
    left = shown & (visits.marker_right == 0)
    assert right.any() and (centre[right] < 25).all()
    assert left.any() and (centre[left] > 40).all()
    assert (weight.sum(1)[visits.marker == 0] == 0).all()


def test_the_lung_is_air_and_the_heart_is_not():
    people, visits = aligned(8)
    anatomy = build_anatomy(Plan.of(people, visits, 128), 128)
    lung = anatomy.lung > 8
    heart = (anatomy.heart > 0.5) & (anatomy.lung < 1)
    for i in range(8):
        assert anatomy.tau[i][lung[i]].mean() + 0.5 < anatomy.tau[i][heart[i]].mean()
