"""Batches with boxes, for the tests of detectors."""

import torch

from cxrtut.data.sample import Batch
from cxrtut.metrics.detection import iou_matrix


def batch_of(boxes, labels):
    boxes, labels = torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)
    n = len(boxes)
    return Batch(
        image=torch.zeros(n, 1, 32, 32), label_vector=torch.zeros(n, 2), boxes=boxes,
        box_label=labels, index=torch.arange(n),
    )  # fmt: skip


class Squares:
    """A bright square on the left is of class 0, a dark one on the right of class 1."""

    def batches(self, *, batch_size, seed, start=0, device="cpu", rank=0, ranks=1):
        step = start
        while True:
            draw = torch.Generator().manual_seed(1000 * seed + step)
            image = 0.1 * torch.randn(batch_size, 1, 32, 32, generator=draw)
            boxes, label = torch.zeros(batch_size, 1, 4), torch.arange(batch_size)[:, None] % 3 - 1
            for i, k in enumerate(label[:, 0].tolist()):
                if k < 0:
                    continue
                x, y = torch.randint(0, 6, (2,), generator=draw).tolist()
                x += 14 * k
                boxes[i, 0] = torch.tensor([x, y, x + 12, y + 12])
                image[i, 0, y : y + 12, x : x + 12] += 0.8 * (-1) ** k
            vector = torch.cat([(label == k).float() for k in (0, 1)], 1)
            yield Batch(
                image=image.clamp(-1, 1), label_vector=vector, boxes=boxes, box_label=label,
                index=torch.arange(batch_size),
            )  # fmt: skip
            step += 1

    def steps_per_epoch(self, batch_size):
        return 10


def check_that_it_finds(system, source):
    """The surest box of each square has its class, and overlaps it by more than half."""
    batch = next(source.batches(batch_size=9, seed=5))
    found = system.predict(batch.image)
    for i in range(9):
        boxes, labels = batch.boxes_of(i)
        if len(labels):  # every third image has none
            assert found.scores[i].argmax() == labels[0] == found.boxes[i].labels[0]
            assert iou_matrix(found.boxes[i].boxes[:1], boxes)[0, 0] > 0.5
