"""Training and test images: no patient may be on both sides."""

import hashlib
from collections.abc import Mapping

from cxrtut.data.source_tables import SourceError


def patient_hash_split(patient: str, test_fraction: float = 0.2) -> str:
    """`train` or `test`, decided by the patient's name alone, for sources without an official
    split.

    SHA-256 of the name, read as a number in [0, 1), is compared with `test_fraction`. Nothing
    random is stored: the split is the same on every machine and stays the same when patients are
    added.
    """
    digest = hashlib.sha256(patient.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") / 2**64 < test_fraction else "train"


def check_patients(patient_of: Mapping[str, str], split: Mapping[str, str]) -> None:
    """Raise SourceError, naming them, if a patient has images in more than one split.

    Args:
        patient_of: image name -> patient.
        split: image name -> split.
    """
    sides: dict[str, set[str]] = {}
    for name, patient in patient_of.items():
        sides.setdefault(patient, set()).add(split[name])
    torn = sorted(patient for patient, where in sides.items() if len(where) > 1)
    if torn:
        raise SourceError(f"{len(torn)} patients are on both sides of the split: {torn[:5]}")
