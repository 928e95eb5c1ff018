"""Writing a store: several writers of one path, links, and a disk that is too small."""

import os
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cxrtut.data import writer as writer_module
from cxrtut.data.store import ArrayStore, StoreError, StoreWriter


def writer(path: Path, **changes) -> StoreWriter:
    arguments = {"source": "test", "classes": ("Mass",), "n": 2, "size": 4, "licence": "none"}
    return StoreWriter(path, **(arguments | changes))


def block(n: int = 2, value: int = 7, first: int = 0) -> tuple:
    table = [{"name": str(first + i), "patient": "p", "split": "train"} for i in range(n)]
    return np.full((n, 1, 4, 4), value, np.uint8), np.zeros((n, 1), np.uint8), table


def test_two_writers_of_one_path_at_once_both_work_where_they_may_overwrite(tmp_path):
    with writer(tmp_path / "s", overwrite=True) as one, writer(tmp_path / "s", overwrite=True) as w:
        one.write(0, *block(value=1))
        w.write(0, *block(value=2))
    assert (np.asarray(ArrayStore.open(tmp_path / "s", verify="full").images) == 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("present", [False, True])
def test_a_store_is_written_where_a_link_leads_to(tmp_path, present):
    (tmp_path / "disk").mkdir()
    (tmp_path / "s").symlink_to(tmp_path / "disk" / "store")
    for value in (1, 2) if present else (2,):
        with writer(tmp_path / "s", overwrite=True) as w:
            w.write(0, *block(value=value))
    assert (tmp_path / "s").is_symlink()
    assert (np.asarray(ArrayStore.open(tmp_path / "s", verify="full").images) == 2).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "s"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["store"]


def test_of_two_writers_of_one_path_the_second_to_finish_is_refused(tmp_path):
    with pytest.raises(StoreError, match="exists already"), writer(tmp_path / "s") as one:
        one.write(0, *block(value=1))
        with writer(tmp_path / "s") as other:
            other.write(0, *block(value=2))
    assert (np.asarray(ArrayStore.open(tmp_path / "s", verify="full").images) == 2).all()
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_many_threads_that_write_one_path_leave_one_whole_store(tmp_path):
    barrier, ends = threading.Barrier(4, timeout=30), []

    def write_one(value):
        try:
            with writer(tmp_path / "s", overwrite=True) as w:
                w.write(0, *block(value=value))
                barrier.wait()
            ends.append(value)
        except BaseException as error:
            ends.append(error)

    threads = [threading.Thread(target=write_one, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == [1, 2, 3, 4]
    assert ArrayStore.open(tmp_path / "s", verify="full").images.max() in (1, 2, 3, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_process_that_was_quicker_is_named_and_its_store_stays(
    tmp_path, monkeypatch, overwrite
):
    """The other store comes between the check of the place and the renaming."""
    if overwrite:
        with writer(tmp_path / "s") as former:
            former.write(0, *block(value=1))
    rename = os.rename

    def after_another(source, target):
        if Path(target) == tmp_path / "s":
            monkeypatch.setattr(os, "rename", rename)
            with writer(tmp_path / "other") as other:
                other.write(0, *block(value=2))
            rename(tmp_path / "other", tmp_path / "s")
        rename(source, target)

    words = "another process wrote a store there in the meantime"
    with (
        pytest.raises(StoreError, match=words),
        writer(tmp_path / "s", overwrite=overwrite) as mine,
    ):
        mine.write(0, *block(value=3))
        monkeypatch.setattr(os, "rename", after_another)
        monkeypatch.setattr(writer_module, "_SWAP", nullcontext())
    assert (np.asarray(ArrayStore.open(tmp_path / "s", verify="full").images) == 2).all()
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of the file size is a POSIX thing")
@pytest.mark.parametrize(
    ("what", "n", "limit"),
    [("header", 2, 10), ("pixels", 200, 2500), ("tables", 200, 3500), ("manifest", 2, 400)],
)
def test_nothing_is_left_of_a_store_for_which_the_disk_is_too_small(tmp_path, what, n, limit):
    import resource

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="File too large"), writer(tmp_path / "s", n=n) as w:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            for row in range(n):
                images, labels, [line] = block(1, first=row)
                w.write(row, images, labels, [line | {"name": f"{row:040}"}])
            assert what in ("tables", "manifest")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
