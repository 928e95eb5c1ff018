"""Aligned images to learn from."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from cxrtut.data.loader import Loader
from cxrtut.data.store import ArrayStore
from cxrtut.engine.task import Data
from cxrtut.experiments.aligned_loader import AlignedLoader
from cxrtut.experiments.source import Source
from cxrtut.nn.spatial_transformer import align, five_parameter_matrix, warp
from cxrtut.papers.disease_masks import SMOKE, make_aligner
from cxrtut.randomness import shuffled

TINY = replace(SMOKE, size=32, classifier_width=4)


@pytest.fixture(scope="module")
def split():
    return Source().all_diseases(32, 0, 120)


class Still(nn.Module):
    """Leaves every image as it is."""

    def forward(self, image):
        return torch.eye(2, 3).expand(len(image), 2, 3).contiguous()


class ByTurns(nn.Module):
    """A turn, a zoom and a shift that depend on the image's mean."""

    def forward(self, image):
        z = image.mean((1, 2, 3))
        return five_parameter_matrix(1 + 0.3 * z, 1 - 0.2 * z, 0.2 * z, 0.1 - z / 9, 0.4 * z)


@pytest.fixture(scope="module")
def loaders(split):
    return split.loader(), AlignedLoader(split.loader(), ByTurns())


def test_images_are_those_of_the_aligner_in_the_order_of_the_loader(loaders):
    plain, aligned = (loader.batches(batch_size=8, seed=4) for loader in loaders)
    for one, other in islice(zip(plain, aligned, strict=False), 3):
        expected, matrix = align(ByTurns(), one.image)
        assert torch.equal(other.image, expected) and torch.equal(other.index, one.index)
        assert torch.equal(other.label_vector, one.label_vector)
        assert torch.equal(expected, warp(one.image, matrix).clamp(-1, 1))
        assert (other.image - one.image).abs().mean() > 0.05


def test_boxes_masks_and_healthy_twins_stay_behind(loaders):
    plain, aligned = (next(loader.batches(batch_size=32, seed=0)) for loader in loaders)
    assert (plain.box_label >= 0).any() and plain.mask is not None and plain.healthy is not None
    assert aligned.boxes.shape == (32, 0, 4) and aligned.box_label.shape == (32, 0)
    assert aligned.mask is None and aligned.healthy is None
    assert all(len(boxes) == 0 for boxes, _ in (aligned.boxes_of(i) for i in range(32)))


def test_a_step_has_the_same_images_whenever_it_is_asked_for(loaders):
    _, aligned = loaders
    whole = list(islice(aligned.batches(batch_size=16, seed=2), 6))
    for start in (0, 3, 5):
        again = next(aligned.batches(batch_size=16, seed=2, start=start))
        assert torch.equal(again.image, whole[start].image)
    other = next(aligned.batches(batch_size=16, seed=3))
    assert not torch.equal(other.index, whole[0].index)


def test_ranks_share_a_batch(loaders):
    _, aligned = loaders
    whole = next(aligned.batches(batch_size=8, seed=0, start=2))
    parts = [
        next(aligned.batches(batch_size=8, seed=0, start=2, rank=rank, ranks=2)) for rank in (0, 1)
    ]
    assert [len(part) for part in parts] == [4, 4]
    assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
    assert torch.allclose(torch.cat([part.image for part in parts]), whole.image, atol=1e-6)


def test_it_is_data_as_long_as_the_other(loaders):
    plain, aligned = loaders
    assert isinstance(aligned, Data)
    assert aligned.steps_per_epoch(16) == plain.steps_per_epoch(16) > 1


def test_training_on_aligned_images_does_not_move_the_aligner(split):
    aligner = make_aligner(TINY, seed=0)
    nn.init.normal_(aligner.head[2].weight, std=0.1)
    aligner.train()
    before = {name: value.clone() for name, value in aligner.state_dict().items()}
    batch = next(AlignedLoader(split.loader(), aligner).batches(batch_size=16, seed=0))
    assert not batch.image.requires_grad and aligner.training
    assert all(torch.equal(value, before[name]) for name, value in aligner.state_dict().items())


def test_a_loader_that_is_too_short_is_refused():
    store = ArrayStore.from_arrays(
        np.zeros((4, 1, 8, 8), np.uint8), np.zeros((4, 1), np.uint8), ("A",)
    )
    loader = AlignedLoader(Loader(store, shuffled(torch.arange(4))), Still())
    with pytest.raises(ValueError, match="expected an epoch of at least one batch of 8, got 4"):
        next(loader.batches(batch_size=8, seed=0))
