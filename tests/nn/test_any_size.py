"""A state decides how large buffers are."""

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
