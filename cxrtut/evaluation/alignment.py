"""How well images are aligned: how much less they differ, and how far apart the same point lies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.split import Side, Split, row_parts
from cxrtut.evaluation.measure import Better, Numbers

POSED = 256  # images whose true pose is asked for, at most
BETTER: dict[str, Better] = {
    "anchor_distance_before": "lower",
    "anchor_distance_after": "lower",
    "pose_error_before": "lower",
    "pose_error_after": "lower",
    "field_of_view_cm_before": "neither",
    "field_of_view_cm_after": "neither",
    "relative_pose_error_before": "lower",
    "relative_pose_error_after": "lower",
}


def alignment_numbers(
    align: Callable[[Tensor], tuple[Tensor, Tensor]],
    distance: Callable[[Tensor], Float[Tensor, " n"]],
    split: Split,
    side: Side,
    device: torch.device,
) -> Numbers:
    """How much less images of one side of a split differ, before and after alignment.

    Args:
        align: images (n, C, H, W) to aligned ones and their matrices (n, 2, 3).
        distance: of each of n images from what they are aligned with, in [0, 2].
        split: gives the images and, where they are known, their true poses.
        side: of the split.
        device: where `align` works.

    Returns:
        `anchor_distance`: the mean distance; no landmarks are needed. Where the true pose is known:
        `pose_error`, how far apart (cm, root mean square over images and over the frame) the same
        point of the image lies in the patients, 0 for perfect alignment, whatever frame it chooses;
        `field_of_view_cm`, cm of patient that the image shows; and `relative_pose_error`, the error
        as a share of that, because zooming in lowers an error in cm without aligning anything. Each
        with `_before` and `_after`.
    """
    rows = split.rows(side)
    distances: dict[str, list[Tensor]] = {"before": [], "after": []}
    matrices = []
    for part in row_parts(rows):
        images = split.batch(part, device).image
        aligned, matrix = align(images)
        distances["before"].append(distance(images))
        distances["after"].append(distance(aligned))
        matrices.append(matrix)
    numbers = {
        f"anchor_distance_{when}": float(torch.cat(parts).mean())
        for when, parts in distances.items()
    }
    if split.poses is not None:
        true = split.poses(rows[:POSED]).to(device)
        moved = composed(true, torch.cat(matrices)[:POSED])
        for when, pose in (("before", true), ("after", moved)):
            error, width = spread_of_poses(pose), field_of_view(pose)
            numbers[f"pose_error_{when}"] = error
            numbers[f"field_of_view_cm_{when}"] = width
            numbers[f"relative_pose_error_{when}"] = error / width
    return numbers


def composed(
    pose: Float[Tensor, "N 2 3"], matrix: Float[Tensor, "N 2 3"]
) -> Float[Tensor, "N 2 3"]:
    """The pose of an aligned image: where its points lie in the patient."""
    turned = torch.einsum("nij,njk->nik", pose[:, :, :2], matrix)
    turned[:, :, 2] += pose[:, :, 2]
    return turned


def field_of_view(pose: Float[Tensor, "N 2 3"]) -> float:
    """How much of a patient the frame shows: the mean length of its sides, in cm."""
    return float(2 * torch.linalg.det(pose[:, :, :2].double()).abs().sqrt().mean())


def spread_of_poses(pose: Float[Tensor, "N 2 3"]) -> float:
    """Root mean square distance, in cm, of where a point of the frame lies in a patient from where
    it lies on average, over points and patients.
    """
    at = torch.linspace(-0.8, 0.8, 9, device=pose.device)
    x, y = torch.meshgrid(at, at, indexing="xy")
    points = torch.stack([x.flatten(), y.flatten(), torch.ones(81, device=pose.device)])
    places = pose.double() @ points.double()  # (N, 2, 81)
    return float((places - places.mean(0)).square().sum(1).mean().sqrt())
