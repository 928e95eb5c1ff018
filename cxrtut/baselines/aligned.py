"""A system behind an alignment: it sees aligned images and answers about the images as they were.

H.-W. Kim, H.-G. Jung, S.-W. Lee, Weakly Supervised Thoracic Disease Localization via Disease Masks,
arXiv:2101.09915, 2021, Section 3.2; other papers align as well.
"""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Prediction, System
from cxrtut.localize.box_warp import warp_boxes
from cxrtut.nn.spatial_transformer import align, invert, warp


class Aligned:
    """A system that sees aligned images, and answers in the frame of the images as they were.

    Networks: those of the system, `aligner`, and `anchor`, the image that was aligned with.

    Reading (evaluation, the frame of the boxes): Kim et al. do not say in which frame boxes are
        compared.
        Here: Heat maps of aligned images are warped back by the inverse matrix, with 0 where these
            show nothing.
        Why: The readers' boxes then stay as they were drawn.
    """

    def __init__(
        self,
        system: System,
        aligner: nn.Module,
        anchor: Float[Tensor, "1 C H W"],
        *,
        grid_size: int,
    ) -> None:
        """
        Args:
            system: trained on aligned images.
            aligner: images to matrices.
            anchor: what images are aligned with, such as the mean of normal ones.
            grid_size: of the smoothed images that were compared with it.
        """
        self.system, self.aligner, self.grid_size = system, aligner, grid_size
        self.n_confident: dict[str, int] = {}  # N_c of Eq. (3), where masks were made
        self.classes, self.size, self.channels = system.classes, system.size, system.channels
        self.networks: dict[str, nn.Module] = {
            **system.networks, "aligner": aligner, "anchor": Anchor(anchor)
        }  # fmt: skip

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """As the system, with its heat maps warped back and its boxes carried back."""
        aligned, matrix = align(self.aligner, images)
        answer = self.system.predict(aligned)
        heat, boxes = answer.heatmap, answer.boxes
        if heat is not None:
            heat = warp(heat, invert(matrix), outside=0.0)
        if boxes is not None:
            boxes = tuple(
                replace(found, boxes=warp_boxes(found.boxes, m, self.size).clamp(0, self.size))
                for found, m in zip(boxes, matrix, strict=True)
            )
        return Prediction(scores=answer.scores, heatmap=heat, boxes=boxes)


class Anchor(nn.Module):
    """The anchor image as a network without parameters, so that a file of weights holds it."""

    image: Float[Tensor, "1 C H W"]

    def __init__(self, image: Float[Tensor, "1 C H W"]) -> None:
        super().__init__()
        self.register_buffer("image", image)
