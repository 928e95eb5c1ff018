"""Aligned images to train on, and how well they are aligned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.feed import Feed
from cxrtut.data.sample import Batch
from cxrtut.experiments.label_study import POSED, LabelStudy, row_parts
from cxrtut.papers.disease_masks import Config, align, smooth


@dataclass(frozen=True)
class AlignedFeed:
    """Batches of another feed, their images aligned.

    Boxes, masks and healthy twins are left out: they belong to the images as they were.
    """

    feed: Feed
    aligner: nn.Module

    def steps_per_epoch(self, batch_size: int) -> int:
        """As the other feed's."""
        return self.feed.steps_per_epoch(batch_size)

    def batches(self, **settings: Any) -> Iterator[Batch]:
        """As the other feed's, aligned."""
        for batch in self.feed.batches(**settings):
            image, _ = align(self.aligner, batch.image)
            none = batch.boxes[:, :0], batch.box_label[:, :0]
            yield replace(
                batch, image=image, boxes=none[0], box_label=none[1], mask=None, healthy=None
            )


def score_alignment(
    aligner: nn.Module,
    anchor: Float[Tensor, "1 C H W"],
    study: LabelStudy,
    config: Config,
    device: torch.device | str,
) -> dict[str, float]:
    """How much less images of patients never seen differ, before and after alignment.

    Returns:
        `anchor distance`: mean |A - B(G(I))|, in [0, 2]; no landmarks are needed. Where the true
        pose is known: `pose error`, how far apart (cm, root mean square over images and over the
        frame) the same point of the image lies in the patients, 0 for perfect alignment, whatever
        frame it chooses; `frame width`, cm of patient that the image shows; and `misplaced`, the
        error as a share of that width, because zooming in lowers an error in cm without aligning
        anything. Each with `before` and `after`.
    """
    distance: dict[str, list[Tensor]] = {"before": [], "after": []}
    poses = []
    for part in row_parts(study.test):
        images = study.store.batch(part, device).image
        aligned, matrix = align(aligner, images)
        for when, x in (("before", images), ("after", aligned)):
            distance[when].append((anchor - smooth(x, config.cells)).abs().mean((1, 2, 3)))
        poses.append(matrix)
    scores = {
        f"anchor distance {when}": float(torch.cat(found).mean())
        for when, found in distance.items()
    }
    if study.poses is not None:
        true = study.poses(study.test[:POSED]).to(device)
        moved = composed(true, torch.cat(poses)[:POSED])
        for when, pose in (("before", true), ("after", moved)):
            error, width = spread_of_poses(pose), frame_width(pose)
            scores[f"pose error {when}"] = error
            scores[f"frame width {when}"] = width
            scores[f"misplaced {when}"] = error / width
    return scores


def composed(
    pose: Float[Tensor, "N 2 3"], matrix: Float[Tensor, "N 2 3"]
) -> Float[Tensor, "N 2 3"]:
    """The pose of an aligned image: where its points lie in the patient."""
    turned = torch.einsum("nij,njk->nik", pose[:, :, :2], matrix)
    turned[:, :, 2] += pose[:, :, 2]
    return turned


def frame_width(pose: Float[Tensor, "N 2 3"]) -> float:
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
