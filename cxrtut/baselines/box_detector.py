"""A detector of torchvision that learns from boxes, as a system."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.box_targets import box_targets
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch, Detections, Prediction
from cxrtut.engine.schedules import constant
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts

OPTIMIZERS = ("adamw", "sgd")


class DetectionTask:
    """A detector of torchvision, trained on the sum of its losses: of two stages, is there anything
    at an anchor and where exactly, what is in a region and where exactly; of RetinaNet, what is at
    an anchor and where exactly.
    """

    n_uniforms = 0

    def __init__(
        self,
        detector: nn.Module,
        *,
        optimizer: str = "adamw",
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        max_norm: float = 1.0,
        rate: Callable[[int], float] = constant,
        first: int = 1,
        before_step: Callable[[int], None] | None = None,
    ) -> None:
        """
        Args:
            detector: see `nn.detectors.faster_rcnn` and `nn.retinanet.retinanet`; on its device.
            optimizer: `adamw`, or `sgd` with a momentum of .9.
            learning_rate: of the optimiser.
            weight_decay: of the optimiser.
            max_norm: gradients are scaled down to this norm at most.
            rate: the factor of the learning rate at each step; see `engine.schedules`.
            first: label of the first class, see `box_targets`.
            before_step: given the number of steps done, before each; such as `BoxDetector.keep`.

        Raises:
            ValueError: another optimiser.
        """
        if optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {optimizer!r}"
            )
        self.rate, self.max_norm, self.first = rate, max_norm, first
        self.before_step = before_step
        self.networks: dict[str, nn.Module] = {"detector": detector}
        moved = detector.parameters()
        made: torch.optim.Optimizer
        if optimizer == "adamw":
            made = torch.optim.AdamW(moved, learning_rate, weight_decay=weight_decay)
        else:
            made = torch.optim.SGD(moved, learning_rate, momentum=0.9, weight_decay=weight_decay)
        self.optimizers: dict[str, torch.optim.Optimizer] = {"detector": made}

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        if self.before_step is not None:
            self.before_step(step)
        yield Phase("detector", ("detector",), self.loss, max_norm=self.max_norm)

    def schedule(self, step: int) -> dict[str, float]:
        return {"detector": self.rate(step)}

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The sum of torchvision's losses, and each of them."""
        detector = self.networks["detector"]
        found = detector(list(batch.image), box_targets(batch, first=self.first))
        terms = {name.removeprefix("loss_"): value for name, value in found.items()}
        return torch.stack(list(found.values())).sum(), terms


class BoxDetector:
    """A trained detector as a system: its boxes, and for each class the score of its surest box.

    Networks: `detector`, and whatever else is to be kept with it.

    Attributes:
        added: the images that it learnt from besides the annotated ones, where an arm adds some;
            not in a file of weights.
        keep_at: the numbers of steps after which a state is kept.
        kept: these states, by the number of steps; see `keep`.
    """

    def __init__(
        self,
        detector: nn.Module,
        classes: tuple[str, ...],
        *,
        size: int,
        channels: int,
        first: int = 1,
    ) -> None:
        """
        Args:
            detector: see `nn.detectors.faster_rcnn` and `nn.retinanet.retinanet`.
            classes: the K classes of its boxes, without background.
            size: height and width of the images, pixels.
            channels: of the images.
            first: label that the detector has for the first class, see `box_targets`.
        """
        self.classes, self.size, self.channels, self.first = classes, size, channels, first
        self.networks: dict[str, nn.Module] = {"detector": detector}
        self.added: DeviceStore | None = None
        self.keep_at: frozenset[int] = frozenset()
        self.kept: dict[int, dict[str, Tensor]] = {}

    def keep(self, step: int) -> None:
        """Puts a copy of the network's state, on the CPU, into `kept`, if it is to be kept after so
        many steps.
        """
        if step in self.keep_at:
            state = self.networks["detector"].state_dict()
            self.kept[step] = {
                name: value.detach().to("cpu", copy=True) for name, value in state.items()
            }

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """Boxes sorted by score, and scores of classes: 0 where no box was found."""
        detector = self.networks["detector"]
        with evaluating(detector):
            parts = in_parts(images) if len(images) else ()  # torchvision wants one at least
            answers = [one for part in parts for one in detector(list(part))]
        boxes = tuple(
            Detections(a["boxes"], a["scores"], a["labels"] - self.first) for a in answers
        )
        scores = images.new_zeros(len(images), len(self.classes))
        for row, found in zip(scores, boxes, strict=True):
            row.scatter_reduce_(0, found.labels, found.scores, "amax")
        return Prediction(scores=scores, boxes=boxes)
