"""The run records behind the numbers that the book prints, one JSON file each in `book/results`,
and the small networks that some of them left in `book/weights`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from torch import nn

from cxrtut.engine.weights import load_weights
from cxrtut.files import atomic_write

BOOK = Path(__file__).resolve().parents[2] / "book"
RESULTS = BOOK / "results"
WEIGHTS = BOOK / "weights"
CLAIMS = BOOK / "papers"
PUBLISHED = "https://raw.githubusercontent.com/cxrtut/cxrtut/main/book"


def read_record(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The record of a run; from the checkout this library belongs to, else as it was published.

    Args:
        name: such as "realism".
        folder: where records are; a library installed without its checkout (on Colab) has none.

    Raises:
        FileNotFoundError: there is a folder of records, but none of that name, or no folder and no
            network.
    """
    file = folder / f"{name}.json"
    if file.exists():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    if folder.exists():
        known = sorted(path.stem for path in folder.glob("*.json"))
        raise FileNotFoundError(f"no record {name!r} in {folder}; there are {known}")
    return dict(json.loads(_published(f"results/{name}.json")))


def claims_file(paper: str, folder: Path = CLAIMS) -> Path:
    """Where the claims of a paper are (see `experiments.claims`): in the checkout this library
    belongs to, else in the user's cache, fetched anew each time as they were published.

    Raises:
        FileNotFoundError: they are neither here nor online.
    """
    name = f"{paper}.claims.yml"
    if (folder / name).exists():
        return folder / name
    return _cached(name, _published(f"papers/{name}"))


def load_recorded(
    network: nn.Module, record: Mapping[str, Any], method: str, folder: Path = WEIGHTS
) -> None:
    """Loads the network that a run left, of the size the record says, and makes it ready for use.

    Args:
        network: of the same shape; changed in place, set to evaluation.
        record: of the run, with `weights`.
        method: such as "G-D-C".
        folder: where the files are; what is not there is fetched as it was published, once.

    Raises:
        FileNotFoundError: the record has no such network, or it is neither here nor online.
        WeightsError: the file is not the one of the record.
    """
    kept = record.get("weights", {})
    if method not in kept:
        raise FileNotFoundError(f"the record has no network {method!r}; it has {sorted(kept)}")
    path = folder / kept[method]["file"]
    sha256 = kept[method]["sha256"]
    if not path.exists():
        name = f"{sha256[:12]}-{path.name}"  # a later record has other weights under the same name
        path = _cache() / name
        if not path.exists():
            path = _cached(name, _published(f"weights/{kept[method]['file']}"))
    load_weights(network, path, sha256)
    network.eval()


def _published(name: str) -> bytes:
    """A file of the book as it was published."""
    try:
        with urlopen(f"{PUBLISHED}/{name}", timeout=60) as answer:
            data: bytes = answer.read()
    except URLError as error:
        raise FileNotFoundError(f"{name} is neither here nor online: {error}") from error
    return data


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(home) / "cxrtut"


def _cached(name: str, data: bytes) -> Path:
    """The path of a file in the user's cache, with these contents."""
    path = _cache() / name
    with atomic_write(path) as file:
        file.write(data)
    return path
