"""Networks that look at synthetic images, in the place of the readers of Table 1 of the Pix2Pix
paper.

Reading (evaluation, the readers): Table 1 has what two radiologists said of 600 images, real and
    synthetic.
    Here: A small network learns to tell what an arm adds from real images of other patients, on
        one half of the patients, and is asked about the other half, as lenient as to take 95 % of
        real images for real. Beside it stand two distances between features of a classifier of
        radiographs.
    Why: The radiologists cannot be asked again. A network is no stand-in for them: it finds traces
        that nobody sees, and a lesion that floats in the air need not disturb it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cxrtut.baselines.classifier import BinaryClassifierTask
from cxrtut.data.annotated import together, with_all_boxes
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.loader import Loader
from cxrtut.data.sample import System, from_uint8
from cxrtut.data.split import Side, Split, evenly
from cxrtut.engine.loop import train
from cxrtut.engine.schedules import cosine_decay
from cxrtut.evaluation.measure import Better, JudgedMeasure, Numbers, device_of
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.metrics.box_change import box_change
from cxrtut.metrics.feature_distance import frechet_distance, kernel_distance
from cxrtut.nn.backbones import ResNet10
from cxrtut.papers.pix2pix import box_mask
from cxrtut.randomness import seeded, shuffled

STEPS = 200  # of the reader
BATCH = 16
AT_MOST = 512  # images of each kind
LENIENT = 0.95  # share of real images that are taken for real; nearly all by both radiologists
BETTER: dict[str, Better] = {
    "taken_for_real": "higher",
    "frechet": "lower",
    "kernel": "lower",
    "box_change": "lower",
}


def synthetic_images(system: System, judge: System, split: Split, side: Side) -> Numbers:
    """How real the images look that a detector was given besides the annotated ones.

    Args:
        system: a detector with `added` images; see `baselines.box_detector.BoxDetector`.
        judge: a classifier of radiographs, of which the features are taken.
        split: gives the real images.
        side: of the split; its images with boxes are compared with.

    Returns:
        `taken_for_real`: the share of added images that the reader of the module takes for real
        (Table 1). `frechet` and `kernel`: distances of features, of as many added as real images
        (`metrics.feature_distance`). `box_change`: the largest change inside the box against the
        image it was made from, in grey levels, the mean over images. Nothing where nothing was
        added.
    """
    added: DeviceStore | None = getattr(system, "added", None)
    rows = np.unique(split.pairs(side)[0])
    if added is None or not len(added) or not len(rows):
        return {}
    n = min(len(added), len(rows), AT_MOST)
    if n < 2:  # a distribution of one image has no spread
        return {}
    chosen = torch.from_numpy(evenly(np.arange(len(added)), n))
    made = added.moved(lambda tensor: tensor.to("cpu")[chosen])
    real = with_all_boxes(split, evenly(rows, n))
    features = [_features(judge, images) for images in (made.images, real.images)]
    numbers = {
        "frechet": frechet_distance(*features),
        "kernel": kernel_distance(*features),
        "box_change": float(_box_change(made, split).mean()),
    }
    halves = [_halves(split, store) for store in (made, real)]
    if all(len(part) for pair in halves for part in pair):
        reader = _reader(halves[0][0], halves[1][0], device_of(judge))
        scores, real_scores = (_looks_real(reader, pair[1].images) for pair in halves)
        least = real_scores.quantile(1 - LENIENT)
        numbers["taken_for_real"] = float((scores >= least).double().mean())
    return numbers


def _box_change(made: DeviceStore, split: Split) -> Tensor:
    """`box_change` of images that may have been mirrored when they were made."""
    before = with_all_boxes(split, made.index.numpy())
    batch = made.batch(torch.arange(len(made)))
    inside = box_mask(batch)[:, 0] > 0
    source = from_uint8(before.images)
    found = [box_change(x, batch.image, inside) for x in (source, source.flip(-1))]
    return torch.minimum(*found)


def _halves(split: Split, store: DeviceStore) -> tuple[DeviceStore, DeviceStore]:
    """The images of every other patient, and of the rest."""
    _, patient = np.unique(split.patients(store.index.numpy()), return_inverse=True)
    parts = [torch.from_numpy(np.flatnonzero(patient % 2 == k)) for k in (0, 1)]
    first, second = (store.moved(lambda t, rows=rows: t[rows]) for rows in parts)  # type: ignore[misc]
    return first, second


def _reader(made: DeviceStore, real: DeviceStore, device: torch.device) -> nn.Module:
    """A network that has learnt which images are made."""
    labelled = [
        replace(store, label_vector=torch.full((len(store), 1), value))
        for store, value in ((made, 1.0), (real, 0.0))
    ]
    images = together(*labelled).moved(lambda tensor: tensor.to(device))
    with seeded("machine reader", 0):
        network = ResNet10(images.images.shape[1]).to(device)
    loader = Loader(images, shuffled(torch.arange(len(images))))
    batch = min(BATCH, len(images))
    rate = partial(cosine_decay, steps=STEPS)
    task = BinaryClassifierTask(network, learning_rate=1e-3, rate=rate)
    train(task, loader, steps=STEPS, batch_size=batch, device=device)
    return network.eval()


@torch.no_grad()
def _looks_real(reader: nn.Module, images: Tensor) -> Tensor:
    """The difference of the reader's logits, the larger the more real."""
    device = next(reader.parameters()).device
    logits = torch.cat([reader(part) for part in in_parts(from_uint8(images.to(device)))])
    return (logits[:, 0] - logits[:, 1]).double().cpu()


@torch.no_grad()
def _features(judge: System, images: Tensor) -> Tensor:
    """The last feature map of the judge's network, pooled (n, d)."""
    network = judge.networks["classifier"]
    seen = from_uint8(images.to(device_of(judge)))
    with evaluating(network):
        parts = [network.get_submodule("features")(part).mean((2, 3)) for part in in_parts(seen)]
    return torch.cat(parts).cpu()


def synthetic_measure(side: Side) -> JudgedMeasure:
    """`synthetic_images` of one side of a split."""
    return JudgedMeasure(side, synthetic_images, BETTER)
