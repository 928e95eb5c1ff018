"""A batch in fixed memory, through which captured phases see all batches."""

from dataclasses import replace

import pytest
import torch

from cxrtut.data.sample import Batch
from cxrtut.engine.phase_step import StaticBatch


def make(value: float, n: int = 2) -> Batch:
    return Batch(
        image=torch.full((n, 1, 4, 4), value), label_vector=torch.zeros(n, 1),
        boxes=torch.zeros(n, 1, 4), box_label=torch.full((n, 1), -1), index=torch.arange(n),
        uniforms=torch.rand(n, 4),
    )  # fmt: skip


def test_every_batch_appears_in_the_same_memory():
    fixed = StaticBatch()
    first, second = make(0.25), make(-0.5)
    seen = fixed.fill(first)
    where = seen.image.data_ptr()
    assert where != first.image.data_ptr() and torch.equal(seen.image, first.image)
    seen = fixed.fill(second)
    assert seen.image.data_ptr() == where
    for name in ("image", "uniforms", "index"):
        assert torch.equal(getattr(seen, name), getattr(second, name))
    assert seen.mask is None
    assert torch.equal(first.image, torch.full((2, 1, 4, 4), 0.25))  # the given one is not touched


def test_phases_of_a_step_copy_only_their_draws(monkeypatch):
    fixed, batch = StaticBatch(), make(0.1)
    fixed.fill(batch)
    copied = []
    original = torch.Tensor.copy_
    monkeypatch.setattr(
        torch.Tensor,
        "copy_",
        lambda self, *given, **how: (copied.append(given[0]), original(self, *given, **how))[1],
    )
    following = replace(batch, uniforms=torch.rand(2, 4))
    seen = fixed.fill(following)
    assert len(copied) == 1 and copied[0] is following.uniforms
    assert torch.equal(seen.uniforms, following.uniforms) and torch.equal(seen.image, batch.image)


def test_a_batch_of_another_size_is_refused():
    fixed = StaticBatch()
    fixed.fill(make(0.0))
    for n in (3, 1):  # a single image would fit by broadcasting
        with pytest.raises(
            ValueError, match=r"image: expected torch.float32 \(2, 1, 4, 4\) as in the batch"
        ):
            fixed.fill(make(0.0, n))
