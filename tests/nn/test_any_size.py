"""A state decides how large buffers are."""

import copy

import pytest
import torch
from torch import nn

from cxrtut.nn.any_size import load_any_size


class Kept(nn.Module):
    def __init__(self, n, free=True):
        super().__init__()
        self.register_buffer("mean", torch.arange(float(n)))
        self.inner = nn.BatchNorm2d(3)
        if free:
            load_any_size(self)


def test_buffers_take_the_size_of_the_state_and_keep_their_kind():
    source, target = nn.ModuleDict({"a": Kept(5)}), nn.ModuleDict({"a": Kept(2)})
    target.load_state_dict(source.state_dict())
    assert torch.equal(target["a"].mean, source["a"].mean)
    assert "mean" in dict(target["a"].named_buffers())


def test_buffers_keep_their_precision_and_their_device():
    target, state = Kept(2), Kept(5).double().state_dict()
    target.load_state_dict(state)
    assert target.mean.dtype == torch.float32 and target.mean.tolist() == [0, 1, 2, 3, 4]
    elsewhere = Kept(2).to("meta")
    with pytest.warns(UserWarning, match="to a meta parameter"):  # takes the size alone
        elsewhere.load_state_dict(state)
    assert elsewhere.mean.is_meta and elsewhere.mean.shape == (5,)


def test_a_copy_makes_room_for_itself_and_not_for_the_original():
    original = Kept(2)
    other = copy.deepcopy(original)
    other.load_state_dict(Kept(5).state_dict())
    assert len(other.mean) == 5 and original.mean.tolist() == [0, 1]


def test_without_it_another_size_is_refused_and_what_lies_deeper_still_is():
    with pytest.raises(RuntimeError, match="size mismatch for mean"):
        Kept(2, free=False).load_state_dict(Kept(5).state_dict())
    wrong = Kept(5).state_dict() | {"inner.running_mean": torch.zeros(4)}
    with pytest.raises(RuntimeError, match=r"size mismatch for inner\.running_mean"):
        Kept(2).load_state_dict(wrong)


def test_a_state_that_lacks_the_buffer_is_refused():
    state = Kept(5).state_dict()
    del state["mean"]
    with pytest.raises(RuntimeError, match="Missing key"):
        Kept(2).load_state_dict(state)
