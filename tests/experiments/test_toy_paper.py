"""A sixth paper is a module of methods, one of arms and measures, and one line of registration:
everything else is there for it.
"""

import ast
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from experiments import toy_comparison, toy_paper
from experiments.toy_comparison import COMPARISON

import cxrtut
from cxrtut.data.sample import System
from cxrtut.engine.stopping import Interrupted
from cxrtut.engine.task import Task, check_task
from cxrtut.experiments import registered, step_time
from cxrtut.experiments.comparison import How, reproduce, train
from cxrtut.experiments.source import Source
from cxrtut.records.claims import claims_table, difference, read_claims, status
from cxrtut.records.run_record import RecordError, read_record_file, write_record

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book" / "_extensions"))  # as Sphinx does

import equations  # noqa: E402

QUIET = How(callbacks=None)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(registered.COMPARISONS, "toy", COMPARISON)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "run"
    train(COMPARISON, QUIET, arm="own", seed=0, folder=path)
    return path


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights")
    how = replace(QUIET, preset="paper", command="python -m cxrtut reproduce toy")
    return reproduce(COMPARISON, how, seeds=3, weights_folder=weights), weights


def trained_weights(folder):
    return {
        f"{name}.{key}": value
        for name, network in cxrtut.load(folder).networks.items()
        for key, value in network.state_dict().items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_its_parts_keep_the_contracts():
    task = toy_paper.ToyTask(toy_paper.SMOKE, 0, CPU)
    assert isinstance(task, Task)
    check_task(task)
    assert isinstance(COMPARISON.arm("own").build(toy_paper.SMOKE, ("Mass",), 0), System)
    assert registered.comparison("toy") is COMPARISON


def test_train_leaves_log_checkpoints_system_and_record(folder):
    assert {path.name for path in folder.iterdir()} == {
        "main.jsonl", "checkpoints", "system.safetensors", "record.json"
    }  # fmt: skip
    record = read_record_file(folder / "record.json")
    assert (record.paper, record.preset, record.seeds) == ("toy", "smoke", (0,))
    assert not record.faithful and list(record.results) == ["own"]
    assert record.configuration["width"] == 2 and record.classes == ("Pneumonia",)
    (run,) = record.results["own"]
    assert {"auroc", "auroc/Pneumonia", "pixel_ap", "background_error"} <= set(run.test)


def test_what_train_wrote_is_loaded_and_predicts_the_same(folder):
    found = cxrtut.load(folder)
    assert (found.paper, found.arm, found.classes) == ("toy", "own", ("Pneumonia",))
    split = COMPARISON.images(Source(), toy_paper.SMOKE, 0)
    system = toy_comparison.train_own(toy_paper.SMOKE, split, QUIET.run())
    images = split.batch(split.test).image
    for name in ("scores", "heatmap", "image"):
        one, other = (getattr(s.predict(images), name) for s in (system, found.system))
        assert torch.equal(one, other)
    numbers = cxrtut.evaluate(found, split, ["pixel_ap", "auroc"])
    record = read_record_file(folder / "record.json")
    assert numbers["pixel_ap"] == record.values("own", "test", "pixel_ap")[0]
    assert numbers["auroc"] == record.values("own", "test", "auroc")[0]


def test_an_interrupted_run_resumes_bit_for_bit(folder, tmp_path):
    def interrupt(stage):
        return lambda report: report.step == 50 and signal.raise_signal(signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="step 51"):
        train(COMPARISON, replace(QUIET, callbacks=interrupt), arm="own", seed=0, folder=out)
    assert not (out / "system.safetensors").exists()
    again = train(COMPARISON, QUIET, arm="own", seed=0, folder=out, resume=True)
    assert same(trained_weights(out), trained_weights(folder))
    assert (
        again.results["own"][0].test
        == read_record_file(folder / "record.json").results["own"][0].test
    )


def test_two_ranks_train_like_one_process(folder, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(ROOT / "tests" / "experiments" / "toy_comparison.py"), str(tmp_path / "run"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = trained_weights(folder), trained_weights(tmp_path / "run")
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-4)
    assert read_record_file(tmp_path / "run" / "record.json").results.keys() == {"own"}


def test_reproduce_has_every_arm_and_seed_and_its_record_survives(record, tmp_path):
    made, weights = record
    assert list(made.results) == ["own", "still"] and made.faithful and not made.is_stale
    assert all(len(runs) == 3 for runs in made.results.values())
    assert made.better["background_error"] == "lower" and made.better["auroc"] == "higher"
    write_record(tmp_path / "r.json", made)
    assert read_record_file(tmp_path / "r.json") == made
    names = {path.name for path in weights.iterdir()}
    assert names == {kept.file for kept in made.weights.values()} and len(names) == 2
    assert all(cxrtut.load(weights / name).paper == "toy" for name in names)


CLAIM = """- claim: training helps
  where: Table 1
  paper: no number
  record: toy
  measure: background_error
  rows: test
  better: {better}
  worse: {worse}
"""


@pytest.mark.parametrize(
    ("better", "worse", "direction"),
    [
        ("own", "still", "agrees"),  # its error is lower, and lower is better
        ("still", "own", "disagrees"),
        ("own", "own", "no difference"),
    ],
)
def test_claims_are_settled_by_the_papers_networks_on_the_papers_images(
    record, tmp_path, better, worse, direction
):
    made, _ = record
    (tmp_path / "toy.yml").write_text(CLAIM.format(better=better, worse=worse))
    (claim,) = read_claims(tmp_path / "toy.yml")
    gain = difference(made, claim)
    assert gain.direction == direction and gain.lower_is_better
    settled = {"agrees": "reproduced", "disagrees": "opposite"}.get(direction, direction)
    small = replace(made, faithful=False)
    elsewhere = replace(made, data=[{"source": "a clinic"}] * 3)
    assert status(made, gain, COMPARISON.sources) == settled
    for given, where in ((small, " at small size"), (elsewhere, " on other images")):
        shown = direction if direction == "no difference" else direction + where
        assert status(given, gain, COMPARISON.sources) == shown
    (row,) = claims_table(tmp_path / "toy.yml", lambda name: made, COMPARISON.sources)
    assert row["status"] == settled and row["difference, ours"] == gain.text


def test_where_more_is_better_the_same_numbers_say_the_opposite(record, tmp_path):
    made, _ = record
    (tmp_path / "toy.yml").write_text(CLAIM.format(better="own", worse="still"))
    (claim,) = read_claims(tmp_path / "toy.yml")
    higher = replace(made, better={"background_error": "higher"})
    assert difference(higher, claim).direction == "disagrees"
    with pytest.raises(RecordError, match="no arm 'best'; it has own, still"):
        difference(made, replace(claim, better="best"))


def test_its_steps_are_timed():
    (step,) = step_time.steps_of(COMPARISON, "smoke", CPU)
    networks = toy_paper.make_networks(toy_paper.SMOKE, 0).values()
    assert step.name == "toy smoke, main, 32 px" and step.steps == 2 and step.images == 16
    assert step.parameters == sum(p.numel() for n in networks for p in n.parameters())
    step.run()


def test_the_bench_knows_it(monkeypatch):
    monkeypatch.setattr(step_time, "COMPARISONS", {"toy": COMPARISON})
    assert [step.name for step in step_time.training_steps(CPU)] == ["toy smoke, main, 32 px"]


def test_its_equation_map_leads_to_its_lines():
    path = Path(toy_paper.__file__)
    lines = equations.equation_map(ast.get_docstring(ast.parse(path.read_text())))
    names = re.findall("`(.+?)`", lines)
    assert names == [
        "ToyTask.background_loss", "ToyTask.detector_loss", "Toy.predict", "Background",
        "heatmap_from_maps",
    ]  # fmt: skip
    for name in names:
        file, line = equations.place_of(name, path)
        assert name.rpartition(".")[2] in file.read_text().splitlines()[line - 1]
    table = equations.table(lines, path)
    assert "tests/experiments/toy_paper.py#L" in table and "cxrtut/localize/heatmap.py#L" in table
    numbers = re.findall(r"^ +\((\d+)\)", lines, re.MULTILINE)
    assert numbers == ["1", "2"]
