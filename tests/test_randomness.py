"""Order and draws as pure functions."""

import pytest
import torch

from cxrtut.randomness import balanced, generator, seeded, shuffled, split_by, uniforms


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
    rows = torch.arange(10, 30)
    order = shuffled(rows)
    assert order(0, 0).sort().values.equal(rows)
    assert order(0, 3).equal(order(0, 3))
    assert not order(0, 0).equal(order(0, 1)) and not order(0, 0).equal(order(1, 0))


def test_groups_take_turns_and_every_even_share_is_half_and_half():
    order = balanced(torch.arange(5), torch.arange(100, 117))
    rows = order(0, 0)
    assert len(rows) == 10
    assert (rows[0::2] < 5).all() and (rows[1::2] >= 100).all()
    assert rows[0::2].sort().values.equal(torch.arange(5))
    assert len(rows[1::2].unique()) == 5
    assert not rows.equal(order(0, 1))


def test_the_larger_group_can_set_the_length_and_the_smaller_is_repeated():
    rows = balanced(torch.arange(3), torch.arange(100, 107), largest=True)(2, 1)
    assert rows[1::2].sort().values.equal(torch.arange(100, 107))
    assert rows[0::2].bincount().max() <= 3 and set(rows[0::2].tolist()) == {0, 1, 2}


def test_a_group_that_is_repeated_has_another_order_in_each_round():
    repeated = balanced(torch.arange(8), torch.arange(100, 116), largest=True)(0, 0)[0::2]
    one, other = repeated.split(8)
    assert one.sort().values.equal(torch.arange(8)) and other.sort().values.equal(torch.arange(8))
    assert not one.equal(other)


def test_over_epochs_the_larger_group_is_seen_whole():
    order = balanced(torch.arange(5), torch.arange(100, 117))
    seen = torch.cat([order(0, epoch)[1::2] for epoch in range(40)])
    assert set(seen.tolist()) == set(range(100, 117))


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="got 0 in the first and 3 in the second"):
        balanced(torch.arange(0), torch.arange(3))


def test_draws_depend_on_seed_step_and_position_only_and_are_uniform():
    draw = uniforms(4000, 4, seed=1, step=2, position=0)
    assert draw.equal(uniforms(4000, 4, seed=1, step=2, position=0))
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        seed, step, position = other
        assert not draw.equal(uniforms(4000, 4, seed=seed, step=step, position=position))
    assert draw.min() >= 0 and draw.max() < 1
    assert uniforms(3, 0, seed=1, step=2, position=0).shape == (3, 0)
    assert (draw.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 4000) ** 0.5


def test_keys_do_not_run_together():
    a, b = generator("x", 1, 23), generator("x", 12, 3)
    assert a.initial_seed() != b.initial_seed()


def test_seeding_is_undone_afterwards():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded("weights", 1):
        inside = torch.rand(2)
    assert torch.rand(2).equal(expected)
    with seeded("weights", 1):
        assert torch.rand(2).equal(inside)
    with seeded("weights", 2):
        assert not torch.rand(2).equal(inside)


def test_rows_are_split_by_a_flag():
    off, on = split_by(torch.tensor([4, 5, 6]), torch.tensor([True, False, True]))
    assert (off.tolist(), on.tolist()) == ([5], [4, 6])
