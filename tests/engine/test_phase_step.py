"""A batch in fixed memory, through which captured phases see all batches."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cxrtut.data.sample import Batch
from cxrtut.engine.phase_step import StaticBatch, check_same_phase
from cxrtut.engine.task import Phase


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


class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


@dataclass(frozen=True)
class Domains:
    """A batch of each domain, and what else a task may want."""

    healthy: Batch
    ill: Batch
    extra: Any = None
    uniforms: torch.Tensor | None = None


def domains(value: float, extra: Any = None) -> Domains:
    return Domains(make(value), make(-value), extra, torch.full((2, 1), value))


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value
    return [tensor for v in inside for tensor in tensors(v)]


@pytest.mark.parametrize(
    "extra",
    [
        lambda v: {"a": torch.full((2,), v), "b": {"c": torch.full((1, 3), v)}},
        lambda v: OrderedDict(a=torch.full((2,), v)),
        lambda v: (torch.full((2,), v), [torch.full((3,), v)]),
        lambda v: Pair(torch.full((2,), v), torch.full((3,), v)),
    ],
)
def test_every_tensor_however_deep_is_copied_into_the_same_memory(extra):
    fixed = StaticBatch()
    first, second = domains(0.25, extra(0.25)), domains(0.5, extra(0.5))
    seen = fixed.fill(first)
    held = [seen.healthy.image, seen.ill.image, seen.uniforms, *tensors(seen.extra)]
    where = [tensor.data_ptr() for tensor in held]
    given = [first.healthy.image, first.ill.image, first.uniforms, *tensors(first.extra)]
    assert not set(where) & {tensor.data_ptr() for tensor in given}
    seen = fixed.fill(second)
    now = [seen.healthy.image, seen.ill.image, seen.uniforms, *tensors(seen.extra)]
    expected = [second.healthy.image, second.ill.image, second.uniforms, *tensors(second.extra)]
    assert [tensor.data_ptr() for tensor in now] == where
    assert all(torch.equal(one, other) for one, other in zip(now, expected, strict=True))


def test_padded_boxes_are_followed_and_a_longer_padding_is_refused():
    fixed, following = StaticBatch(), make(0.0)
    fixed.fill(make(0.0))
    following.boxes[0, 0], following.box_label[0, 0] = torch.tensor([1.0, 1, 3, 3]), 0
    seen = fixed.fill(following)
    assert torch.equal(seen.boxes, following.boxes) and seen.box_label.tolist() == [[0], [-1]]
    longer = replace(following, boxes=torch.zeros(2, 2, 4), box_label=torch.full((2, 2), -1))
    with pytest.raises(ValueError, match=r"boxes: expected torch.float32 \(2, 1, 4\) as in"):
        fixed.fill(longer)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (1, 2, "extra: expected 1 as in the batch before, got 2"),
        (1.0, 1, "extra: expected float as in the batch before, got int"),
        ("a", "b", "extra: expected 'a' as in the batch before, got 'b'"),
        (None, torch.ones(1), "extra: expected NoneType as in the batch before, got Tensor"),
        (torch.ones(1), None, "extra: expected Tensor as in the batch before, got NoneType"),
        ({"a": 1}, {"b": 1}, r"extra: expected \['a'\] as in the batch before, got \['b'\]"),
        ({"a": {"n": 1}}, {"a": {"n": 2}}, r"extra\['a'\]\['n'\]: expected 1 as in"),
        ([1, 2], [1], r"extra: expected \['2'\] as in the batch before, got \['1'\]"),
        ((1, torch.ones(2)), (1, torch.ones(3)), r"extra\[1\]: expected torch.float32 \(2,\)"),
    ],
)
def test_what_a_recording_cannot_follow_is_refused_by_name(old, new, words):
    fixed = StaticBatch()
    fixed.fill(domains(0.1, old))
    with pytest.raises(ValueError, match=words):
        fixed.fill(domains(0.1, new))


def test_the_field_of_a_batch_in_a_batch_is_named():
    fixed, batch = StaticBatch(), domains(0.1)
    fixed.fill(batch)
    with pytest.raises(ValueError, match=r"^ill\.mask: expected NoneType as in the batch before"):
        fixed.fill(replace(batch, ill=replace(batch.ill, mask=torch.ones(2, 1, 4, 4).bool())))


@pytest.mark.parametrize("value", [np.zeros(2), {1, 2}, object()])
def test_what_nobody_could_compare_is_refused(value):
    with pytest.raises(TypeError, match=rf"extra: expected tensors.*got {type(value).__name__}"):
        StaticBatch().fill(domains(0.1, value))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"updates": ("G", "C")}, r"phase 'G', updates: expected \('G',\) as in the recording"),
        ({"eval_mode": ("C",)}, r"phase 'G', eval_mode: expected \(\) as .* got \('C',\)"),
        ({"max_norm": 1.0}, r"phase 'G', max_norm: expected None as .* got 1.0"),
    ],
)
def test_phases_of_one_name_must_be_one_computation(change, words):
    def loss(batch):
        return batch.image.mean(), {}

    first = Phase("G", ("G",), loss)
    check_same_phase(first, replace(first))
    with pytest.raises(ValueError, match=words):
        check_same_phase(first, replace(first, **change))
