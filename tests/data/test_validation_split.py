"""A share of the held-out patients decides."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtut.data.split import one_disease
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.validation_split import with_validation
from cxrtut.experiments.source import Source


@pytest.fixture(scope="module")
def split():
    return Source().all_diseases(32, 0, 600)


def test_patients_are_on_one_side_and_nothing_is_lost(split):
    found = with_validation(split, 0.25)
    assert np.array_equal(found.train, split.train)
    assert np.array_equal(np.sort(np.concatenate([found.validation, found.test])), split.test)
    sides = [set(found.patients(rows)) for rows in (found.train, found.validation, found.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    n_patients = len(sides[1]) + len(sides[2])
    assert 0.12 < len(sides[1]) / n_patients < 0.38
    assert found.pairs("validation")[0].size and found.pairs("test")[0].size


def test_who_decides_follows_from_the_name_alone(split):
    few = replace(split, test=split.test[::2])
    every, some = with_validation(split, 0.25), with_validation(few, 0.25)
    assert set(some.validation) == set(every.validation) & set(few.test)
    assert set(with_validation(split, 0.5).validation) > set(every.validation)


def test_who_decides_has_nothing_to_do_with_who_is_held_out():
    """Without an official split both follow from the names of patients."""
    n = 400
    store = ArrayStore.from_arrays(
        np.zeros((n, 1, 4, 4), np.uint8), (np.arange(n) % 2).astype(np.uint8)[:, None], ("A",)
    )
    held_out = one_disease(store, disease="A")
    assert 0.1 * n < len(held_out.test) < 0.3 * n
    for share in (0.1, 0.5):
        found = with_validation(held_out, share)
        assert len(found.validation) / len(held_out.test) == pytest.approx(share, abs=0.15)


def test_the_share_belongs_to_what_the_images_are(split):
    assert with_validation(split, 0.25).identity == {**split.identity, "validation share": 0.25}


def test_what_cannot_be_shared_is_refused(split):
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match=r"share: expected one in \(0, 1\), got"):
            with_validation(split, share)
    with pytest.raises(ValueError, match="expected a split without validation rows, got"):
        with_validation(with_validation(split, 0.25), 0.25)
    with pytest.raises(StoreError, match=r"expected held-out patients enough .* got 0 and 1"):
        with_validation(replace(split, test=with_validation(split, 0.25).test[:1]), 0.25)
