import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm

from cxrtut.data.phantom.randomness import Chance, Normal, Uniform, _mix, draw, keys, noise

LAWS = {"a": Normal(2.0, 0.5), "b": Uniform(-1, 3, (2,)), "c": Chance(0.25)}


def splitmix_reference(x: int) -> int:
    """The finaliser written with Python's unbounded integers."""
    mask = 2**64 - 1
    x &= mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    x ^= x >> 31
    return x - 2**64 if x >= 2**63 else x


def test_the_mixing_function_is_splitmix64():
    values = [0, 1, -1, 2**62, -(2**63), 123456789]
    assert _mix(torch.tensor(values)).tolist() == [splitmix_reference(v) for v in values]


def test_draws_follow_their_laws():
    d = draw(LAWS, keys(0, torch.arange(20000)))
    cut = truncnorm(-2.2, 2.2, loc=2, scale=0.5)
    assert abs(float(d.a.mean()) - cut.mean()) < 0.02 and abs(float(d.a.std()) - cut.std()) < 0.02
    assert float((d.a - 2).abs().max()) <= 2.2 * 0.5 + 1e-6
    assert d.b.shape == (20000, 2) and float(d.b.min()) >= -1 and float(d.b.max()) <= 3
    assert abs(float(d.b.mean()) - 1) < 0.03 and abs(float(d.c.mean()) - 0.25) < 0.01
    assert abs(np.corrcoef(d.b[:, 0], d.b[:, 1])[0, 1]) < 0.02


def test_what_is_cut_off_a_normal_law_does_not_pile_up_at_its_border():
    laws = {"both": Normal(2.0, 0.5), "low": Normal(2.0, 0.5, low=1.7)}
    d = draw(laws, keys(0, torch.arange(20000)))
    for name, below in (("both", -2.2), ("low", -0.6)):
        values = getattr(d, name).double().numpy()
        expected = truncnorm(below, 2.2, loc=2, scale=0.5)
        assert kstest(values, expected.cdf).pvalue > 0.01
        assert len(np.unique(values)) > 19000
    assert float(d.low.min()) >= 1.7 - 1e-6


def test_a_quantity_depends_on_its_key_and_name_only():
    key = keys(3, torch.arange(7))
    more = draw({"z": Uniform(0, 1), **LAWS}, key)
    assert torch.equal(more.a, draw(LAWS, key).a)
    assert torch.equal(draw(LAWS, key[4:5]).a[0], draw(LAWS, key).a[4])


def test_neighbouring_patients_seeds_and_visits_are_unrelated():
    n = 5000
    base = draw(LAWS, keys(0, torch.arange(n), torch.zeros(n, dtype=torch.int64))).a
    others = [
        draw(LAWS, keys(1, torch.arange(n), torch.zeros(n, dtype=torch.int64))).a,
        draw(LAWS, keys(0, torch.arange(n) + 1, torch.zeros(n, dtype=torch.int64))).a,
        draw(LAWS, keys(0, torch.arange(n), torch.ones(n, dtype=torch.int64))).a,
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.05


def test_noise_is_standard_normal_and_its_own_for_every_image_and_name():
    key = keys(0, torch.arange(32))
    z = noise(key, "detector", 64, 64)
    assert abs(float(z.mean())) < 0.02 and abs(float(z.std()) - 1) < 0.02
    assert torch.equal(noise(key[9:10], "detector", 64, 64)[0], z[9])
    assert len(torch.unique(z[:, 0, 0])) == 32
    assert not torch.equal(noise(key, "texture", 64, 64), z)


def test_too_much_noise_and_an_unknown_quantity_are_named():
    with pytest.raises(ValueError, match="at most"):
        noise(keys(0, torch.arange(1)), "x", 2048, 2048)
    with pytest.raises(AttributeError, match="no quantity 'heart'"):
        draw(LAWS, keys(0, torch.arange(1))).heart  # noqa: B018
