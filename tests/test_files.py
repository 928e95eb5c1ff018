"""Files that are whole or not there."""

import errno
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxrtut.files import (
    atomic_write,
    flush_folder,
    flush_to_disk,
    partial_path,
    remove_partial_files,
    sha256_of_file,
)


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


@pytest.mark.parametrize("code", ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EACCES", "EPERM"])
def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch, code):
    def cannot(*_):
        raise OSError(getattr(errno, code), "cannot")

    for name in ("os.fsync", "os.open"):
        with monkeypatch.context() as patched:
            patched.setattr(name, cannot)
            flush_folder(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("os.name", "nt")
        patched.setattr("os.open", cannot)
        flush_folder(tmp_path)


@pytest.mark.parametrize("code", ["EIO", "ENOSPC"])
def test_a_disk_that_fails_is_an_error_for_folders_and_files(tmp_path, monkeypatch, code):
    def fails(_):
        raise OSError(getattr(errno, code), "fails")

    monkeypatch.setattr("os.fsync", fails)
    for flush in (lambda: flush_folder(tmp_path), lambda: flush_to_disk(0)):
        with pytest.raises(OSError, match="fails"):
            flush()


def test_a_file_system_that_does_not_know_of_flushing_takes_files(tmp_path, monkeypatch):
    def unknown(_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr("os.fsync", unknown)
    with atomic_write(tmp_path / "x") as file:
        file.write(b"all")
    assert (tmp_path / "x").read_bytes() == b"all"


def test_a_full_disk_is_told_with_the_path(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(OSError, match=r"No space left on device: '.*x'"), atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "n" * 250 + ".json"])
def test_a_name_of_any_length_that_the_file_system_takes_can_be_written(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"all")
        (partial,) = tmp_path.iterdir()
        assert len(os.fsencode(partial.name)) < 255 and ".partial-" in partial.name
    assert (tmp_path / name).read_bytes() == b"all"
    assert partial_path(tmp_path / name) != partial_path(tmp_path / f"{name[:-1]}m")


def test_a_path_as_long_as_it_may_be_can_be_written(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 3860:
        folder = folder / ("d" * 100)
    folder.mkdir(parents=True)
    path = folder / ("n" * (4094 - len(str(folder))))
    assert len(str(path)) == 4095
    with atomic_write(path) as file:
        file.write(b"all")
    assert path.read_bytes() == b"all"


def test_only_what_others_left_of_a_file_is_removed(tmp_path):
    path = tmp_path / "x[1]*.pt"
    with atomic_write(path) as file:
        file.write(b"all")
        keep = {partial_path(path).name, "x1y.pt.partial-1", "x[1]*.pt.partial-old"}
        for name in (*keep, "x[1]*.pt.partial-1"):
            (tmp_path / name).touch()
        remove_partial_files(path)
        assert {left.name for left in tmp_path.iterdir()} == keep


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may open every folder")
def test_a_folder_that_may_not_be_read_is_written_in(tmp_path):
    folder = tmp_path / "hidden"
    folder.mkdir()
    folder.chmod(stat.S_IWUSR | stat.S_IXUSR)
    flush_folder(folder)
    folder.chmod(stat.S_IRWXU)


def test_threads_that_write_one_file_each_write_it_whole(tmp_path):
    path = tmp_path / "a.json"

    def write(text):
        for _ in range(30):
            with atomic_write(path) as file:
                file.write(text[:500])
                file.write(text[500:])

    texts = [bytes([65 + i]) * 1000 for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, texts))
    assert path.read_bytes() in texts and list(tmp_path.iterdir()) == [path]
