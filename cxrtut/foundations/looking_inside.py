"""A classifier of simulated radiographs, and the shortcut it takes when one is offered.

The comparison is of two classifiers whose training images differ in one thing: on whose image the
word PORT stands. In one collection it stands beside the disease (`SHORTCUT`), in the other on
every second image (`CONTROL`). Patients, poses, lesions, initial weights and the order of the
images are the same, so whatever the two do differently, the word did.

Zech et al. (PLoS Medicine 2018) found such a cue in the pixels of hospitals' radiographs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cxrtut.baselines.classifier import BinaryClassifierTask, logits_of
from cxrtut.data.loader import Loader
from cxrtut.data.phantom import ChestPhantom, Confounder, PhantomSample
from cxrtut.data.phantom.storage import in_memory
from cxrtut.engine.loop import train
from cxrtut.engine.schedules import cosine_decay
from cxrtut.engine.task import Report
from cxrtut.evaluation_mode import evaluating
from cxrtut.localize.cam import class_activation_map
from cxrtut.metrics.classification import auroc
from cxrtut.nn.backbones import ResNet10
from cxrtut.randomness import balanced, seeded, split_by

DISEASE = "Pneumonia"
SHORTCUT = Confounder(disease=DISEASE, with_disease=0.9, without=0.1)
CONTROL = Confounder(disease=DISEASE, with_disease=0.5, without=0.5)
REVERSED = Confounder(disease=DISEASE, with_disease=0.1, without=0.9)
CORNER = 3 / 8  # the word's place: the lower left square of this part of both sides


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a classifier is trained: in about twelve seconds of one CPU core."""

    images: int = 1024  # the first ones of the phantom
    steps: int = 400
    batch_size: int = 16  # half normal, half abnormal
    learning_rate: float = 2e-3  # at its highest; half a cosine takes it to zero
    warm_up: int = 40  # steps that lead up to it; without them one seed of three stayed at .83
    width: int = 12  # of the ResNet of ten layers


def collection(
    confounder: Confounder | None = None,
    *,
    severity: float | None = None,
    seed: int = 0,
    size: int = 64,
) -> ChestPhantom:
    """Patients with pneumonia and patients without any disease, half and half, preset `easy`.

    Args:
        confounder: on whose images the word PORT stands; None: on nobody's.
        severity: replaces the preset's.
        seed: of the population. Two collections of one seed show the same patients.
        size: pixels of a side.
    """
    return ChestPhantom(
        size, "easy", seed=seed, classes=(DISEASE,), severity=severity, confounder=confounder
    )


def other_patients(n: int, training: Training = Training()) -> Int[Tensor, " n"]:
    """The first n images of patients whom a classifier trained that way has never seen."""
    patients = -(-training.images // 10)  # ten images in a row are four patients
    return torch.arange(10 * patients, 10 * patients + n)


def trained_on(
    phantom: ChestPhantom,
    training: Training = Training(),
    *,
    seed: int = 0,
    callbacks: Sequence[Callable[[Report], None]] = (),
) -> ResNet10:
    """Trains a small residual network to tell abnormal images from normal ones.

    Args:
        phantom: whose first images are learnt.
        training: how many of them, and for how long.
        seed: of the initial weights and of the order of the images.
        callbacks: see `engine.loop.train`.

    Returns:
        The network in evaluation mode: logits (B, 2), normal and abnormal; its last feature map
        has a cell for 8 x 8 pixels.
    """
    store = in_memory(phantom, training.images)
    abnormal = torch.as_tensor(store.labels).amax(1) > 0
    order = balanced(*split_by(torch.arange(training.images), abnormal))
    with seeded("shortcut", seed):
        classifier = ResNet10(width=training.width, stride=8)
    rate = partial(cosine_decay, steps=training.steps, warm_up=training.warm_up)
    train(
        BinaryClassifierTask(classifier, learning_rate=training.learning_rate, rate=rate),
        Loader(store, order),
        steps=training.steps,
        batch_size=training.batch_size,
        seed=seed,
        callbacks=callbacks,
    )
    return classifier.eval()


def log_odds(classifier: nn.Module, images: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """z1 - z0, which is log p / (1 - p) of the softmax: above 0 the image is called abnormal."""
    logits = logits_of(classifier, images)
    return logits[:, 1] - logits[:, 0]


@torch.no_grad()
def evidence_map(classifier: ResNet10, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w"]:
    """M1 - M0, where each place of the last feature map pushes the log odds: up where it is
    positive, down where it is negative. Its mean plus b1 - b0 is `log_odds`.

    The network is taken in evaluation mode, and its mode is put back.
    """
    with evaluating(classifier):
        features = classifier.features(images)
    maps = class_activation_map(features, classifier.classifier.weight)
    return maps[:, 1] - maps[:, 0]


def share_in_corner(evidence: Float[Tensor, "B h w"]) -> Float[Tensor, " B"]:
    """The share of the positive evidence that is in the lower left corner, where the word stands.

    A map that is positive everywhere alike has 9 / 64; one without a positive place has NaN.

    Raises:
        ValueError: a side of the map is not a multiple of 8 cells, so the corner has no edge there.
    """
    height, width = evidence.shape[1:]
    if height % 8 or width % 8 or not height or not width:
        raise ValueError(f"evidence: expected sides of a multiple of 8, got {height} x {width}")
    positive = evidence.relu()
    corner = positive[:, round(height * (1 - CORNER)) :, : round(width * CORNER)]
    return corner.sum((1, 2)) / positive.sum((1, 2))


def areas(classifier: nn.Module, samples: Mapping[str, PhantomSample]) -> dict[str, float]:
    """The area under the ROC curve of the log odds, in each collection."""
    return {
        name: auroc(log_odds(classifier, sample.image), sample.label_vector.any(1))
        for name, sample in samples.items()
    }


def called_abnormal(classifier: nn.Module, images: Float[Tensor, "B C H W"]) -> float:
    """The share of images whose log odds are above 0; NaN where there is no image."""
    return float((log_odds(classifier, images) > 0).float().mean())
