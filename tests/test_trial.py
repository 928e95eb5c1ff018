"""Notebooks run as readers run them: no network, an empty folder, what fails is named."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "book")]
import trial  # noqa: E402

from cxrtut.experiments.pretrained import published  # noqa: E402

STUB = """
import pathlib, sys
source, result = sys.argv[1:3]
exec(pathlib.Path(source).read_text())
"""


def test_there_is_no_network_but_the_machine_itself(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(trial.NO_NETWORK)
    code = """
import socket, urllib.request
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=5)
for attempt in (
    lambda: urllib.request.urlopen("https://github.com", timeout=5),
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=5),
):
    try:
        attempt()
    except OSError as error:
        assert "no network here" in str(error), error
    else:
        raise SystemExit("connected")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_recorded_networks_lie_where_the_library_looks_for_them(tmp_path, monkeypatch):
    from cxrtut.records import recorded

    trial.fill_cache(tmp_path / "cache")
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    for weights in published().values():
        found = recorded.weights_file(weights, folder=tmp_path / "nowhere")
        assert found.parent == tmp_path / "cache"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pass", None),
        ("raise SystemExit('a reason')", "a reason"),
        ("pathlib.Path('left.txt').write_text('x')", "left in the reader's folder: left.txt"),
    ],
)
def test_a_notebook_that_fails_or_leaves_something_is_named(tmp_path, capsys, source, said):
    (tmp_path / "papermill.py").write_text(STUB)  # in its place: what it is given is a script
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(source)
    found = list(trial.failures([notebook], Path(sys.executable), [tmp_path], tmp_path))
    assert found == ([] if said is None else [str(notebook)])
    told = capsys.readouterr()
    assert ("done" if said is None else "FAILED") in told.out
    assert said is None or said in told.err
