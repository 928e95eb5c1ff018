"""What people see of a run."""

import io
import json
from dataclasses import replace

import cv2
import pytest
import torch

from cxrtut.engine import progress as module
from cxrtut.engine.progress import (
    UNWATCHED,
    Bar,
    JsonLines,
    LastLine,
    Lines,
    SampleGrid,
    grid_picture,
    progress,
)
from cxrtut.engine.task import Report


def report(step, steps=10, **terms):
    return Report(
        step=step, steps=steps, epoch=1, terms=terms or {"D/loss": 0.5}, seconds=2.0,
        images_per_second=64.0, memory=None,
    )  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_nobody_watches_and_a_bar_in_a_terminal():
    stream = io.StringIO()
    shown = progress("biomarker", stream)
    assert isinstance(shown, Lines) and isinstance(progress("x", Terminal()), Bar)
    shown(report(5, **{"D/loss": -1.5, "G/kept": 0.25}))
    assert stream.getvalue() == (
        "biomarker: step 5 of 10 (epoch 1), 64 images/s, about 2 s to go; D/loss -1.5, "
        "G/kept 0.25\n"
    )


def test_what_was_measured_stands_in_lines_and_log(tmp_path):
    measured = replace(report(4), validation={"AUROC": 0.8125, "loss": float("nan")})
    stream = io.StringIO()
    Lines("x", stream)(measured)
    assert stream.getvalue().endswith("; D/loss 0.5; validation: AUROC 0.8125, loss nan\n")
    lines = JsonLines(tmp_path / "run.jsonl")
    lines(report(2)), lines(measured)
    assert [line["validation"] for line in lines.read()] == [{}, {"AUROC": 0.8125, "loss": None}]


def test_the_bar_shows_steps_and_terms(capsys):
    bar = Bar("biomarker")
    for step in (4, 10):
        bar(report(step))
    told = capsys.readouterr().err
    assert "biomarker" in told and "10/10" in told and "D 0.5" in told


def test_in_a_notebook_it_is_a_bar(monkeypatch):
    monkeypatch.setattr(module, "_in_notebook", lambda: True)
    assert isinstance(progress("x", io.StringIO()), Bar)


def test_where_what_is_shown_is_kept_there_is_one_line_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(module, "_in_notebook", lambda: True)
    monkeypatch.setenv(UNWATCHED, "1")
    shown = progress("G-D-C")
    assert isinstance(shown, LastLine)
    shown(report(4))
    assert capsys.readouterr() == ("", "")
    shown(replace(report(10), seconds=63.7))
    assert capsys.readouterr() == ("G-D-C: 10 steps in 64 s\n", "")
    stream = Terminal()
    progress("x", stream)(report(10))
    assert stream.getvalue() == "x: 10 steps in 2 s\n"
    monkeypatch.setenv(UNWATCHED, "")
    assert isinstance(progress("x"), Bar)


def test_json_lines_keep_what_happened_and_forget_what_was_undone(tmp_path):
    lines = JsonLines(tmp_path / "log" / "run.jsonl")
    for step in (2, 4, 6):
        lines(report(step, **{"D/loss": float(step), "D/bad": float("nan")}))
    lines(report(4, **{"D/loss": 40.0}))  # resumed from step 2
    with open(lines.path, "a", encoding="utf-8") as file:
        file.write('{"step": 9, "ter')
    read = lines.read()
    assert [(line["step"], line["terms"]["D/loss"]) for line in read] == [(2, 2.0), (4, 40.0)]
    lines(report(6, **{"D/loss": 6.0}))  # after a power cut: on a line of its own
    assert [line["step"] for line in lines.read()] == [2, 4, 6]
    lines.path.write_text("".join(lines.path.read_text().splitlines(keepends=True)[:-2]))
    assert read[0]["terms"]["D/bad"] is None and read[0]["images_per_second"] == 64.0
    assert all(json.loads(text) for text in lines.path.read_text().splitlines())


def test_samples_are_saved_now_and_then_and_at_the_end(tmp_path):
    drawn = []

    def draw():
        drawn.append(True)
        return torch.full((2, 3, 1, 4, 4), -1.0)

    grid = SampleGrid(draw, tmp_path / "samples", every=4)
    for step in (1, 3, 6, 7, 10):
        grid(report(step))
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [f"step-{s:08d}.png" for s in (1, 6, 10)] and len(drawn) == 3
    assert cv2.imread(str(tmp_path / "samples" / names[0])).shape == (8, 12, 3)


def test_a_grid_has_a_row_for_each_input():
    images = torch.zeros(2, 3, 3, 4, 5)
    images[1, 2, 0] = 1.0  # second input, third picture: red
    picture = grid_picture(images)
    assert picture.shape == (8, 15, 3)
    assert picture[4:, 10:].reshape(-1, 3).tolist() == [[255, 128, 128]] * 20
    assert (picture[:4] == 128).all() and (picture[:, :10] == 128).all()
    with pytest.raises(ValueError, match=r"expected images \(n, R, 1 or 3, H, W\), got \(2, 2"):
        grid_picture(torch.zeros(2, 2, 2, 4, 4))
