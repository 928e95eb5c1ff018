"""Batches for training as a pure function of seed and step."""

from dataclasses import fields
from itertools import islice

import pytest
import torch
from engine.toy import toy_loader, toy_store

from cxrtut.data.augment import Augmentation, augment
from cxrtut.data.loader import Loader
from cxrtut.data.sample import abnormal, check_batch, normal
from cxrtut.data.view import view


def same(one, other):
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


def by_index(seed, epoch):
    return torch.arange(24).roll(epoch)


def test_starting_at_a_step_gives_what_would_have_come():
    loader = toy_loader()
    whole = list(islice(loader.batches(batch_size=8, seed=1), 8))
    for start in (0, 2, 3, 7):
        later = next(loader.batches(batch_size=8, seed=1, start=start))
        assert same(later, whole[start])


def test_epochs_follow_each_other_and_short_batches_are_left_out():
    loader = Loader(toy_store(), by_index)
    assert loader.steps_per_epoch(10) == 2
    rows = [batch.index.tolist() for batch in islice(loader.batches(batch_size=10, seed=0), 4)]
    assert rows == [
        list(range(10)), list(range(10, 20)), [23, *range(9)], list(range(9, 19))
    ]  # fmt: skip


def test_ranks_share_a_batch_and_its_augmentation():
    loader = toy_loader()
    whole = next(loader.batches(batch_size=8, seed=0, start=4))
    parts = [next(loader.batches(batch_size=8, seed=0, start=4, rank=r, ranks=2)) for r in (0, 1)]
    for name in ("image", "label_vector", "index"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name))


@pytest.mark.parametrize("where", ["store", "view", "device"])
def test_targets_are_the_labels_of_the_whole_batch_in_another_order(where):
    store = toy_store()
    source = {"store": store, "view": view(store), "device": store.on_device("cpu")}[where]
    loader = Loader(source, by_index, with_targets=True)
    whole = list(islice(loader.batches(batch_size=8, seed=0), 6))
    for step, batch in enumerate(whole):
        check_batch(batch)
        assert sorted(batch.target_vector.tolist()) == sorted(batch.label_vector.tolist())
        ranks = [
            next(loader.batches(batch_size=8, seed=0, start=step, rank=r, ranks=2)) for r in (0, 1)
        ]
        assert torch.equal(torch.cat([r.target_vector for r in ranks]), batch.target_vector)
    assert any(not torch.equal(b.target_vector, b.label_vector) for b in whole)
    first, second = (b.target_vector for b in (whole[0], whole[3]))  # one epoch later
    assert not torch.equal(first, second)
    assert next(Loader(source, by_index).batches(batch_size=8, seed=0)).target_vector is None


def test_an_image_is_changed_as_the_augmentation_of_its_step_says():
    augmentation = Augmentation(rotation=10, brightness=0.2)
    plain, changed = Loader(toy_store(), by_index), Loader(toy_store(), by_index, augmentation)
    before = next(plain.batches(batch_size=8, seed=5, start=3))
    after = next(changed.batches(batch_size=8, seed=5, start=3))
    assert same(after, augment(before, augmentation.draw(8, seed=5, step=3)))
    assert not torch.equal(before.image, after.image)


def test_a_view_of_a_store_is_a_source():
    store = toy_store()
    whole = next(Loader(view(store), by_index).batches(batch_size=8, seed=0, start=1))
    assert same(whole, next(Loader(store, by_index).batches(batch_size=8, seed=0, start=1)))
    small = next(Loader(view(store, size=4), by_index).batches(batch_size=8, seed=0))
    assert small.image.shape == (8, 1, 4, 4)


def test_a_share_that_would_cut_a_pair_of_a_balanced_order_is_refused():
    """Its "normal" half would be the abnormal one."""
    loader = toy_loader()
    for batch_size, ranks in ((5, 1), (6, 2)):
        with pytest.raises(ValueError, match=rf"a multiple of 2 for each of {ranks} processes"):
            loader.batches(batch_size=batch_size, seed=0, ranks=ranks)
    for rank in (0, 1):
        batch = next(loader.batches(batch_size=8, seed=0, rank=rank, ranks=2))
        labels = batch.label_vector[:, :, None, None]
        assert not normal(labels).any() and abnormal(labels).all()


def test_what_cannot_be_shared_or_is_too_short_is_refused_at_once():
    loader = toy_loader()
    with pytest.raises(ValueError, match="expected an epoch of at least one batch of 32, got 24"):
        loader.batches(batch_size=32, seed=0)
    with pytest.raises(ValueError, match="got rank 0 and batch_size 9"):
        loader.batches(batch_size=9, seed=0, ranks=2)
    with pytest.raises(ValueError, match="got rank 2 and batch_size 8"):
        loader.batches(batch_size=8, seed=0, rank=2, ranks=2)
