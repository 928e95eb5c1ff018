"""Pseudo-pairs: whose pixels lie in a box, and that nothing else moved."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtut.data.annotated import boxed
from cxrtut.data.pairing import training_neighbours
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.poisson import rectangles
from cxrtut.data.pseudo_pairs import pseudo_abnormal_images, pseudo_normal_pairs
from cxrtut.data.sample import PADDING
from cxrtut.data.split import one_disease
from cxrtut.data.store import StoreError


@pytest.fixture(scope="module")
def split():
    return one_disease(in_memory(ChestPhantom(32, "easy", classes=("Pneumonia",)), 120))


def inside(boxes, labels, size=32):
    mask = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for i, (xyxy, label) in enumerate(zip(boxes, labels, strict=True)):
        for top, bottom, left, right in rectangles(xyxy[label != PADDING], size, size):
            mask[i, top:bottom, left:right] = True
    return mask


def test_a_pair_differs_in_its_boxes_alone_and_normal_images_not_at_all(split):
    pairs = pseudo_normal_pairs(split)
    n = len(boxed(split))
    assert pairs.index[:n].tolist() == boxed(split).tolist()
    assert pairs.index[n:].tolist() == split.normal().tolist()
    differs = (pairs.images != pairs.healthy)[:, 0]
    assert not (differs & ~inside(pairs.boxes, pairs.box_label)).any()
    assert not differs[n:].any()
    assert differs[:n].flatten(1).any(1).all()


def test_a_blended_image_has_less_of_the_lesion(split):
    """The simulated truth, which the pairs have not seen, is nearer than the image was."""
    pairs = pseudo_normal_pairs(split)
    n = len(boxed(split))
    truth = split.batch(boxed(split)).healthy
    before, after = (
        (x[:n].float() / 127.5 - 1 - truth).abs().mean((1, 2, 3))
        for x in (pairs.images, pairs.healthy)
    )
    assert after.mean() < 0.8 * before.mean()


def test_the_true_twin_is_not_looked_at(split):
    pairs = pseudo_normal_pairs(split)
    twin = split.store.narrowed(split.store.block(boxed(split))).healthy
    assert not (pairs.healthy[: len(twin)] == twin).flatten(1).all(1).any()


def test_k_neighbours_make_k_pairs_of_an_image(split):
    one, two = (pseudo_normal_pairs(split, k) for k in (1, 2))
    n = len(boxed(split))
    assert torch.equal(two.index[: 2 * n : 2], one.index[:n])
    assert torch.equal(two.healthy[: 2 * n : 2], one.healthy[:n])
    assert not torch.equal(two.healthy[1 : 2 * n : 2], one.healthy[:n])


def test_a_pseudo_abnormal_image_has_boxes_labels_and_lesion_of_its_neighbour(split):
    made = pseudo_abnormal_images(split)
    rows = split.normal()
    near = training_neighbours(split, rows, boxed(split))[:, 0].numpy()
    source = split.store.narrowed(split.store.block(near))
    assert made.index.tolist() == rows.tolist()
    assert torch.equal(made.boxes, source.boxes) and torch.equal(made.box_label, source.box_label)
    assert (made.label_vector == 1).all()
    differs = (made.images != made.healthy)[:, 0]
    assert not (differs & ~inside(made.boxes, made.box_label)).any()
    assert differs.flatten(1).any(1).all()
    ours = split.store.narrowed(split.store.block(rows)).images
    assert torch.equal(made.healthy, ours)


def test_without_boxes_there_are_no_pairs(split):
    healthy = replace(split, train=split.normal())
    with pytest.raises(StoreError, match="expected training images with boxes, got none"):
        pseudo_normal_pairs(healthy)


def test_k_neighbours_make_k_pseudo_abnormal_images_of_each_normal_one(split):
    one, two = (pseudo_abnormal_images(split, k) for k in (1, 2))
    assert two.index.tolist() == np.repeat(split.normal(), 2).tolist()
    assert torch.equal(two.images[::2], one.images) and torch.equal(two.boxes[::2], one.boxes)
    assert torch.equal(two.healthy[1::2], one.healthy)
