import pytest

from cxrtut.data.source_tables import SourceError
from cxrtut.data.splits import check_patients, patient_hash_split


def test_the_patient_hash_split_is_stable_and_near_its_fraction():
    splits = [patient_hash_split(str(i)) for i in range(4000)]
    assert abs(splits.count("test") / 4000 - 0.2) < 0.02
    # the first bytes of SHA-256 are ca, 3e, 2e
    assert [patient_hash_split(p, 0.5) for p in ("a", "b", "c")] == ["train", "test", "test"]
    assert {patient_hash_split(str(i), 0.0) for i in range(50)} == {"train"}


def test_patients_on_both_sides_are_named():
    patients = {"x": "1", "y": "1", "z": "2"}
    check_patients(patients, {"x": "train", "y": "train", "z": "test"})
    with pytest.raises(SourceError, match=r"1 patients are on both sides of the split: \['1'\]"):
        check_patients(patients, {"x": "train", "y": "test", "z": "test"})
