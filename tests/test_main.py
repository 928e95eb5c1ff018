"""The command line: what exists is listed, what goes wrong is one line, records are whole."""

import inspect
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtut import __main__ as program
from cxrtut import __version__, usage
from cxrtut import bench as bench_module
from cxrtut.bench import FULL, QUICK
from cxrtut.data.phantom import CLASSES, PRESETS
from cxrtut.data.store import StoreError
from cxrtut.engine.progress import progress
from cxrtut.foundations import radiograph
from cxrtut.records.run_record import ArmRun, RunRecord, read_record_file, write_record
from cxrtut.viz.tables import Table

ROOT = Path(__file__).parents[1]
ROW = {
    "name": "phantom, 64 px",
    "device": "cpu",
    "rate": 5.0,
    "slowest": 4.0,
    "fastest": 6.0,
    "mib": None,
    "step_ms": None,
    "parameters": None,
    "published_hours": None,
}
BENCH = {
    "what": "images per second",
    "budget": asdict(QUICK),
    "hardware": {"cpu": "an abacus", "cores": 1, "threads": 1, "gpu": None},
    "versions": {"torch": "2"},
    "rows": [ROW],
}


def realism_record(**changed: float) -> RunRecord:
    """Of two seeds; each class has numbers of its own, but for those that are changed."""
    runs = []
    for seed in (0, 1):
        numbers: dict[str, float] = {}
        for k, name in enumerate(CLASSES):
            numbers |= {
                f"auroc/{name}": 0.66 + seed * 0.02 + k / 100, f"auroc_pa/{name}": 0.5,
                f"n/{name}": 40.0 + k, f"n_normal/{name}": 100.0, f"n_pa/{name}": 20.0,
                f"n_normal_pa/{name}": 60.0, f"auroc_simulated/{name}": 0.9,
            }  # fmt: skip
        runs.append(ArmRun(test=numbers | changed))
    return RunRecord(
        paper="radiograph", what="a measurement", command="", configuration={}, data=[],
        classes=CLASSES, seeds=(0, 1), results={radiograph.SIM_TO_REAL: runs}, better={},
        code={}, revision="", hardware={}, versions={}, seconds=0.0,
    )  # fmt: skip


REALISM = realism_record()


@pytest.fixture
def measured(monkeypatch):
    """The arguments with which the measurements were called."""
    calls = {}

    def fake_bench(budget, **options):
        options["progress"]("a row")
        calls["bench"] = {"budget": budget, **options}
        return BENCH

    def fake_measure(store_path, **options):
        calls["realism"] = {"store_path": store_path, **options}
        return REALISM

    monkeypatch.setattr(bench_module, "bench", fake_bench)
    monkeypatch.setattr(radiograph, "measure_realism", fake_measure)
    return calls


def run(*arguments):
    return program.main([str(argument) for argument in arguments])


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--version")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"cxrtut {__version__}\n"


def test_it_runs_as_a_module_from_anywhere_and_imports_nothing_heavy(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cxrtut.__main__ as program\n"
        "program.command_line()\n"
        "print([name for name in ('torch', 'numpy', 'cv2') if name in sys.modules])"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert seen.stdout == "[]\n"
    seen = subprocess.run(
        [sys.executable, "-m", "cxrtut", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert (seen.returncode, seen.stdout) == (0, f"cxrtut {__version__}\n")


def test_an_unknown_command_lists_what_exists(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("benhc")
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "benhc" in told and "bench" in told.replace("benhc", "") and "realism" in told


def test_without_a_command_the_help_is_shown(capsys):
    assert run() == 2
    told = capsys.readouterr().err
    assert "bench " in told and "realism " in told


def test_bench_prints_the_table_and_keeps_the_record(measured, tmp_path, capsys):
    path = tmp_path / "records" / "bench.json"
    assert run("bench", "--quick", "--device", "cpu", "--json", path) == 0
    options = measured["bench"]
    assert options["budget"] == QUICK and options["device"] == "cpu"
    told = capsys.readouterr()
    assert "an abacus" in told.out and "phantom, 64 px" in told.out and "a row" in told.err
    assert json.loads(path.read_text()) == BENCH
    assert run("bench", "--device", "cpu") == 0
    assert measured["bench"]["budget"] == FULL


def test_realism_hands_its_arguments_on_writes_the_record_and_prints_it(measured, tmp_path, capsys):
    path = tmp_path / "results" / "realism.json"
    arguments = ("--size", 32, "--images", 10, "--steps", 4, "--batch-size", 8, "--seeds", 2)
    arguments += ("--preset", "easy", "--device", "cpu", "--out", path)
    assert run("realism", "--real", tmp_path / "nih", *arguments) == 0
    options = measured["realism"]
    assert options.pop("watch") is progress
    assert options.pop("command").startswith("python -m cxrtut realism --real")
    assert options == {
        "store_path": str(tmp_path / "nih"), "size": 32, "n": 10, "steps": 4, "batch_size": 8,
        "seeds": 2, "preset": "easy", "device": "cpu",
    }  # fmt: skip
    assert read_record_file(path).values(radiograph.SIM_TO_REAL, "test", "n/Mass")
    told = capsys.readouterr().out
    assert all(name in told for name in CLASSES) and "0.670" in told and str(path) in told
    rows = [line for line in told.splitlines() if line.split()[:1] and line.split()[0] in CLASSES]
    assert len(rows) == len(CLASSES) and len({len(line) for line in rows}) == 1


def test_the_real_measurement_takes_these_arguments():
    parameters = inspect.signature(radiograph.measure_realism).parameters
    names = ("size", "n", "steps", "batch_size", "seeds", "preset", "device", "watch", "command")
    assert next(iter(parameters)) == "store_path" and set(names) <= set(parameters)
    required = [p.name for p in parameters.values() if p.default is p.empty]
    assert set(required) <= {"store_path", *names}


@pytest.mark.parametrize(
    "error",
    [
        StoreError("no\nstore"),
        FileNotFoundError("no file"),
        PermissionError("no"),
        IsADirectoryError("a folder"),
        program.CannotBeDone("no GPU"),
    ],
)
def test_what_the_user_can_mend_is_one_line_without_traceback(error, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(radiograph, "measure_realism", fail)
    path = tmp_path / "realism.json"
    path.write_text("before")
    assert run("realism", "--real", tmp_path, "--device", "cpu", "--out", path) == 1
    told = capsys.readouterr().err
    assert told == f"cxrtut realism: error: {' '.join(str(error).split())}\n"
    assert path.read_text() == "before"


@pytest.mark.parametrize("mistake", [AttributeError, ValueError, KeyError, OSError])
def test_a_mistake_of_the_program_is_not_hidden(mistake, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise mistake("a mistake")

    monkeypatch.setattr(radiograph, "measure_realism", fail)
    with pytest.raises(mistake, match="a mistake"):
        run("realism", "--real", tmp_path, "--device", "cpu", "--out", tmp_path / "r.json")


def test_a_store_that_is_not_there_is_named(tmp_path, capsys):
    out = tmp_path / "r.json"
    assert run("realism", "--real", tmp_path / "none", "--device", "cpu", "--out", out) == 1
    assert "none: expected the folder of an array store" in capsys.readouterr().err
    assert not out.exists()


def test_an_interruption_is_told_and_writes_nothing(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_module, "bench", interrupt)
    assert run("bench", "--device", "cpu", "--json", tmp_path / "b.json") == 130
    assert "interrupted" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_counts_must_be_positive_numbers(number, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("realism", "--real", "x", "--seeds", number)
    assert stopped.value.code == 2 and "--seeds" in capsys.readouterr().err


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_a_gpu(measured, monkeypatch, gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert run("bench") == 0
    assert measured["bench"]["device"] == device


def test_a_gpu_that_is_not_there_is_refused_in_one_line(measured, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("bench", "--device", "cuda") == 1
    assert "there is no GPU" in capsys.readouterr().err and not measured


def test_a_gpu_that_this_machine_does_not_count_to_is_refused(measured, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert run("bench", "--device", "cuda:2") == 1
    assert "got cuda:2, but there are 2 GPUs here" in capsys.readouterr().err and not measured
    assert run("bench", "--device", "cuda:1") == 0 and measured["bench"]["device"] == "cuda:1"


@pytest.mark.parametrize("command", [("bench",), ("realism", "--real", "x")])
@pytest.mark.parametrize("device", ["foo", "cuda:x", "mps:0", "cuda:0:1", ""])
def test_a_device_that_does_not_exist_is_wrong_usage(measured, command, device, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*command, "--device", device)
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and not measured
    assert f"--device: expected auto, cpu, cuda, cuda:N or mps, got {device!r}" in told


def test_a_preset_that_does_not_exist_is_wrong_usage_and_lists_those_that_do(measured, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("realism", "--real", "x", "--preset", "foo")
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and not measured
    assert f"--preset: expected one of {', '.join(PRESETS)}, got 'foo'" in told


@pytest.mark.parametrize(
    ("command", "option"), [(("bench",), "--json"), (("realism", "--real", "x"), "--out")]
)
def test_a_place_that_cannot_be_written_is_told_before_the_measurement(
    measured, command, option, tmp_path, capsys, monkeypatch
):
    def refused(path):
        assert run(*command, "--device", "cpu", option, path) == 1 and not measured
        return capsys.readouterr().err

    assert f"{option}: expected a file, got the folder {tmp_path}" in refused(tmp_path)
    (tmp_path / "file").write_text("before")
    assert f"{option}: cannot write in {tmp_path / 'file'}: " in refused(tmp_path / "file" / "a")

    def forbidden(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(usage.tempfile, "TemporaryFile", forbidden)
    assert f"cannot write in {tmp_path}: Permission denied" in refused(tmp_path / "new.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_could_not_be_measured_is_null_in_the_record_and_a_dash_in_the_table(tmp_path):
    path, nan, name = tmp_path / "r.json", float("nan"), CLASSES[0]
    record = realism_record(**{f"auroc_pa/{name}": nan, f"auroc/{name}": nan})
    write_record(path, record)
    runs = json.loads(path.read_text())["results"][radiograph.SIM_TO_REAL]
    assert [run["test"][f"auroc_pa/{name}"] for run in runs] == [None, None]
    for given in (record, read_record_file(path)):
        table = repr(Table(radiograph.transfer_table(given), caption="c", digits=3))
        first, other = (
            next(line for line in table.splitlines() if line.startswith(disease))
            for disease in CLASSES[:2]
        )
        assert " –" in first and len(first) == len(other)
        assert not any(word in first for word in ("nan", "None"))


def test_an_apple_gpu_that_is_not_there_is_refused_in_one_line(measured, monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert run("bench", "--device", "mps") == 1
    assert "there is no Apple GPU here" in capsys.readouterr().err and not measured


def test_films_are_answered_as_files_that_anybody_can_open(tmp_path, capsys):
    films = [tmp_path / "a.png", tmp_path / "b.png"]
    for film in films:
        noise = np.random.default_rng(0).integers(0, 255, (90, 120), dtype=np.uint8)
        assert cv2.imwrite(str(film), noise)
    out = tmp_path / "answers"
    assert run("predict", "biomarker/G-D-C", *films, "--device", "cpu", "--out", out) == 0
    told = capsys.readouterr().out
    assert "no medical device" in told and "a.png" in told
    names = {path.name for path in out.iterdir()}
    kinds = (".json", "-Pneumonia.png", "-Pneumonia-heat.png", "-image.png")
    assert names == {f"{stem}{kind}" for stem in "ab" for kind in kinds}
    assert cv2.imread(str(out / "a-Pneumonia.png")).shape == (90, 120, 3)
    about = json.loads((out / "a.json").read_text())
    assert about["classes"] == ["Pneumonia"] and about["film"] == "a.png"
    assert all(0 <= v <= 120 for box in about["boxes"] for v in box["xyxy"])


def test_a_system_or_a_film_that_is_not_there_is_named(tmp_path, capsys):
    assert run("predict", "biomarker/X", "film.png", "--device", "cpu", "--out", tmp_path) == 1
    assert "one of biomarker/G-D-C, " in capsys.readouterr().err
    words = ("predict", "biomarker/ED", tmp_path / "no.png", "--device", "cpu", "--out", tmp_path)
    assert run(*words) == 1
    assert "no.png: expected an image file, found none" in capsys.readouterr().err


def test_words_of_the_command_line_that_mean_nothing_are_named(tmp_path, capsys):
    train = ("train", "biomarker", "--device", "cpu", "--out", tmp_path / "r")
    for words, told in (
        (("train", "granett", "--out", tmp_path / "r"), "paper: expected one of biomarker, "),
        (
            (*train, "--preset", "tiny"),
            "preset: expected one of paper, colab, cpu, smoke, got 'tiny'",
        ),
        ((*train, "--arm", "X"), "arm: expected one of 'G-D-C', "),
        ((*train, "--where", "view"), "--where: expected NAME=VALUE, got 'view'"),
        ((*train, "--begin-from", "G=none.pt"), "begin_from: expected "),
        ((*train, "--set", "steps=many"), "steps: expected a whole number, got 'many'"),
    ):
        assert run(*words) == 1
        assert told in capsys.readouterr().err
