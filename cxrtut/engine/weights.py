"""Trained networks as files: safetensors, which can hold numbers and nothing that runs, identified
by their SHA-256.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor, nn

from cxrtut.files import atomic_write


class WeightsError(Exception):
    """A file of weights that is not the one expected, or does not fit the network."""


def save_weights(network: nn.Module, path: Path) -> str:
    """Writes parameters and buffers, all or nothing; returns the SHA-256 of the file."""
    from safetensors.torch import save

    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    data = save(state)
    with atomic_write(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def load_weights(network: nn.Module, path: Path, sha256: str) -> None:
    """Reads a file of `save_weights` into a network of the same shape.

    Args:
        network: changed in place.
        path: the file.
        sha256: that the file must have, from a run record.

    Raises:
        WeightsError: another file, a broken one, or weights of another network.
    """
    from safetensors.torch import load

    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(f"{path}: expected SHA-256 {sha256[:12]}..., got {found[:12]}...")
    state: dict[str, Tensor] = load(data)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise WeightsError(f"{path} holds another network: {told[:300]}") from error
