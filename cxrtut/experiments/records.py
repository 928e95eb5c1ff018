"""The run records behind the numbers that the book prints, one JSON file each in `book/results`."""

import json
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

RESULTS = Path(__file__).resolve().parents[2] / "book" / "results"
PUBLISHED = "https://raw.githubusercontent.com/cxrtut/cxrtut/main/book/results"


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
    try:
        with urlopen(f"{PUBLISHED}/{name}.json", timeout=30) as answer:
            return dict(json.load(answer))
    except URLError as error:
        raise FileNotFoundError(f"record {name!r} is neither here nor online: {error}") from error
