"""Records, claims and networks that travel with the library, or are fetched once."""

from pathlib import Path

import pooch
import pytest
from records.test_run_record import a_record

from cxrtut.files import sha256_of_file
from cxrtut.records import recorded
from cxrtut.records.run_record import RecordError, Weights, write_record


def test_a_record_is_read_by_its_name(tmp_path):
    write_record(tmp_path / "one.json", a_record())
    assert recorded.read_record("one", tmp_path) == a_record()


def test_a_missing_record_is_named_with_those_there_are(tmp_path):
    write_record(tmp_path / "one.json", a_record())
    with pytest.raises(FileNotFoundError, match=r"no record 'two'.*; there are one$"):
        recorded.read_record("two", tmp_path)


def test_claims_travel_with_the_library():
    assert recorded.claims_file("biomarker") == recorded.CLAIMS / "biomarker.yml"
    with pytest.raises(FileNotFoundError, match=r"no claims of 'x'.*biomarker, disease_masks"):
        recorded.claims_file("x")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "here" / "a.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"numbers")
    return Weights("a.safetensors", sha256_of_file(path))


def test_a_file_that_is_there_is_taken_if_it_is_the_one(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", None)  # would fail, were it called
    here = tmp_path / "here"
    assert recorded.weights_file(weights, here) == here / "a.safetensors"
    with pytest.raises(RecordError, match=r"expected SHA-256 000000000000\.\.\., got"):
        recorded.weights_file(Weights("a.safetensors", "0" * 64), here)


def test_without_a_checkout_weights_are_fetched_by_their_hash(tmp_path, weights, monkeypatch):
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash, fname, Path(path)))
        return str(tmp_path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    name = f"{weights.sha256[:12]}-a.safetensors"  # a later one of the name is another file
    assert recorded.weights_file(weights, tmp_path / "absent") == tmp_path / name
    assert asked == [
        (
            f"{recorded.PUBLISHED}a.safetensors", f"sha256:{weights.sha256}", name,
            Path(pooch.os_cache("cxrtut")),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "expected", "told"),
    [
        (OSError("offline"), FileNotFoundError, "a.safetensors is neither here nor online"),
        (ValueError("SHA256 hash of downloaded file"), RecordError, "hash of downloaded file"),
    ],
)
def test_what_cannot_be_fetched_is_told(tmp_path, weights, monkeypatch, error, expected, told):
    def retrieve(*given, **named):
        raise error

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(expected, match=told):
        recorded.weights_file(weights, tmp_path / "absent")
