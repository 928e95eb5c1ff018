"""Checkpoints: whole or not there."""

import pytest
import torch

from cxrtut.engine import checkpoint
from cxrtut.engine.checkpoint import CheckpointError


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


def test_an_interrupted_write_leaves_the_former_one_and_no_partial_file(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(1))

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(tmp_path, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001.pt"]


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
