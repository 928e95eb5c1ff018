"""`python -m cxrtut train` and `reproduce`."""

import hashlib
import json

import cv2
import pytest
import torch

from cxrtut import __main__ as program
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import write_store
from cxrtut.experiments import biomarker, disease_masks

pytestmark = pytest.mark.filterwarnings("ignore:.* maps of P >= :UserWarning")  # so few images
SMALL = [
    word
    for setting in (
        "size=32", "base=4", "depth=1", "critic_base=4", "classifier_width=4", "batch_size=8",
        "steps=4", "warm_up_steps=1",
    )
    for word in ("--set", setting)
]  # fmt: skip
MASKS = [
    word
    for setting in (
        "size=32", "cells=8", "classifier_width=4", "batch_size=16", "epochs=0.5",
        "alignment_epochs=0.5", "anchor_images=10",
    )
    for word in ("--set", setting)
]  # fmt: skip
TRAIN_MASKS = ["train", "disease_masks", "--device", "cpu", "--images", "80", *MASKS]
TRAIN = ["train", "biomarker", "--device", "cpu", "--images", "60", *SMALL]


def test_a_run_leaves_log_samples_checkpoint_network_and_record(tmp_path, capsys):
    out = tmp_path / "run"
    assert program.main([*TRAIN, "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        "log.jsonl", "samples", "warm-up", "checkpoints", "generator.pt", "record.json"
    }  # fmt: skip
    record = json.loads((out / "record.json").read_text())
    assert record["command"].startswith("python -m cxrtut train biomarker --device cpu")
    assert record["configuration"]["steps"] == 4 and record["configuration"]["arm"] == "G-D-C"
    assert 0 < record["results"]["held out"]["AP"] < 1
    picture = cv2.imread(str(out / "samples" / "step-00000004.png"))
    assert picture.shape == (6 * 32, 4 * 32, 3)
    assert torch.load(out / "generator.pt", weights_only=True)
    told = capsys.readouterr()
    assert "held out: AP" in told.out and "biomarker G-D-C: step 4 of 4" in told.err
    assert [json.loads(x)["step"] for x in (out / "log.jsonl").read_text().splitlines()] == [4]


def test_a_run_is_not_overwritten_but_resumed(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert program.main([*TRAIN, *out]) == 0
    assert program.main([*TRAIN, *out]) == 1
    assert (
        "resume=True (or --resume) goes on, another folder (--out) begins"
        in capsys.readouterr().err
    )
    assert program.main([*TRAIN, *out, "--set", "steps=6", "--resume"]) == 0
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == 6
    assert program.main([*TRAIN, *out, "--set", "steps=8", "--set", "eta=1", "--resume"]) == 1
    assert "eta is 10.0 in the checkpoint and 1.0 in this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "stepps=3"], "expected NAME=VALUE with a name of size"),
        (["--data", "nih"], "expected --data-root with a prepared store, got none"),
        (["--data-root", "x"], "--data phantom: expected no --data-root, got x"),
        (["--set", "channels=3"], "add --set channels=1"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(words, told, tmp_path, capsys):
    assert program.main([*TRAIN, "--out", str(tmp_path / "run"), *words]) == 1
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pasted_biomarkers_need_no_store(tmp_path):
    out = tmp_path / "run"
    assert program.main([*TRAIN, "--data", "pasted", "--out", str(out)]) == 0
    record = json.loads((out / "record.json").read_text())
    assert record["data"]["name"].startswith("pasted biomarkers (cxrtut simulated")


def test_a_record_does_not_say_where_somebody_keeps_his_data(tmp_path):
    root, out = tmp_path / "private" / "store", tmp_path / "record.json"
    write_store(ChestPhantom(32), root, 60)
    words = ["reproduce", "biomarker", "--device", "cpu", "--seeds", "1", *SMALL]
    words += ["--data", "nih", "--data-root", str(root), "--disease", "any", "--out", str(out)]
    assert program.main(words) == 0
    text = out.read_text()
    assert "private" not in text and "--data-root STORE --disease any" in text


def test_reproduce_writes_a_record_and_prints_its_table(tmp_path, capsys):
    out = tmp_path / "record.json"
    words = ["reproduce", "biomarker", "--device", "cpu", "--images", "60", "--seeds", "1"]
    folder = tmp_path / "weights"
    assert program.main([*words, *SMALL, "--out", str(out), "--weights", str(folder)]) == 0
    record = json.loads(out.read_text())
    assert set(record["weights"]) == {"G-D-C", "G-D", "G-C", "ED", "CAM"}
    for kept in record["weights"].values():
        data = (folder / kept["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == kept["sha256"]
    assert record["preset"] == "smoke" and record["source"]["data"] == "phantom"
    table = capsys.readouterr().out
    assert "G-D-C" in table and "Grad-CAM-2" in table and f"written: {out}" in table


def test_disease_masks_leave_a_log_of_each_stage_networks_and_record(tmp_path, capsys):
    out = tmp_path / "run"
    assert program.main([*TRAIN_MASKS, "--out", str(out)]) == 0
    stages = ["plain", "aligner", "aligned", "aligned + DM"]
    assert {path.name for path in out.iterdir()} == {
        *(f"{stage}.jsonl" for stage in stages), "checkpoints", "classifier.pt", "aligner.pt",
        "record.json",
    }  # fmt: skip
    record = json.loads((out / "record.json").read_text())
    assert record["what"].startswith("disease_masks, aligned + DM, on eight diseases")
    assert record["configuration"]["arm"] == "aligned + DM"
    assert record["configuration"]["epochs"] == 0.5
    scores = record["results"]["held out"]
    assert 0 <= scores["T .3"] <= 1 and 0 < scores["AUROC"] < 1
    assert torch.load(out / "classifier.pt", weights_only=True)["masks"].any()
    told = capsys.readouterr()
    assert "held out: T .3" in told.out and "disease_masks aligned + DM: step 1 of 1" in told.err


def test_one_arm_of_disease_masks_is_run_and_resumed(tmp_path, capsys):
    words = [*TRAIN_MASKS, "--arm", "plain", "--out", str(tmp_path / "run")]
    assert program.main(words) == 0
    first = json.loads((tmp_path / "run" / "record.json").read_text())
    assert not (tmp_path / "run" / "aligner.pt").exists()
    assert program.main(words) == 1
    assert "--resume" in capsys.readouterr().err
    assert program.main([*words, "--resume"]) == 0
    again = json.loads((tmp_path / "run" / "record.json").read_text())
    assert again["results"] == first["results"] and again["configuration"]["arm"] == "plain"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--arm", "G-D-C"], "arm: expected one of ['plain', 'aligned', 'aligned, longer', "),
        (["--arm", "G-D-C"], "'average box (boxes)'], got 'G-D-C'"),
        (["--data", "pasted"], "--data pasted: expected phantom or nih"),
        (["--set", "base=4"], "expected NAME=VALUE with a name of size"),
        (["--set", "channels=3"], "add --set channels=1"),
    ],
)
def test_what_cannot_work_with_disease_masks_is_said_in_one_line(words, told, tmp_path, capsys):
    assert program.main([*TRAIN_MASKS, "--out", str(tmp_path / "run"), *words]) == 1
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_arm_that_trains_nothing_leaves_its_record(tmp_path, capsys):
    out = tmp_path / "deep" / "run"
    words = [*TRAIN_MASKS, "--arm", "average box (boxes)", "--out", str(out)]
    assert program.main(words) == 0
    assert [path.name for path in out.iterdir()] == ["record.json"]
    assert json.loads((out / "record.json").read_text())["results"]["held out"]["AUROC"] is None


def test_an_arm_of_another_paper_is_answered_with_the_names(tmp_path, capsys):
    assert program.main([*TRAIN, "--out", str(tmp_path / "run"), "--arm", "plain"]) == 1
    error = capsys.readouterr().err
    assert "arm: expected one of ['G-D-C', 'G-D', 'G-C', 'ED'], got 'plain'" in error


def test_reproduce_of_disease_masks_has_every_arm_and_seed(tmp_path, capsys):
    out, folder = tmp_path / "record.json", tmp_path / "weights"
    words = ["reproduce", "disease_masks", "--device", "cpu", "--images", "120", "--seeds", "2"]
    assert program.main([*words, *MASKS, "--out", str(out), "--weights", str(folder)]) == 0
    record = json.loads(out.read_text())
    assert list(record["results"]) == [*disease_masks.ARMS, "masks", "alignment"]
    assert all(len(runs) == 2 for runs in record["results"].values())
    assert set(record["weights"]) == {"plain", "aligned", "aligned + DM", "aligner"}
    for kept in record["weights"].values():
        data = (folder / kept["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == kept["sha256"]
    names = {kept["file"].removesuffix(".safetensors") for kept in record["weights"].values()}
    assert names == {
        f"disease_masks-smoke-{name}" for name in ("plain", "aligned", "aligned_DM", "aligner")
    }
    assert record["source"]["images"] == 120 and "root" not in record["source"]
    table = capsys.readouterr().out
    assert all(arm in table for arm in disease_masks.ARMS) and f"written: {out}" in table


def test_reproduce_too_says_which_channels_the_images_have(tmp_path, capsys):
    words = ["reproduce", "disease_masks", "--device", "cpu", "--images", "40", "--seeds", "1"]
    out = tmp_path / "record.json"
    assert program.main([*words, *MASKS, "--set", "channels=3", "--out", str(out)]) == 1
    assert "add --set channels=1" in capsys.readouterr().err and not out.exists()


def test_each_paper_has_its_own_number_of_images_unless_told(monkeypatch):
    seen = []
    monkeypatch.setattr(program, "run_train", None)
    for paper in ("biomarker", "disease_masks"):
        for more in ([], ["--images", "7"]):
            words = ["train", paper, "--out", "x", *more]
            seen.append(program._source(program.command_line().parse_args(words)).images)
    assert seen == [biomarker.IMAGES, 7, disease_masks.IMAGES, 7]
    assert biomarker.IMAGES != disease_masks.IMAGES


def test_reproduce_can_be_asked_for_some_arms(tmp_path, capsys):
    out = tmp_path / "record.json"
    words = ["reproduce", "disease_masks", "--device", "cpu", "--images", "80", "--seeds", "1"]
    words += MASKS
    assert program.main([*words, "--arm", "plain", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert list(record["results"]) == ["plain"]
    assert str(tmp_path) not in record["command"] and "--out record.json" in record["command"]
    assert program.main([*words, "--arm", "planar", "--out", str(out)]) == 1
    assert "arm: expected one of ['plain'," in capsys.readouterr().err


def test_weights_that_cannot_be_fetched_are_told_in_one_line(tmp_path, capsys, monkeypatch):
    def offline(*given, **named):
        raise OSError("no route to host")

    import torchvision

    kind = torchvision.models.ResNet50_Weights
    monkeypatch.setattr(kind, "get_state_dict", offline)
    words = ["train", "disease_masks", "--device", "cpu", "--preset", "colab", "--images", "40"]
    words += ["--set", "size=64", "--out", str(tmp_path / "run")]
    assert program.main(words) == 1
    told = capsys.readouterr().err
    assert "no route to host" in told and "imagenet=False" in told and "Traceback" not in told
