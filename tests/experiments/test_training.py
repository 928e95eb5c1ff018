"""`python -m cxrtut train` and `reproduce`."""

import hashlib
import json

import cv2
import pytest
import torch

from cxrtut import __main__ as program
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import write_store

SMALL = [
    word
    for setting in (
        "size=32", "base=4", "depth=1", "critic_base=4", "classifier_width=4", "batch_size=8",
        "steps=4", "warm_up_steps=1",
    )
    for word in ("--set", setting)
]  # fmt: skip
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
