"""Networks that begin from a file: weights that somebody else trained, known by their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cxrtut.files import sha256_of_file


class WeightsError(Exception):
    """A file of weights that is not the one expected, or does not fit the network."""


def begin_from(networks: Mapping[str, nn.Module], files: Mapping[str, Path]) -> dict[str, str]:
    """Loads initial weights.

    Args:
        networks: of a task.
        files: the name of a network to a file with its state: safetensors, or what `torch.save`
            wrote of a `state_dict` (read with `weights_only`, so that nothing in it runs). A file
            that holds several networks has their names before the keys, "generator.conv.weight".

    Returns:
        The SHA-256 of each file, for the record.

    Raises:
        WeightsError: no such network, a file that cannot be read, or weights of another shape; what
            is missing or too much is named.
    """
    hashes = {}
    for name, path in files.items():
        if name not in networks:
            raise WeightsError(
                f"begin_from: expected one of the networks {', '.join(networks)}, got {name!r}"
            )
        state, prefix = _read(path), f"{name}."
        if state.keys() != networks[name].state_dict().keys():  # of several networks
            inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            state = inside or state
        try:
            networks[name].load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise WeightsError(
                f"{path} does not fit the network {name!r}: {reason[:300]}"
            ) from error
        hashes[name] = sha256_of_file(path)
    return hashes


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"begin_from: expected a file of weights, {path} is none")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or foreign file fails in many ways
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise WeightsError(f"{path}: expected safetensors or a state_dict: {reason}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected a state_dict of tensors, got {type(state).__name__}")
    return dict(state)
