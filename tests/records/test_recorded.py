import io
import json

import pytest
import torch
from cxrtut.engine.weights import WeightsError, save_weights
from torch import nn

from cxrtut.experiments import records


def test_a_record_is_read_by_its_name(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({"value": 3}))
    assert records.read_record("one", tmp_path) == {"value": 3}


def test_a_missing_record_is_named_with_those_there_are(tmp_path):
    (tmp_path / "one.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no record 'two'.*\['one'\]"):
        records.read_record("two", tmp_path)


def test_without_a_checkout_the_published_record_is_asked_for(tmp_path, monkeypatch):
    asked = []

    def offline(address, timeout):
        asked.append(address)
        raise records.URLError("offline")

    monkeypatch.setattr(records, "urlopen", offline)
    with pytest.raises(FileNotFoundError, match="neither here nor online"):
        records.read_record("one", tmp_path / "absent")
    assert asked == [f"{records.PUBLISHED}/results/one.json"]


def test_claims_are_those_of_the_checkout_or_as_published_each_time_anew(tmp_path, monkeypatch):
    assert records.claims_file("biomarker") == records.CLAIMS / "biomarker.claims.yml"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers, asked = [b"- first", b"- second"], []

    def online(address, timeout):
        asked.append(address)
        return io.BytesIO(answers[len(asked) - 1])

    monkeypatch.setattr(records, "urlopen", online)
    for expected in answers:
        path = records.claims_file("one", tmp_path / "absent")
        assert path.read_bytes() == expected and path.is_relative_to(tmp_path)
    assert asked == [f"{records.PUBLISHED}/papers/one.claims.yml"] * 2


def recorded(tmp_path):
    network = nn.Linear(2, 1)
    sha256 = save_weights(network, tmp_path / "a.safetensors")
    return network, {"weights": {"A": {"file": "a.safetensors", "sha256": sha256}}}


def test_a_recorded_network_is_loaded_and_ready(tmp_path):
    network, record = recorded(tmp_path)
    other = nn.Linear(2, 1)
    records.load_recorded(other, record, "A", tmp_path)
    assert torch.equal(other.weight, network.weight) and not other.training


def test_a_network_that_was_not_kept_or_is_another_is_refused(tmp_path):
    _, record = recorded(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the record has no network 'B'; it has \['A'\]"):
        records.load_recorded(nn.Linear(2, 1), record, "B", tmp_path)
    save_weights(nn.Linear(2, 1), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="expected SHA-256"):
        records.load_recorded(nn.Linear(2, 1), record, "A", tmp_path)


def test_without_a_checkout_weights_are_fetched_once_and_checked(tmp_path, monkeypatch):
    network, record = recorded(tmp_path)
    data, asked = (tmp_path / "a.safetensors").read_bytes(), []

    def online(address, timeout):
        asked.append(address)
        return io.BytesIO(data)

    monkeypatch.setattr(records, "urlopen", online)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        other = nn.Linear(2, 1)
        records.load_recorded(other, record, "A", tmp_path / "absent")
        assert torch.equal(other.weight, network.weight)
    assert asked == [f"{records.PUBLISHED}/weights/a.safetensors"]
    name = f"{record['weights']['A']['sha256'][:12]}-a.safetensors"
    assert [path.name for path in (tmp_path / "cache" / "cxrtut").iterdir()] == [name]


def test_later_weights_of_the_same_name_are_fetched_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        network, record = recorded(tmp_path)
        data = (tmp_path / "a.safetensors").read_bytes()
        monkeypatch.setattr(records, "urlopen", lambda *_, data=data, **__: io.BytesIO(data))
        other = nn.Linear(2, 1)
        records.load_recorded(other, record, "A", tmp_path / "absent")
        assert torch.equal(other.weight, network.weight)
