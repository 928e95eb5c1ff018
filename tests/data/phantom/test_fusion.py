"""Compiled arithmetic. torch keeps what it compiled on the disk: only the first run takes long.

The phantom is compiled at its smallest size; half a minute, and a few seconds in later runs.
"""

import os
import shutil
import threading
from dataclasses import fields

import pytest
import torch
from torch._inductor import config

from cxrtut.data.phantom import ChestPhantom, fusion, simulator
from cxrtut.data.phantom.fusion import as_written, fused, fused_if_equal
from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.shapes import sqrt_

COMPILERS = (os.environ.get("CXX", "g++"), "g++", "clang++")
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="no C++ compiler is installed"
)


def rings(p: Draws, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    distance = x * x / p.radius
    return distance.sigmoid(), sqrt_((1 - distance).clamp_min(0)) * p.depth[:, 1]


def drawn(n: int) -> tuple[Draws, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    quantities = {
        "radius": torch.rand(n, 1, 1, generator=generator) + 1,
        "depth": torch.rand(n, 2, 1, 1, generator=generator),
        "unused": torch.rand(n, generator=generator),
    }
    return Draws(quantities), torch.randn(n, 32, 32, generator=generator)


@needs_compiler
def test_fused_arithmetic_is_the_arithmetic_for_any_number_of_images():
    draws, x = drawn(4)
    compiled = fused(4)(rings)
    together = compiled(draws, x)
    for plane, expected in zip(together, as_written(rings)(draws, x), strict=True):
        assert torch.equal(plane, expected)
    for i in range(4):
        alone = compiled(draws.take(slice(i, i + 1)), x[i : i + 1])
        for plane, expected in zip(alone, together, strict=True):
            assert plane.shape == (1, 32, 32) and torch.equal(plane[0], expected[i])


@needs_compiler
def test_a_missing_compiler_is_named():
    with (
        config.patch({"cpp.cxx": (None, "/nowhere/c++")}),
        pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler .* compiling rings failed"),
    ):
        fused(3)(rings)(*drawn(3))


@needs_compiler
def test_a_compiled_phantom_draws_the_images_of_the_written_one_bit_for_bit():
    """Both round every number in the same way; and each is the same in any batch and order."""
    phantom = ChestPhantom(32, chunk=8, compiled=True)
    index = torch.tensor([37, 4, 11, 5, 90, 12, 13, 2, 7, 8, 9])
    together, written = phantom.sample(index), ChestPhantom(32, compiled=False).sample(index)
    for field in fields(together):
        assert torch.equal(getattr(together, field.name), getattr(written, field.name)), field.name
    turned = phantom.sample(index.flip(0))
    for i, number in enumerate(index[:4]):
        alone = phantom.sample(number[None])
        for name in ("image", "healthy", "mask", "region", "boxes", "lung", "heart"):
            value = getattr(together, name)[i]
            assert torch.equal(value, getattr(alone, name)[0]), f"{name} of image {number} alone"
            flipped = getattr(turned, name)[len(index) - 1 - i]
            assert torch.equal(value, flipped), f"{name} of image {number} in another order"


@needs_compiler
def test_more_images_than_a_group_are_the_same_as_in_groups():
    draws, x = drawn(11)
    compiled = fused(4)(rings)
    together = compiled(draws, x)
    for start in (0, 4, 8):
        rows = slice(start, min(start + 4, 11))
        alone = compiled(draws.take(rows), x[rows])
        for plane, expected in zip(alone, together, strict=True):
            assert torch.equal(plane, expected[rows])
    assert all(len(plane) == 11 for plane in together)


def curves(p: Draws, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What torch and its compiler round differently on many processors."""
    return torch.sin(x * p.radius), torch.tanh(x), torch.exp(x)


@needs_compiler
def test_compiled_arithmetic_that_changes_a_bit_is_not_used_by_default():
    for arithmetic in (curves, rings):
        draws, x = drawn(5)
        planes = fused_if_equal(2)(arithmetic)(draws, x)
        for plane, expected in zip(planes, as_written(arithmetic)(draws, x), strict=True):
            assert torch.equal(plane, expected)


def test_without_a_usable_compiler_arithmetic_stays_as_written():
    with config.patch({"cpp.cxx": (None, "/nowhere/c++")}):
        draws, x = drawn(5)
        planes = fused_if_equal(3)(rings)(draws, x)
    for plane, expected in zip(planes, rings(draws, x), strict=True):
        assert torch.equal(plane, expected)


def test_compiling_pays_for_many_images_for_fewer_if_done_before_and_never_without_compiler(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(fusion, "_ready", set())
    monkeypatch.setattr(fusion, "_marker", lambda images, size: tmp_path / f"{images} {size}")
    monkeypatch.setattr(fusion, "has_compiler", lambda: False)
    assert not fusion.pays(16, 128, 10**7)
    monkeypatch.setattr(fusion, "has_compiler", lambda: True)
    assert not fusion.pays(16, 128, 100)
    assert not fusion.pays(16, 128, 2000 * torch.get_num_threads())
    (tmp_path / "16 128").touch()
    assert fusion.pays(16, 128, 2000 * torch.get_num_threads())
    assert fusion.pays(16, 128, 1), "they are there now"
    assert not fusion.pays(64, 64, 100) and fusion.pays(64, 64, 10**6 * torch.get_num_threads())


@needs_compiler
def test_by_default_a_phantom_compiles_once_it_pays_and_draws_the_same(monkeypatch):
    asked = []
    monkeypatch.setattr(simulator, "pays", lambda *of: asked.append(of) or of[2] > 20)
    used = []
    monkeypatch.setattr(
        simulator, "fused_if_equal", lambda images: used.append(images) or fused_if_equal(images)
    )
    phantom, written = ChestPhantom(32, chunk=8), ChestPhantom(32, compiled=False)
    index = torch.arange(12)
    expected = written.sample(index)
    for number, uses in ((12, 0), (24, 1)):
        sample = phantom.sample(index)
        assert asked[-1] == (8, 32, number) and len(used) == uses
        for field in fields(sample):
            same = torch.equal(getattr(sample, field.name), getattr(expected, field.name))
            assert same, f"{field.name} after {number} images"
    phantom = ChestPhantom(32, chunk=8)
    phantom.expect(1000)
    phantom.sample(index[:1])
    assert asked[-1] == (8, 32, 1000) and len(used) == 2
    ChestPhantom(32, chunk=8, compiled=False).sample(index[:1])
    assert len(used) == 2 and asked[-1] == (8, 32, 1000)


def test_what_compiles_runs_once_and_in_the_calling_thread(monkeypatch, tmp_path):
    """There an interruption reaches it. It is on one torch thread, as those that render are."""
    monkeypatch.setattr(fusion, "_compiled_here", set())
    monkeypatch.setattr(fusion, "_marker", lambda images, size: tmp_path / f"{images} {size}")
    ran, before = [], torch.get_num_threads()

    def work():
        ran.append((threading.current_thread(), torch.get_num_threads()))
        if len(ran) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fusion.compile_here(as_written, 16, 128, work)
    assert list(tmp_path.iterdir()) == [] and torch.get_num_threads() == before
    for _ in range(2):
        fusion.compile_here(as_written, 16, 128, work)
    assert ran == [(threading.current_thread(), 1)] * 2
    assert (tmp_path / "16 128").exists()


@needs_compiler
def test_a_phantom_compiles_in_the_calling_thread(monkeypatch):
    threads = []
    compiled = fusion._FusedIfEqual._compiled

    def watched(self, tensors):
        threads.append(threading.current_thread())
        return compiled(self, tensors)

    monkeypatch.setattr(fusion._FusedIfEqual, "_compiled", watched)
    monkeypatch.setattr(simulator, "pays", lambda *of: True)
    ChestPhantom(32, chunk=5).sample(torch.arange(7))
    assert set(threads) == {threading.current_thread()} and len(threads) == 2
