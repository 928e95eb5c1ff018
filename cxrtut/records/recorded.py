"""The run records behind the numbers that the book prints, the claims that they test (both travel
with the library), and the small networks that some runs left (fetched once).
"""

from __future__ import annotations

from pathlib import Path

from cxrtut import __version__
from cxrtut.files import sha256_of_file
from cxrtut.records.run_record import RecordError, RunRecord, Weights, read_record_file

HERE = Path(__file__).resolve().parent
RUNS = HERE / "runs"
CLAIMS = HERE / "claimed"
CHECKOUT_WEIGHTS = HERE.parents[1] / "book" / "weights"
PUBLISHED = f"https://github.com/cxrtut/cxrtut/raw/v{__version__}/book/weights/"


def read_record(name: str, folder: Path = RUNS) -> RunRecord:
    """The record of a run.

    Args:
        name: such as "realism".
        folder: where records are.

    Raises:
        FileNotFoundError: there is none of that name; those that are there are named.
    """
    file = folder / f"{name}.json"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.json")))
        raise FileNotFoundError(f"no record {name!r} in {folder}; there are {known}")
    return read_record_file(file)


def claims_file(paper: str) -> Path:
    """Where the claims of a paper are; see `records.claims`.

    Raises:
        FileNotFoundError: no such paper.
    """
    path = CLAIMS / f"{paper}.yml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in CLAIMS.glob("*.yml")))
        raise FileNotFoundError(f"no claims of {paper!r}; there are those of {known}")
    return path


def weights_file(weights: Weights, folder: Path = CHECKOUT_WEIGHTS) -> Path:
    """The file of networks that a record names: from a folder, else from the user's cache, else as
    it was published with this release, fetched once.

    Args:
        weights: name and SHA-256 of the file.
        folder: where it may lie already; by default `book/weights` of a checkout.

    Raises:
        FileNotFoundError: it is neither here nor online.
        RecordError: what is there, or what came, is another file.
    """
    path = folder / weights.file
    if path.exists():
        found = sha256_of_file(path)
        if found != weights.sha256:
            raise RecordError(
                f"{path}: expected SHA-256 {weights.sha256[:12]}..., got {found[:12]}..."
            )
        return path
    import pooch

    # By its hash: a later record has other weights under the same name
    name = f"{weights.sha256[:12]}-{weights.file}"
    try:
        fetched = pooch.retrieve(
            PUBLISHED + weights.file, known_hash=f"sha256:{weights.sha256}", fname=name,
            path=pooch.os_cache("cxrtut"),
        )  # fmt: skip
    except OSError as error:
        raise FileNotFoundError(f"{weights.file} is neither here nor online: {error}") from error
    except ValueError as error:
        raise RecordError(f"{PUBLISHED}{weights.file}: {error}") from error
    return Path(fetched)
