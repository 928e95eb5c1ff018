"""What is printed where a terminal lacks characters, or where nobody reads on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_book import PARAMETERS, command, make_book, page

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "data_scripts").glob("*.py"))
PROGRAMS = {
    "cxrtut": ["-m", "cxrtut"], **{name: [str(ROOT / "data_scripts" / name)] for name in SCRIPTS}
}  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return buffered | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "0"} | more


def closed(words: list[str], cwd: Path = ROOT) -> tuple[int, str]:
    """Exit code and complaints of a program whose output nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=cwd, stdout=write, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1"])
@pytest.mark.parametrize("failure", ["", "raise StoreError('no \u2192 store')"])
def test_a_character_that_a_log_file_lacks_is_replaced_and_the_exit_code_is_right(
    encoding: str, failure: str
) -> None:
    code = f"""
import sys
from cxrtut import __main__ as program
from cxrtut.console import run_program
from cxrtut.data.store import StoreError
from cxrtut.viz.tables import Table
def bench(options):
    print(Table([{{"method": "G\u2212D", "AP": "0.5\xa0\xb1\xa00.1", "n": None}}], caption="c"))
    {failure}
program.run_bench = bench
sys.exit(run_program(lambda: program.main(["bench"])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True,
        env=environment(PYTHONIOENCODING=encoding),
    )  # fmt: skip
    complaint = done.stderr.decode(encoding)
    assert done.returncode == bool(failure), complaint
    assert "Traceback" not in complaint and ("error: no ? store" in complaint) == bool(failure)
    shown = done.stdout.decode(encoding)
    assert "G?D" in shown and "0.5" in shown and "0.1" in shown


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1"])
def test_the_builder_prints_pages_whose_names_a_log_file_lacks(
    tmp_path: Path, encoding: str
) -> None:
    book = make_book(tmp_path, {"na\u0131ve \u2192": page(PARAMETERS)})
    done = subprocess.run(
        command(book, "notebooks", "--out", str(tmp_path / "out")), cwd=book, capture_output=True,
        env=environment(PYTHONIOENCODING=encoding),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"na?ve ?.ipynb" in done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_that_nobody_reads_on_ends_without_a_traceback(name: str) -> None:
    assert closed([*PROGRAMS[name], "--help"]) == (141, "")


def test_a_table_that_nobody_reads_on_ends_without_a_traceback(tmp_path: Path) -> None:
    script = str(ROOT / "data_scripts" / "make_phantom.py")
    words = ("--layout", "store", "--n", "2", "--size", "32", "--out", str(tmp_path / "s"))
    assert closed([script, *words]) == (141, "  rendering 2 / 2\n")
    assert (tmp_path / "s").is_dir()  # what was asked for is there


def test_a_builder_whose_pipe_is_closed_ends_without_a_traceback(tmp_path: Path) -> None:
    book = make_book(tmp_path, {"one": page(PARAMETERS)})
    words = command(book, "run")[1:]
    assert closed(words, book) == (141, "")
    assert list((book / "build" / "executed").iterdir()) == []
