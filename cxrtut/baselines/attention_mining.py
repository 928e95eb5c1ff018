r"""Attention mining: what is found is hidden, and the classifier has to find more.

J. Cai, L. Lu, A. P. Harrison et al., Iterative Attention Mining for Weakly Supervised Thoracic
Disease Pattern Localization in Chest X-Rays, MICCAI 2018 (arXiv 1807.00958).

Equations, by what they say
    Heat maps $S = W f$, a 1x1 convolution on the features    `class_maps`
    Attention mining: the salient region is dropped, and $f$ without it is classified again
         `salient_region`, `AttentionMining.loss`
    Knowledge preservation, $\|S - S_{before}\|^2$    `AttentionMining.loss`, the KP term
    One map of all rounds    `AttentionMining.maps_and_logits`

Reading (training, what the rules follow): We have read the abstract and the account of Kim et al.
    (2021), but not the printed equations, so the map has no numbers.
    Here: Every constant and the exact form of each rule are ours.
    Why: Neither text gives them.

Reading (network, several scales): The paper also aggregates features of several scales, for small
    findings.
    Here: We leave this out.
    Why: It belongs to the backbone.

Reading (loss, what is preserved): The abstract keeps the responses of the updated network near
    those of the original. Kim et al. say that the L2 distance serves "the relationships between
    multiple diseases".
    Here: We follow the abstract. The responses are the maps $S$ of all classes, before the mean.
    Why: Logits would not keep a map in its place: the network would see hidden places from beside
        them, and its maps would spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.losses.weighted_bce import weighted_bce_loss
from cxrtut.nn.linear_head import linear_head
from cxrtut.nn.probability import probabilities


def class_maps(
    network: nn.Module, images: Float[Tensor, "B C H W"]
) -> tuple[Float[Tensor, "B K h w"], Float[Tensor, " K"]]:
    """S = W f and the bias b: the linear layer as a 1x1 convolution on the features.

    The logit of a class is the spatial mean of its map plus its bias. As the layer is linear, the
    map of features with places dropped is the map with these places at zero, exactly: nothing after
    `features` has to be computed again for another round.
    """
    linear = linear_head(network)
    maps = class_activation_map(network.get_submodule("features")(images), linear.weight).float()
    bias = maps.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias.float()
    return maps, bias


def saliency(
    maps: Float[Tensor, "B K h w"], keep: Bool[Tensor, "B #K h w"]
) -> Float[Tensor, "B K h w"]:
    """(S - min S) / (max S - min S), both taken over the places that are kept; zero elsewhere.

    A map that is constant there points nowhere and becomes zeros.
    """
    low = maps.masked_fill(~keep, torch.inf).amin((2, 3), keepdim=True)
    high = maps.masked_fill(~keep, -torch.inf).amax((2, 3), keepdim=True)
    nowhere = high <= low
    scaled = (maps - low) / (high - low).masked_fill(nowhere, 1.0)
    return scaled.masked_fill(~keep | nowhere, 0.0)


def salient_region(
    maps: Float[Tensor, "B K h w"], keep: Bool[Tensor, "B #K h w"], drop: float
) -> Bool[Tensor, "B K h w"]:
    """Where the saliency of a class is above the fraction `drop`: what the next round hides.

    The cut has no gradient.
    """
    return saliency(maps.detach(), keep) > drop


class AttentionMining:
    """A trained classifier that goes on learning while its hottest places are hidden from it.

    Networks: `classifier`, which moves; `preserved`, its copy from before the mining, which has no
    optimiser and never moves. A checkpoint holds both.

    Reading (network, batch norm of the copy): Nothing is said of batch norm.
        Here: The copy follows the classifier's mode, and its running statistics never change.
        Why: If only one of the two used the statistics of the batch, they would differ from the
            first step on.
    """

    n_uniforms = 0

    def __init__(
        self,
        classifier: nn.Module,
        *,
        classes: tuple[str, ...],
        size: int,
        channels: int = 1,
        rounds: int = 2,
        drop: float = 0.5,
        lambda_kp: float = 0.5,
        learning_rate: float = 1e-4,
    ) -> None:
        """
        Args:
            classifier: trained, on its device: `features` (B, c, h, w), and `classifier`, a linear
                layer on their mean. It is copied here, so train it before.
            classes: one for each logit.
            size: of the images, pixels.
            channels: of the images.
            rounds: how often the image is classified; 1 hides nothing.
            drop: fraction of a normalised map in [0, 1) above which a place is hidden.
            lambda_kp: weight of the knowledge preservation.
            learning_rate: of Adam.

        Raises:
            ValueError: a setting outside its range.
            TypeError: a classifier that does not end in one linear layer.
        """
        if rounds < 1:
            raise ValueError(f"rounds: expected at least 1, got {rounds}")
        if not 0 <= drop < 1:
            raise ValueError(f"drop: expected a fraction in [0, 1), got {drop}")
        if not lambda_kp >= 0:
            raise ValueError(f"lambda_kp: expected a weight of 0 or more, got {lambda_kp}")
        linear_head(classifier)  # or says what is wrong with it
        self.rounds, self.drop, self.lambda_kp = rounds, drop, lambda_kp
        self.classes, self.size, self.channels = classes, size, channels
        self.networks: dict[str, nn.Module] = {
            "classifier": classifier,
            "preserved": frozen_copy(classifier),
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "classifier": torch.optim.Adam(classifier.parameters(), learning_rate)
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("AM", ("classifier",), self.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The mean over rounds of the weighted cross-entropy, plus λ_KP mean (S - S_before)².

        After each round the places are hidden that are hot for a class that the image has and that
        this round says it has (logit above 0); what was hidden before stays hidden. All classes
        share the features, so a place hidden for one is hidden for all. Where no class is found
        nothing is hidden, and the next round is the same as the one before.

        Reading (loss, hidden places): How hidden places count in the mean is not said.
            Here: They count as zeros, and nothing is scaled up for them. The KP term hides nothing.
            Why: The layer is linear: where features are dropped, the map is zero.
        """
        C, before = self.networks["classifier"], self.networks["preserved"]
        y = batch.label_vector
        maps, bias = class_maps(C, batch.image)
        keep = torch.ones_like(maps[:, :1], dtype=torch.bool)
        losses = []
        for _ in range(self.rounds):
            seen = maps.masked_fill(~keep, 0.0)
            logits = seen.mean((2, 3)) + bias
            losses.append(weighted_bce_loss(logits, y))
            found = (y > 0) & (logits > 0)
            hidden = salient_region(seen, keep, self.drop) & found[:, :, None, None]
            keep = keep & ~hidden.any(1, keepdim=True)
        with torch.no_grad():
            maps_before, _ = class_maps(before.train(C.training), batch.image)
        kp = F.mse_loss(maps, maps_before)
        classification = torch.stack(losses).mean()
        terms = {"first": losses[0], "last": losses[-1], "KP": kp}
        return classification + self.lambda_kp * kp, terms

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """Probabilities, and the maps enlarged as heat maps; see `maps_and_logits`."""
        maps, logits = self.maps_and_logits(images)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(logits), heatmap=heatmap_from_maps(maps, (height, width))
        )

    @torch.no_grad()
    def maps_and_logits(
        self, images: Float[Tensor, "N C H W"]
    ) -> tuple[Float[Tensor, "N K h w"], Float[Tensor, "N K"]]:
        """Maps in [0, 1] of all rounds together, and logits of the whole image, in evaluation mode;
        the mode is put back.

        M_k = max_r min(1, σ(z_rk) / σ(z_1k)) saliency(S_rk): each round's map is normalised, so
        that what only the second round sees is not lost beside the first, and counts as much as the
        class is still believed in that round.

        Reading (evaluation, rounds without labels): Neither what is hidden without labels nor how
            the rounds are combined is said.
            Here: Each class hides only its own hot places, predicted or not, and the rounds are
                combined as above.
            Why: The class is given when boxes are scored. A plain sum would repeat the first map,
                because the second is the first with holes.
        """
        C = self.networks["classifier"]
        with evaluating(C):
            parts = [self._maps_and_logits(C, part) for part in in_parts(images)]
        maps, logits = zip(*parts, strict=True)
        return torch.cat(maps), torch.cat(logits)

    def _maps_and_logits(self, C: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        maps, bias = class_maps(C, images)
        first = maps.mean((2, 3)) + bias
        keep, combined = torch.ones_like(maps, dtype=torch.bool), torch.zeros_like(maps)
        for _ in range(self.rounds):
            seen = maps.masked_fill(~keep, 0.0)
            belief = F.logsigmoid(seen.mean((2, 3)) + bias) - F.logsigmoid(first)
            weight = belief.clamp_max(0).exp()[:, :, None, None]
            combined = torch.maximum(combined, weight * saliency(seen, keep))
            keep = keep & ~salient_region(seen, keep, self.drop)
        return combined, first


def frozen_copy(classifier: nn.Module) -> nn.Module:
    """A copy that never moves: no gradients, and running statistics of batch norm that are used in
    evaluation mode but not updated in training mode.
    """
    copy = deepcopy(classifier).requires_grad_(False)
    for module in copy.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
    return copy
