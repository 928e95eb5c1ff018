"""Run records."""

import json
import re

import pytest
import torch
from cxrtut.engine.records import configuration_hash, run_record, write_json

from cxrtut.engine import records


def test_a_record_says_where_a_number_comes_from(tmp_path):
    record = run_record(
        what="a test", command="pytest", configuration={"a": 1, "b": (0.5, 0.9)},
        data={"source": "toy", "fingerprint": "f"}, seeds=[0, 1], device="cpu", seconds=1.234,
        results={"average precision": 0.5},
    )  # fmt: skip
    write_json(tmp_path / "r.json", record)
    read = json.loads((tmp_path / "r.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", read["revision"])
    assert read["configuration hash"] == configuration_hash({"b": [0.5, 0.9], "a": 1})
    assert read["versions"]["torch"] == torch.__version__ and read["seconds"] == 1.2
    assert read["hardware"]["cores"] >= 1 and read["hardware"]["gpu"] is None
    assert read["seeds"] == [0, 1] and read["results"] == {"average precision": 0.5}


def test_the_hash_changes_with_any_value():
    assert configuration_hash({"a": 1}) != configuration_hash({"a": 2})
    assert len(configuration_hash({})) == 12


def test_a_record_that_cannot_be_written_leaves_the_former_one(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"x": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_a_full_disk_leaves_the_former_record_and_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_json(path, {"x": 1})

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1} and [p.name for p in tmp_path.iterdir()] == [
        "r.json"
    ]


def test_the_revision_is_that_of_the_beginning(monkeypatch):
    before = records.revision()
    monkeypatch.setattr(records.subprocess, "run", None)  # would fail, were git asked again
    assert records.revision() == before
