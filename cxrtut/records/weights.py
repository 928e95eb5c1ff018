"""A trained system as one file: safetensors, which can hold numbers and nothing that runs, with
what is needed to build the system again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from cxrtut.data.sample import System
from cxrtut.engine.initial_weights import WeightsError
from cxrtut.files import atomic_write
from cxrtut.records.run_record import Json

_KEY = "cxrtut"


@dataclass(frozen=True)
class Description:
    """What a file of weights says of itself.

    Attributes:
        paper: whose comparison the arm is of.
        arm: of the comparison.
        configuration: every field of the paper's `Config`.
        classes: of the images it was trained on.
    """

    paper: str
    arm: str
    configuration: Mapping[str, Json]
    classes: tuple[str, ...]


def save_system(system: System, description: Description, path: Path) -> str:
    """Writes all networks of a system, all or nothing; returns the SHA-256 of the file."""
    from safetensors.torch import save

    state = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in system.networks.items()
        for key, value in network.state_dict().items()
    }
    data = save(state, {_KEY: json.dumps(asdict(description), sort_keys=True)})
    with atomic_write(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def read_description(path: Path) -> Description:
    """What a file of `save_system` says of itself.

    Raises:
        WeightsError: not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: expected a file of weights: {error}") from error
    if about is None:
        raise WeightsError(f"{path}: expected the weights of a cxrtut system, got other weights")
    content = json.loads(about)
    return Description(**content | {"classes": tuple(content["classes"])})


def load_networks(system: System, path: Path) -> None:
    """Puts the networks of a file of `save_system` into a system built alike, and makes them ready
    for use.

    Raises:
        WeightsError: a broken file, or weights of other networks.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: expected a file of weights: {error}") from error
    known = {key.partition(".")[0] for key in state}
    expected = {k for k, network in system.networks.items() if network.state_dict()}
    if known != expected:
        raise WeightsError(f"{path}: expected networks {sorted(expected)}, got {sorted(known)}")
    for name in expected:
        network = system.networks[name]
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise WeightsError(f"{path} holds another network {name!r}: {reason[:300]}") from error
        network.eval()
