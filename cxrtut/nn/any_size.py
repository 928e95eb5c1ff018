"""Buffers of any size: what is loaded decides how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def load_any_size(module: nn.Module) -> None:
    """From now on a state with buffers of another size can be loaded into a module: its own buffers
    are made as large as those of the state. A checkpoint and a file of weights then bring back what
    was measured in a run, such as the images that others are compared with.
    """
    module.register_load_state_dict_pre_hook(_make_room)


def _make_room(module: nn.Module, state: Mapping[str, Any], prefix: str, *unused: object) -> None:
    for name, buffer in list(module.named_buffers(recurse=False)):
        if (saved := state.get(f"{prefix}{name}")) is not None:
            setattr(module, name, buffer.new_zeros(saved.shape))
