"""The loop that a page shows is the loop that trains."""

import copy

import torch

from cxrtut.engine.loop import train
from cxrtut.engine.performance import performance_settings
from cxrtut.foundations.adversarial import NonSaturatingGAN, Ring, WassersteinGAN
from cxrtut.foundations.training_loop import plain_loop


def weights(task):
    return [p.detach() for network in task.networks.values() for p in network.parameters()]


def test_it_leaves_the_weights_of_the_engine_once_arithmetic_is_the_same() -> None:
    for make in (WassersteinGAN, NonSaturatingGAN):
        plain, engine = make(seed=3), make(seed=3)
        before = copy.deepcopy(plain.networks)
        # What the engine does for speed (fused Adam) changes last bits.
        with performance_settings(torch.device("cpu"), plain.networks, plain.optimizers):
            plain_loop(plain, Ring(), steps=12, batch_size=32, seed=5)
        train(engine, Ring(), steps=12, batch_size=32, seed=5)
        assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(engine), strict=True))
        for name, network in plain.networks.items():  # both of them have moved
            was, now = (n.state_dict().values() for n in (before[name], network))
            assert not all(torch.equal(a, b) for a, b in zip(was, now, strict=True))


def test_without_that_it_leaves_them_up_to_rounding() -> None:
    plain, engine = WassersteinGAN(seed=3), WassersteinGAN(seed=3)
    plain_loop(plain, Ring(), steps=12, batch_size=32, seed=5)
    train(engine, Ring(), steps=12, batch_size=32, seed=5)
    for a, b in zip(weights(plain), weights(engine), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_another_seed_draws_other_points_and_other_numbers() -> None:
    one, other = WassersteinGAN(seed=3), WassersteinGAN(seed=3)
    plain_loop(one, Ring(), steps=1, batch_size=32, seed=5)
    plain_loop(other, Ring(), steps=1, batch_size=32, seed=6)
    critics = [
        torch.cat([p.flatten() for p in t.networks["critic"].parameters()]) for t in (one, other)
    ]
    assert not torch.equal(*critics)
