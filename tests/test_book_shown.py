"""What the book shows of a page that was run, and what is checked of that."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from small_book import BOOK, build, make_book, page

PLAIN = page(
    ':tags: [parameters]\npreset = "paper"\nseed = 0',
    ':tags: [nbval-check-output]\nimport os\nprint(preset, os.environ["CXRTUT_UNWATCHED"])',
    ":tags: [remove-cell, nbval-check-output]\nprint(seed > 1)",
)
CAPTION = '<table class="table"><caption>Table 2. A</caption></table>'
NUMBERED = page(f"from IPython.display import HTML\nHTML('{CAPTION}')")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book of two pages that were run."""
    root = make_book(tmp_path_factory.mktemp("shown"), {"plain": PLAIN, "numbered": NUMBERED})
    done = build(root, "run", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    return root


def test_the_record_says_how_a_page_was_run(book: Path) -> None:
    record = json.loads((book / "build" / "executed" / "plain.json").read_text())
    assert record["torch"].startswith("torch ") and record["seconds"] > 0
    assert record["parameters"] == {"preset": "smoke", "seed": 0}


def test_a_kernel_is_told_that_nobody_watches_and_goldens_hold_what_is_not_shown(
    book: Path,
) -> None:
    assert build(book, "check", "--update", "--pages", "plain").returncode == 0
    golden = json.loads((book / "book" / "goldens" / "plain.json").read_text())
    assert [cell["prints"] for cell in golden] == ["smoke 1", "False"]


def test_one_cell_of_parameters_is_shown_and_how_the_page_was_built(book: Path) -> None:
    overview = book / "book" / "appendix" / "api.md"
    overview.parent.mkdir()
    overview.write_text("# Library\n")
    try:
        command = [sys.executable, "-c", "import build; build.assemble(build.all_pages())"]
        # In a process of its own: its modules are those of this book
        path = f"{book / 'book'}{os.pathsep}{book}"
        subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True)
    finally:
        shutil.rmtree(overview.parent)
    shown = nbformat.read(book / "build" / "source" / "plain.ipynb", as_version=4)
    sources = [cell.source for cell in shown.cells]
    assert sources[1] == 'preset = "smoke"\nseed = 0'
    assert sources[2].startswith("*Built at preset smoke in ")
    assert len(sources) == 5
    kept = nbformat.read(book / "build" / "executed" / "plain.ipynb", as_version=4)
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in kept.cells)


def test_captions_are_checked_with_what_is_printed(book: Path) -> None:
    done = build(book, "check")
    assert done.returncode == 1
    expected = "numbered: expected a caption that begins 'Table 1.', got 'Table 2. A': from IPython"
    assert expected in done.stderr
    assert "plain: expected" not in done.stderr


def test_the_builder_offers_the_presets_of_the_library(book: Path) -> None:
    refused = build(book, "run", "--preset", "huge")
    assert refused.returncode == 2
    assert all(name in refused.stderr for name in ("smoke", "colab", "paper"))
    assert '("smoke", "colab"' not in (BOOK / "build.py").read_text(encoding="utf-8")
