"""Where and how a run happens."""

import json

import pytest
import torch
from engine.toy import ToyGAN, toy_loader, weights
from safetensors.torch import save_file

from cxrtut.engine.checkpoint import CheckpointError
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.loop import train
from cxrtut.experiments.run import Run


def fit(run, steps=4, stage="main", **how):
    task = ToyGAN()
    return task, run.fit(stage, task, toy_loader(), steps=steps, batch_size=8, **how)


def test_a_stage_is_trained_as_by_the_loop():
    task, reports = fit(Run(seed=3))
    expected = ToyGAN()
    told = train(expected, toy_loader(), steps=4, batch_size=8, seed=3)
    assert all(torch.equal(v, weights(expected)[k]) for k, v in weights(task).items())
    assert [r.step for r in reports] == [r.step for r in told] == [4]


def test_no_steps_are_nothing(tmp_path):
    task, reports = fit(Run(folder=tmp_path), steps=0)
    assert reports == [] and not list(tmp_path.iterdir()) and task.seen == []


def test_a_folder_gets_a_log_and_checkpoints_by_the_name_of_the_stage(tmp_path):
    run = Run(folder=tmp_path)
    fit(run, stage="one")
    fit(run, stage="two")
    assert {path.name for path in tmp_path.iterdir()} == {"one.jsonl", "two.jsonl", "checkpoints"}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"one", "two"}
    assert json.loads((tmp_path / "one.jsonl").read_text())["step"] == 4


def test_only_the_first_rank_writes_the_log(tmp_path):
    seen = []
    run = Run(folder=tmp_path, ranks=Ranks(1, 2), trainer=lambda *_, **how: seen.append(how) or [])
    fit(run)
    assert seen[0]["callbacks"] == [] and seen[0]["checkpoint_dir"] is not None


def test_the_first_stage_with_a_network_of_the_name_begins_from_the_file_and_no_later_one(tmp_path):
    source = ToyGAN().networks["critic"]
    with torch.no_grad():
        source[0].weight.mul_(1.5)
    save_file(source.state_dict(), tmp_path / "c.safetensors")
    seen = []
    run = Run(
        begin_from={"critic": tmp_path / "c.safetensors", "aligner": tmp_path / "a"},
        trainer=lambda *_, **how: seen.append(how["begin_from"]) or [],
    )
    fit(run, stage="one")
    fit(run, stage="two")
    assert seen == [{"critic": tmp_path / "c.safetensors"}, {}]
    assert run.unused_weights == ("aligner",)


def test_a_run_is_resumed_only_if_it_is_the_same(tmp_path):
    arm = {"arm": "A"}
    fit(Run(folder=tmp_path, identity=arm))
    with pytest.raises(CheckpointError, match="goes on"):
        fit(Run(folder=tmp_path, identity=arm))
    whole, _ = fit(Run(), steps=6)
    resumed, _ = fit(Run(folder=tmp_path, identity=arm, resume=True), steps=6)
    assert all(torch.equal(v, weights(whole)[k]) for k, v in weights(resumed).items())
    with pytest.raises(CheckpointError, match="arm"):
        fit(Run(folder=tmp_path, identity={"arm": "B"}, resume=True), steps=8)


def test_those_who_watch_are_asked_for_by_the_stage_and_given_its_reports():
    told = []

    def watch(stage):
        return (lambda report: told.append((stage, report.step)),)

    fit(Run(callbacks=watch), callbacks=[lambda report: told.append(("besides", report.step))])
    assert told == [("main", 4), ("besides", 4)]


def test_what_is_asked_for_once_is_made_once():
    run, made = Run(), []
    assert run.once("a", lambda: made.append(1) or "x") == "x"
    assert run.once("a", lambda: made.append(2) or "y") == "x"
    assert run.once("b", lambda: "z") == "z" and made == [1]
    assert Run().once("a", lambda: "new") == "new"
