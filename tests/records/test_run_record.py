"""Run records."""

import json
import re
from dataclasses import replace

import pytest
import torch

from cxrtut.records import run_record
from cxrtut.records.run_record import (
    ArmRun,
    RecordError,
    RunRecord,
    Weights,
    code_sha256,
    code_text,
    hardware,
    library_files,
    read_record_file,
    versions,
    write_json,
    write_record,
)


def a_record(**change):
    about = {
        "paper": "toy", "what": "toy on noise", "command": "pytest", "preset": "smoke",
        "configuration": {"steps": 3, "rate": 0.5}, "data": [{"source": "toy", "images": 8}],
        "classes": ("Mass", "Nodule"), "seeds": (0, 1),
        "results": {
            "A": (
                ArmRun(test={"auroc": 0.75, "auroc/Mass": 0.5}, seconds=1.5),
                ArmRun(test={"auroc": 0.25, "auroc/Mass": None}, seconds=2.5),
            )
        },
        "better": {"auroc": "higher", "false_positives": "lower", "pairs": "neither"},
        "weights": {"A": Weights("a.safetensors", "0" * 64)},
        "code": library_files("cxrtut.nn.unet"),
        "revision": run_record.revision(), "hardware": hardware(torch.device("cpu")),
        "versions": versions(), "seconds": 4.0, "remarks": ("by hand",),
    }  # fmt: skip
    return RunRecord(**about | change)


def test_a_record_says_where_a_number_comes_from():
    record = a_record()
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?|unknown", record.revision)
    assert record.versions["torch"] == torch.__version__
    assert record.hardware["cores"] >= 1 and record.hardware["gpu"] is None
    assert record.source == "toy" and a_record(data=[]).source == ""


def test_a_record_survives_writing_and_reading(tmp_path):
    record = a_record()
    write_record(tmp_path / "r.json", record)
    assert read_record_file(tmp_path / "r.json") == record


def test_what_is_no_number_is_read_as_none(tmp_path):
    record = a_record(results={"A": (ArmRun(test={"auroc": float("nan")}),)})
    write_record(tmp_path / "r.json", record)
    assert "NaN" not in (tmp_path / "r.json").read_text()
    read = read_record_file(tmp_path / "r.json")
    assert read.results["A"][0].test == {"auroc": None}


def test_an_arm_with_a_field_that_is_not_known_is_refused(tmp_path):
    path = tmp_path / "r.json"
    write_record(path, a_record())
    path.write_text(path.read_text().replace('"seconds": 1.5', '"seconds": 1.5, "minutes": 1'))
    with pytest.raises(RecordError, match=r"r\.json: .*minutes"):
        read_record_file(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not readable as JSON"),
        ("[]", "expected a run record of version 2, got 'list'"),
        ('{"version": 1}', "expected a run record of version 2, got 1"),
        ('{"version": 2}', "missing or not known: better, classes, code, command"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, content, told):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=told):
        read_record_file(path)


def test_a_field_that_is_not_known_is_named(tmp_path):
    write_record(tmp_path / "r.json", a_record())
    content = json.loads((tmp_path / "r.json").read_text()) | {"colour": "blue"}
    write_json(tmp_path / "r.json", content)
    with pytest.raises(RecordError, match=r"missing or not known: colour$"):
        read_record_file(tmp_path / "r.json")


def test_values_are_those_of_each_seed():
    assert a_record().values("A", "test", "auroc") == [0.75, 0.25]


@pytest.mark.parametrize(
    ("arm", "side", "measure", "told"),
    [
        ("B", "test", "auroc", "no arm 'B'; it has A"),
        ("A", "train", "auroc", "'A', train: no measure 'auroc'"),
        ("A", "test", "ap", "'A', test: no measure 'ap'; there are auroc$"),
        ("A", "held out", "auroc", "rows: expected train, validation or test, got 'held out'"),
        ("A", "test", "auroc/Mass", "'A', test, auroc/Mass: expected numbers, got None"),
    ],
)
def test_what_a_record_does_not_have_is_answered_with_what_it_has(arm, side, measure, told):
    with pytest.raises(RecordError, match=told):
        a_record().values(arm, side, measure)


def test_the_better_side_of_a_measure_is_that_of_its_classes_too():
    record = a_record()
    assert record.direction("auroc") == record.direction("auroc/Mass") == "higher"
    assert record.direction("false_positives") == "lower"
    assert record.direction("pairs") == record.direction("unheard") == "neither"


CODE = '''"""A module."""
import math  # for π

def area(r):
    """Of a circle.

    With several lines.
    """
    label = "# no comment"
    return label, math.pi * r**2  # Eq. (1)


class C:
    """Something."""

    x = """kept"""
'''


def test_comments_docstrings_and_blank_lines_are_no_code():
    assert code_text(CODE).splitlines() == [
        "import math", "def area(r):", '    label = "# no comment"',
        "    return label, math.pi * r**2", "class C:", '    x = """kept"""',
    ]  # fmt: skip


def test_a_better_sentence_leaves_the_code_the_same_and_another_number_does_not(tmp_path):
    def sha256(text):
        (tmp_path / "x.py").write_text(text)
        return code_sha256(tmp_path / "x.py")

    first = sha256(CODE)
    assert sha256(CODE.replace("Of a circle.", "The area of a circle.")) == first
    assert sha256(CODE.replace("  # for π", "")) == first
    assert sha256(CODE.replace("r**2", "r**3")) != first
    assert sha256(CODE.replace("no comment", "a comment")) != first
    assert code_sha256(tmp_path / "absent.py") == ""


def test_strings_that_are_no_statement_are_code_wherever_their_line_begins(tmp_path):
    code = 'X = (\n    "Mass",\n    "Nodule",\n)\nY = {\n    "conv": f(\n        "a"\n    )\n}\n'
    assert code_text(code) == code.removesuffix("\n")
    two = 'def f():\n    """One.\n\n    Two."""; x = 1  # c\n    return x\n'
    assert code_text(two) == "def f():\n    ; x = 1\n    return x"


def test_the_code_of_a_paper_is_what_it_imports_and_not_what_another_paper_does():
    files = library_files("cxrtut.experiments.biomarker")
    assert files["nn/unet.py"] == code_sha256(run_record.PACKAGE / "nn" / "unet.py")
    wanted = {"papers/biomarker.py", "engine/loop.py", "data/phantom/findings.py", "randomness.py"}
    assert wanted <= set(files)
    other = {"papers/disease_masks.py", "experiments/registered.py", "baselines/chestxray8.py"}
    assert not other & set(files)
    assert not any(name.startswith(("viz/", "records/", "__")) for name in files)


def test_modules_outside_the_library_are_followed_but_not_named():
    from experiments import toy_comparison

    files = library_files(toy_comparison.__name__)
    assert "engine/loop.py" in files and not any("toy" in name for name in files)


def test_a_record_is_stale_once_a_file_that_made_it_has_changed():
    record = a_record()
    assert not record.is_stale and record.changed_files == ()
    code = dict(record.code)
    name = next(iter(code))
    changed = replace(record, code=code | {name: "0" * 64})
    assert changed.is_stale and changed.changed_files == (name,)
    gone = replace(record, code=code | {"nn/gone.py": "0" * 64})
    assert gone.is_stale and gone.changed_files == ("nn/gone.py",)
    assert replace(record, code={}).is_stale


def test_a_record_that_cannot_be_written_leaves_the_former_one(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"x": 1})
    with pytest.raises(UnicodeEncodeError):
        write_json(path, {"x": "\ud800"})  # half a character
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_a_full_disk_leaves_the_former_record_and_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_json(path, {"x": 1})

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1} and [p.name for p in tmp_path.iterdir()] == [
        "r.json"
    ]


def test_the_revision_is_that_of_the_beginning(monkeypatch):
    before = run_record.revision()
    monkeypatch.setattr(run_record.subprocess, "run", None)  # would fail, were git asked again
    assert run_record.revision() == before
