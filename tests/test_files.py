"""Files that are whole or not there."""

import hashlib

import pytest

from cxrtut.files import atomic_write, sha256_of_file


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "x"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert [p.name for p in path.parent.iterdir()] == ["x"]


def test_an_interruption_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_file_is_flushed_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr("os.fsync", lambda _: flushed.append((tmp_path / "x").exists()))
    with atomic_write(tmp_path / "x") as file:
        file.write(b"all")
    assert flushed == [False] and (tmp_path / "x").read_bytes() == b"all"


def test_the_hash_of_a_file_is_that_of_all_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "x").write_bytes(content)
    assert sha256_of_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
