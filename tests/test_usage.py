"""Wrong usage of the command line: one line that says what was expected and what came."""

import os
import time

import cv2
import numpy as np
import pytest

from cxrtut import __main__ as program
from cxrtut import usage
from cxrtut.engine.stopping import Interrupted
from cxrtut.experiments import answers, comparison

SMALL = ("--device", "cpu", "--images", 64, "--set", "steps=2", "--set", "warm_up_steps=2")


def refused(capsys, *words):
    """The one line that a command says; it must have ended with 1 and without a traceback."""
    assert program.main([str(word) for word in words]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"cxrtut {words[0]}: error: ") and told.count("\n") == 1
    return told.partition(": error: ")[2].rstrip("\n")


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be trained, measured or loaded."""

    def never(*_, **__):
        raise AssertionError("this is too late")

    for name in ("train", "reproduce"):
        monkeypatch.setattr(comparison, name, never)


@pytest.mark.parametrize("command", ["train", "reproduce"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--precision", "float16"), "--precision: float16 expects a CUDA device, got cpu"),
        (("--cuda-graphs",), "--cuda-graphs: expected --device cuda, got cpu"),
        (("--set", "steps=0"), "--set steps: expected at least 1, got 0"),
        (("--set", "batch_size=-2"), "--set batch_size: expected at least 1, got -2"),
        (("--set", "learning_rate=-1"), "--set learning_rate: expected a number above 0, got -1.0"),
        (("--set", "size=50"), "--set size: size must be a multiple of 16 in [32, 1024], got 50"),
        (("--disease", "Foo"), "--disease: expected one of Atelectasis, "),
    ],
)
def test_what_no_run_could_have_is_told_before_anything_is_trained(
    command, words, told, untrained, tmp_path, capsys
):
    out = tmp_path / "out"
    assert refused(capsys, command, "biomarker", *SMALL, *words, "--out", out).startswith(told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "reproduce"])
def test_fewer_images_than_a_batch_are_one_line(command, tmp_path, capsys):
    words = (command, "biomarker", "--device", "cpu", "--images", 4, "--out", tmp_path / "out")
    assert refused(capsys, *words) == (
        "batch_size: expected at most the 4 images of an epoch, got 16"
    )


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("train", "biomarker", *SMALL), "--out"),
        (("reproduce", "biomarker", *SMALL, "--out", "r.json"), "--weights"),
        (("predict", "biomarker/G-D-C", "film.png", "--device", "cpu"), "--out"),
    ],
)
def test_a_folder_that_is_a_file_or_cannot_be_written_is_told_first(
    command, option, untrained, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("before")
    told = refused(capsys, *command, option, tmp_path / "file")
    assert told == f"{option}: expected a folder, got the file {tmp_path / 'file'}"
    told = refused(capsys, *command, option, tmp_path / "file" / "below")
    assert told == f"{option}: cannot write in {tmp_path / 'file' / 'below'}: Not a directory"

    allowed = usage.tempfile.TemporaryFile

    def forbidden(dir):
        if dir == tmp_path / "new":
            raise PermissionError(13, "Permission denied")
        return allowed(dir=dir)

    monkeypatch.setattr(usage.tempfile, "TemporaryFile", forbidden)
    told = refused(capsys, *command, option, tmp_path / "new")
    assert told == f"{option}: cannot write in {tmp_path / 'new'}: Permission denied"
    assert (tmp_path / "file").read_text() == "before"


def test_realism_refuses_what_cannot_be_rendered_or_trained(tmp_path, capsys):
    words = ("realism", "--real", tmp_path, "--device", "cpu", "--out", tmp_path / "r.json")
    told = refused(capsys, *words, "--size", 7)
    assert told.startswith("--size 7, rendered at twice that: size must be a multiple of 16")
    told = refused(capsys, *words, "--images", 8, "--batch-size", 16)
    assert told == "--images: expected at least --batch-size 16, got 8"
    assert list(tmp_path.iterdir()) == []


# What an interruption says


def interrupted(capsys, *words):
    assert program.main([str(word) for word in words]) == 130
    return capsys.readouterr().err.strip().partition(": ")[2]


def test_ctrl_c_while_a_trained_system_is_measured_names_the_checkpoints(
    tmp_path, capsys, monkeypatch
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "run"
    monkeypatch.setattr(comparison, "measure_all", stop)
    told = interrupted(capsys, "train", "biomarker", *SMALL, "--out", out)
    assert told.splitlines()[-1].endswith(f"--resume goes on from the checkpoints in {out}")
    assert any((out / "checkpoints").rglob("*.pt"))
    monkeypatch.undo()
    assert (
        program.main([str(w) for w in ("train", "biomarker", *SMALL, "--out", out, "--resume")])
        == 0
    )


def test_a_run_without_a_checkpoint_says_so_and_one_that_stopped_itself_says_how_to_go_on(
    tmp_path, capsys, monkeypatch
):
    def stop(*_, **__):
        raise stopping

    monkeypatch.setattr(comparison, "train", stop)
    words = ("train", "biomarker", *SMALL, "--out", tmp_path / "run")
    stopping = KeyboardInterrupt()
    assert interrupted(capsys, *words) == "interrupted; there is no checkpoint to go on from"
    stopping = Interrupted("stopped after step 3 of 8; --resume goes on")
    assert interrupted(capsys, *words) == "stopped after step 3 of 8; --resume goes on"


def test_an_interrupted_reproduction_says_which_weights_it_has_kept(tmp_path, capsys, monkeypatch):
    old, kept = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    old.touch()
    os.utime(old, (0, 0))

    def stop(*_, **__):
        kept.touch()
        os.utime(kept, (time.time() + 1, time.time() + 1))
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "reproduce", stop)
    words = ("reproduce", "biomarker", *SMALL, "--out", tmp_path / "r.json")
    assert interrupted(capsys, *words) == "interrupted; no record was written"
    told = interrupted(capsys, *words, "--weights", tmp_path)
    assert told == f"interrupted; no record was written, but the weights of 1 arms in {tmp_path}"


def test_an_interrupted_prediction_says_how_many_films_were_answered(tmp_path, capsys, monkeypatch):
    films, out = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out"
    for film in films:
        assert cv2.imwrite(str(film), np.zeros((64, 64), dtype=np.uint8))
    write = answers.write_answer

    def first_only(film, *rest):
        if film != films[0]:
            raise KeyboardInterrupt
        return write(film, *rest)

    monkeypatch.setattr(answers, "write_answer", first_only)
    words = ("predict", "biomarker/G-D-C", *films, "--device", "cpu", "--out", out)
    assert interrupted(capsys, *words) == f"interrupted; answers for 1 of 2 films are in {out}"
