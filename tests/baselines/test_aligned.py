"""A detector behind an alignment: its boxes come back to the images as they were."""

import torch
from torch import Tensor, nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.data.sample import Detections, Prediction
from cxrtut.nn.spatial_transformer import five_parameter_matrix


class Zoom(nn.Module):
    """Looks at the middle half of each image."""

    def forward(self, image: Tensor) -> Tensor:
        half, zero = torch.full((len(image),), 0.5), torch.zeros(len(image))
        return five_parameter_matrix(half, half, zero, zero, zero)


class Finds:
    """One box in each image, as bright as its brightest pixel."""

    classes, size, channels = ("A",), 64, 1

    def __init__(self, box) -> None:
        self.box, self.seen = torch.tensor([box]), []
        self.networks: dict[str, nn.Module] = {}

    def predict(self, images: Tensor) -> Prediction:
        self.seen.append(images)
        return Prediction(boxes=tuple(
            Detections(self.box, x.amax().view(1), torch.zeros(1, dtype=torch.int64))
            for x in images
        ))  # fmt: skip


def answered(box):
    inner = Finds(box)
    system = Aligned(inner, Zoom(), torch.zeros(1, 1, 64, 64), grid_size=8)
    images = torch.full((2, 1, 64, 64), -1.0)
    images[0, 0, 24:40, 24:40] = 0.5
    return system.predict(images), inner.seen[0]


def test_what_fills_the_aligned_image_by_half_fills_the_image_by_a_quarter():
    answer, seen = answered([16.0, 16.0, 48.0, 48.0])
    assert float(seen[0, 0, 18:46, 18:46].min()) > 0.49  # twice as large in the aligned image
    assert answer.boxes is not None and answer.heatmap is None
    torch.testing.assert_close(answer.boxes[0].boxes, torch.tensor([[24.0, 24.0, 40.0, 40.0]]))
    assert float(answer.boxes[0].scores) == 0.5 and float(answer.boxes[1].scores) == -1.0
    assert answer.boxes[0].labels.tolist() == [0]


def test_a_box_that_leaves_the_image_ends_at_its_border():
    class Wide(Zoom):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) * 3

    system = Aligned(Finds([0.0, 16.0, 64.0, 48.0]), Wide(), torch.zeros(1, 1, 64, 64), grid_size=8)
    answer = system.predict(torch.zeros(1, 1, 64, 64))
    torch.testing.assert_close(answer.boxes[0].boxes, torch.tensor([[0.0, 8.0, 64.0, 56.0]]))
