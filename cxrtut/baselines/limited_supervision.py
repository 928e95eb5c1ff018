r"""Patches that are told where a disease is in some images, and only that it is there in others.

Z. Li, C. Wang, M. Han et al., Thoracic Disease Identification and Localization with Limited
Supervision, CVPR 2018.

Equations, for disease $k$, image $x$ and the patches $j$ of a P × P grid
    $p_j = \sigma(z_j)$    `LimitedSupervision.patch_logits`
    (1)  $p(y_k | x, box) = \prod_{j \in box} p_j \prod_{j \notin box} (1 - p_j)$
         `log_box_probability`
    (2)  $p(y_k | x) = 1 - \prod_j (1 - p_j)$    `log_image_probability`
    $-\lambda_{box} \eta \log p(y_k | x, box) - (1 - \eta) y \log p(y_k | x)
     - (1 - \eta) (1 - y) \log(1 - p(y_k | x))$    `LimitedSupervision.loss`
    $p$ and $1 - p$ from [0, 1] to [0.98, 1]    `log_normalised`

Here $\eta$ is 1 where the image has a box of disease $k$, and $y$ where it has disease $k$.

**It uses boxes in training, so it is not weakly supervised.** Which images show their boxes is
decided by the data.

Reading (loss, what the equations follow): We have read accounts of the paper and public
    implementations, but not its print.
    Here: Eqs. (1) and (2) have the numbers that a public re-implementation gives them. The others
        have none.
    Why: They could not be compared with the print.

Reading (network, patches): The last features are resampled to P × P; a convolution of 3 × 3, to 512
    channels, and one of 1 × 1 follow.
    Here: P is the size of the last features. The backbone's linear layer is the 1 × 1 convolution,
        and there is no other.
    Why: All systems of a comparison then have the same parameters.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.losses.noisy_or import log_image_probability, log_normalised
from cxrtut.nn.linear_head import linear_head
from cxrtut.nn.probability import probabilities


def patches_in_boxes(
    boxes: Float[Tensor, "B M 4"],
    box_label: Int[Tensor, "B M"],
    n_classes: int,
    image_size: tuple[int, int],
    grid: tuple[int, int],
) -> Bool[Tensor, "B K h w"]:
    """The patches that the boxes of each class cover.

    Reading (training, patches inside a box): We could not check which patches count as inside.
        Here: Patches count that a box covers by at least half; if there are none, the patch of its
            centre. Boxes of one class are joined.
        Why: Every box then has a patch.

    Args:
        boxes: xyxy in pixels of the image.
        box_label: class of each box, -1 where padded.
        n_classes: K.
        image_size: (H, W) in pixels.
        grid: (h, w) in patches.
    """
    x0, y0, x1, y1 = boxes[..., None].unbind(-2)
    left, right = _edges(grid[1], image_size[1], boxes)
    upper, lower = _edges(grid[0], image_size[0], boxes)
    along_x = (torch.minimum(x1, right) - torch.maximum(x0, left)).clamp(min=0)  # (B, M, w)
    along_y = (torch.minimum(y1, lower) - torch.maximum(y0, upper)).clamp(min=0)  # (B, M, h)
    share = (along_y / (lower - upper))[..., :, None] * (along_x / (right - left))[..., None, :]
    covered = share >= 0.5
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    central_x = (left <= middle_x) & (middle_x < right)
    central_y = (upper <= middle_y) & (middle_y < lower)
    central = central_y[..., :, None] & central_x[..., None, :]
    covered = torch.where(covered.any(-1).any(-1)[..., None, None], covered, central)
    of_class = box_label[..., None] == torch.arange(n_classes, device=boxes.device)  # (B, M, K)
    return (of_class[..., None, None] & covered[:, :, None]).any(1)


def _edges(patches: int, pixels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where each patch of a row begins and ends, in pixels."""
    edges = torch.arange(patches + 1, device=like.device, dtype=like.dtype) * (pixels / patches)
    return edges[:-1], edges[1:]


def log_box_probability(
    log_present: Float[Tensor, "B K h w"],
    log_absent: Float[Tensor, "B K h w"],
    inside: Bool[Tensor, "B K h w"],
) -> Float[Tensor, "B K"]:
    """log p(y | x, box) = Σ_{inside} log p + Σ_{outside} log(1 - p)."""
    return torch.where(inside, log_present, log_absent).sum((2, 3))


class LimitedSupervision:
    """Patch probabilities from boxes where there are some, and by multiple instances elsewhere.

    Reading (network, small grids): With the normalisation, $p(y | x)$ of $n$ patches is at most
        $1 - 0.98^n$.
        Here: We keep this: 0.73 for 8 × 8 patches, 0.994 for 16 × 16.
        Why: It is the paper's rule. On a small grid, a disease without a box keeps a loss and pulls
            at all patches.
    """

    n_uniforms = 0

    def __init__(
        self,
        classifier: nn.Module,
        *,
        classes: tuple[str, ...],
        size: int,
        channels: int = 1,
        lambda_bbox: float = 5.0,
        lowest: float = 0.98,
        learning_rate: float = 1e-4,
    ) -> None:
        """
        Args:
            classifier: on its device; `features` gives (B, c, P, P), `classifier` is one linear
                layer with a bias.
            classes: one for each logit.
            size: of the images, pixels.
            channels: of the images.
            lambda_bbox: weight of an image and disease with a box.
            lowest: what a patch probability of 0 becomes in training.
            learning_rate: of Adam.

        Raises:
            TypeError: `classifier.classifier` is not one linear layer with a bias.
            ValueError: `lowest` outside (0, 1), or a negative weight.
        """
        prediction = linear_head(classifier, with_bias=True)
        if not 0 < lowest < 1:
            raise ValueError(f"lowest: expected a number in (0, 1), got {lowest}")
        if not lambda_bbox >= 0:
            raise ValueError(f"lambda_bbox: expected no less than 0, got {lambda_bbox}")
        self.features, self.prediction = classifier.get_submodule("features"), prediction
        self.lambda_bbox, self.lowest = lambda_bbox, lowest
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("classifier",), self.loss)

    def patch_logits(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """z: the class activation map and the bias of the class, in float32."""
        maps = class_activation_map(self.features(image), self.prediction.weight)
        return maps.float() + self.prediction.bias[:, None, None]

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """-λ_bbox η log p(y | x, box) - (1 - η) [y log p(y | x) + (1 - y) log(1 - p(y | x))].

        Reading (loss, sum or mean): The loss is a sum over images and diseases.
            Here: We take the mean. A box counts whatever the label says.
            Why: To Adam the mean is the same, and it does not grow with the batch.
        """
        logits = self.patch_logits(batch.image)
        log_present, log_absent = log_normalised(logits, self.lowest)
        height, width = batch.image.shape[2:]
        inside = patches_in_boxes(
            batch.boxes, batch.box_label, logits.shape[1], (height, width),
            (logits.shape[2], logits.shape[3]),
        )  # fmt: skip
        eta, y = inside.any(-1).any(-1).float(), batch.label_vector
        log_some, log_none = log_image_probability(log_absent)
        with_box = -eta * log_box_probability(log_present, log_absent, inside)
        without = -(1 - eta) * (y * log_some + (1 - y) * log_none)
        box, label = self.lambda_bbox * with_box.mean(), without.mean()
        return box + label, {"box": box, "label": label}

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        r"""Scores, and the maps enlarged as heat maps; see `maps_and_logits`.

        Reading (evaluation, scores): The probability of an image is $1 - \prod (1 - p)$.
            Here: Its score is $\sigma$ of its logit divided by the number of patches.
            Why: Over hundreds of patches nearly every probability is 1 to the last bit. Scores keep
                the order, and the side of a half.
        """
        maps, logits = self.maps_and_logits(images)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(logits / maps[0, 0].numel()),
            heatmap=heatmap_from_maps(maps, (height, width)),
        )

    def probability_maps(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """The patch probabilities, which the paper cuts at 0.5; see `evaluation.region_rule`."""
        return self.maps_and_logits(images)[0]

    @torch.no_grad()
    def maps_and_logits(
        self, images: Float[Tensor, "N C H W"]
    ) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K"]]:
        """Patch probabilities and the logits of the images, in evaluation mode; the mode is put
        back.

        Reading (evaluation, without the normalisation): The normalisation is a trick of training.
            Here: Here $p(y | x)$ is computed without it, and its logit in logarithms.
            Why: Logarithms do not saturate. The probability is then too high as a number, but it
                ranks images.
        """
        classifier = self.networks["classifier"]
        maps, logits = [], []
        with evaluating(classifier):
            for part in in_parts(images):
                z = self.patch_logits(part)
                log_some, log_none = log_image_probability(F.logsigmoid(-z))
                maps.append(torch.sigmoid(z))
                logits.append(log_some - log_none)
        return torch.cat(maps), torch.cat(logits)
