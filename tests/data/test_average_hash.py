"""Average hashes, against numpy's block means and counting bits."""

import numpy as np
import pytest
import torch

from cxrtut.data.average_hash import SIDE, average_hash, hamming_distance, nearest
from cxrtut.experiments.source import Source


def films(n, size=64, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, size, size, generator=generator) * 2 - 1


def test_a_bit_says_whether_a_cell_is_brighter_than_the_mean():
    images = films(3, channels=2)
    grey = images.double().mean(1).numpy()
    cells = grey.reshape(3, SIDE, 4, SIDE, 4).mean((2, 4)).reshape(3, -1)
    expected = cells > cells.mean(1, keepdims=True)
    assert np.array_equal(average_hash(images).numpy(), expected)
    assert 0.3 < expected.mean() < 0.7


def test_a_cell_as_bright_as_the_mean_has_no_bit():
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[..., 0, :5], image[..., 1, :5] = 1.0, -1.0
    assert average_hash(image).nonzero()[:, 1].tolist() == [0, 1, 2, 3, 4]


def test_brightness_and_contrast_change_no_bit():
    images = films(4)
    assert torch.equal(average_hash(images), average_hash(0.5 * images - 0.3))


def test_the_distance_counts_the_bits_that_differ():
    first, second = average_hash(films(3)), average_hash(films(5, seed=1))
    expected = [[int((a != b).sum()) for b in second] for a in first]
    assert hamming_distance(first, second).tolist() == expected


def test_the_nearest_is_the_one_with_fewest_other_bits_and_the_first_of_equals():
    library = films(6, seed=2)
    hashes = average_hash(torch.cat((library, library)))
    noisy = library + 0.2 * films(6, seed=3)
    assert nearest(noisy, hashes).tolist() == [0, 1, 2, 3, 4, 5]


def test_what_may_not_be_taken_is_not_unless_there_is_nothing_else():
    library = films(3)
    own = torch.eye(3, dtype=torch.bool)
    hashes = average_hash(library)
    found = nearest(library, hashes, own)
    distances = hamming_distance(hashes, hashes) + 999 * own
    assert found.tolist() == distances.argmin(1).tolist() and (found != torch.arange(3)).all()
    assert nearest(library[:1], hashes[:1], own[:1, :1]).tolist() == [0]


def test_similar_chests_are_nearer_than_others():
    split = Source().one_disease(64, 0, 128)
    normal = split.batch(split.normal()[:40]).image
    ill = split.batch(split.abnormal("test")).image
    hashes = average_hash(normal)
    partner = normal[nearest(ill, hashes)]
    difference = (ill - partner).abs().mean()
    others = (ill[:, None] - normal[None]).abs().mean()
    assert difference < 0.9 * others


def test_nothing_is_read_back_from_the_device():
    images = torch.zeros(2, 1, 32, 32, device="meta")
    assert nearest(images, average_hash(images)).shape == (2,)


def test_small_images_and_an_empty_library_are_refused():
    with pytest.raises(ValueError, match="expected images of 16 x 16 pixels or more, got 8 x 16"):
        average_hash(torch.zeros(1, 1, 8, 16))
    with pytest.raises(ValueError, match="hashes: expected one at least, got none"):
        nearest(films(1), average_hash(films(0)))
