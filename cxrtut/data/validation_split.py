"""Images that decide: a share of the patients whom no network has learnt from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cxrtut.data.split import Split
from cxrtut.data.splits import patient_hash_split
from cxrtut.data.store import StoreError


def with_validation(split: Split, share: float) -> Split:
    """A split whose test patients are shared out: some are for validation, such as the choice of a
    threshold, the others for testing as before.

    They are taken from the test patients, because there are boxes: in ChestX-ray14 no image to
    learn from has one. Who decides follows from the name of a patient, so that it is the same on
    every machine.

    Args:
        split: without validation rows.
        share: of the test patients, in (0, 1).

    Raises:
        ValueError: a share outside (0, 1), or a split that has validation rows.
        StoreError: one of the two sides would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: expected one in (0, 1), got {share}")
    if len(split.validation):
        raise ValueError(
            f"{split.name}: expected a split without validation rows, got {len(split.validation)}"
        )
    sides = [patient_hash_split(f"validation {p}", share) for p in split.patients(split.test)]
    decides = np.array([side == "test" for side in sides], dtype=bool)
    validation, test = split.test[decides], split.test[~decides]
    if not len(validation) or not len(test):
        raise StoreError(
            f"{split.name}: expected held-out patients enough for validation and test, got "
            f"{len(validation)} and {len(test)} images"
        )
    identity = {**split.identity, "validation share": share}
    return replace(split, validation=validation, test=test, identity=identity)
