"""Checkpoints: whole or not there."""

import errno
import os

import pytest
import torch

from cxrtut.engine import checkpoint
from cxrtut.engine.checkpoint import CheckpointError, save_best


def state(step):
    return {"step": step, "x": torch.arange(1000.0) + step}


def test_what_is_saved_is_loaded_and_only_two_are_kept(tmp_path):
    for step in (1, 20, 300):
        checkpoint.save(tmp_path / "run", state(step))
    names = [path.name for path in checkpoint.checkpoints(tmp_path / "run")]
    assert names == ["checkpoint-00000300.pt", "checkpoint-00000020.pt"]
    assert torch.equal(checkpoint.load(tmp_path / "run")["x"], state(300)["x"])


def test_the_newest_is_the_one_of_most_steps_however_many_digits_they_have(tmp_path):
    for step in (99_999_999, 100_000_000):
        checkpoint.save(tmp_path, state(step))
    assert checkpoint.load(tmp_path)["step"] == 100_000_000


def test_a_full_disk_is_one_line_with_the_last_good_checkpoint_and_leaves_nothing_else(
    tmp_path, monkeypatch
):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"there is no good checkpoint in .*"):
        checkpoint.save(tmp_path, state(1))
    monkeypatch.undo()
    checkpoint.save(tmp_path, state(1))
    monkeypatch.setattr("os.fsync", full)
    for write, name in (
        (checkpoint.save, "checkpoint-00000002.pt"),
        (save_best, "best-00000002.pt"),
    ):
        with pytest.raises(
            CheckpointError,
            match=rf"{name} cannot be written: No space left on device; the last good checkpoint "
            r"is .*checkpoint-00000001\.pt, from which resume=True \(or --resume\) goes on",
        ) as told:
            write(tmp_path, state(2))
        assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001.pt"]


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of the size of files")
def test_a_disk_that_fills_up_in_the_middle_of_a_file_is_told_in_the_same_way(tmp_path):
    import resource

    checkpoint.save(tmp_path, state(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"2\.pt cannot be written: .*; the last good"):
            checkpoint.save(tmp_path, state(2) | {"more": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001.pt"]


def test_an_error_that_is_not_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(AttributeError, match="pickle"):
        checkpoint.save(tmp_path, {"step": 1, "x": lambda: 0})
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_goes_with_the_next_save(tmp_path):
    left = ("checkpoint-00000002.pt.partial-1", "checkpoint-00000007.pt.partial-22")
    for name in (
        *left,
        "best-00000002.pt.partial-3",
        "notes.partial-4",
        "best-00000002.pt.partial-copy",
    ):
        (tmp_path / name).write_bytes(b"half")
    checkpoint.save(tmp_path, state(2))
    checkpoint.save_best(tmp_path, state(2))
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-00000002.pt", "best-00000002.pt", "notes.partial-4",
        "best-00000002.pt.partial-copy",
    }  # fmt: skip


def names(folder):
    return [path.name for path in checkpoint.checkpoints(folder)]


def test_two_good_checkpoints_are_kept_and_a_past_that_did_not_last_goes(tmp_path):
    checkpoint.save(tmp_path, state(2))
    checkpoint.checkpoint_path(tmp_path, 9).write_bytes(b"broken")
    with pytest.warns(UserWarning, match="00000009.pt cannot be read"):
        assert checkpoint.load(tmp_path)["step"] == 2
    checkpoint.save(tmp_path, state(3))
    assert names(tmp_path) == ["checkpoint-00000003.pt", "checkpoint-00000002.pt"]
    checkpoint.save(tmp_path, state(4))
    assert names(tmp_path) == ["checkpoint-00000004.pt", "checkpoint-00000003.pt"]


def test_a_checkpoint_that_was_cut_off_is_not_one_of_the_two(tmp_path):
    for step in (2, 3):
        checkpoint.save(tmp_path, state(step))
    cut_off = checkpoint.checkpoint_path(tmp_path, 3)
    cut_off.write_bytes(cut_off.read_bytes()[:-100])
    checkpoint.save(tmp_path, state(4))
    assert names(tmp_path) == ["checkpoint-00000004.pt", "checkpoint-00000002.pt"]


def test_a_checkpoint_with_zeros_inside_is_not_gone_on_from(tmp_path):
    """Which torch.load reads without a word."""
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step))
    damaged = checkpoint.checkpoint_path(tmp_path, 2)
    data = damaged.read_bytes()
    at = data.index(torch.arange(100.0, 200.0).numpy().tobytes())
    damaged.write_bytes(data[:at] + bytes(400) + data[at + 400 :])
    with pytest.warns(UserWarning, match=r"2\.pt cannot be read \(the checksum of .* does not"):
        assert checkpoint.load(tmp_path)["step"] == 1


def test_with_all_broken_the_error_says_so(tmp_path):
    checkpoint.save(tmp_path, state(1))
    checkpoint.checkpoints(tmp_path)[0].write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(CheckpointError, match="none of 1 checkpoints can be read"),
    ):
        checkpoint.load(tmp_path)


def test_an_empty_folder_and_a_newer_format_are_refused(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"expected a checkpoint-NNNNNNNN.pt in .*found none"):
        checkpoint.load(tmp_path)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(tmp_path, state(1))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="expected a checkpoint of format 1 or older, got 2"):
        checkpoint.load(tmp_path)


class Planted:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    torch.save({"format": 1, "step": 1, "x": Planted()}, tmp_path / "checkpoint-00000001.pt")
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(CheckpointError):
        checkpoint.load(tmp_path)
    assert "code ran" not in capsys.readouterr().out


def test_configurations_are_compared_field_by_field():
    saved = {"steps": 5, "betas": (0.5, 0.9), "data": {"n": 3}}
    checkpoint.check_configuration(saved, {"steps": 9, "betas": [0.5, 0.9], "data": {"n": 3}})
    with pytest.raises(CheckpointError, match=r"betas is \[0.5, 0.9\] .* \[0.9, 0.9\]"):
        checkpoint.check_configuration(saved, saved | {"betas": (0.9, 0.9)})
    with pytest.raises(CheckpointError, match="n is 3 in the checkpoint and 4 in this run"):
        checkpoint.check_configuration(saved, saved | {"data": {"n": 4}})
    with pytest.raises(CheckpointError, match="steps is 5 in the checkpoint and 4"):
        checkpoint.check_configuration(saved, saved | {"steps": 4})
    with pytest.raises(CheckpointError, match="this run has no field 'data'"):
        checkpoint.check_configuration(saved, {"steps": 5, "betas": (0.5, 0.9)})
