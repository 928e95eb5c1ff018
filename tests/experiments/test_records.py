import json

import pytest

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
    assert asked == [f"{records.PUBLISHED}/one.json"]
