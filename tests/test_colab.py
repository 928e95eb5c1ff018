"""What a page needs to run by itself, where there is no checkout: on Colab."""

import re
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGES = sorted((BOOK / "foundations").glob("*.md")) + sorted((BOOK / "papers").glob("*.md"))
CELL = re.compile(r"^```\{code-cell\}.*?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Ways of reading a file by its place beside the page; `data_root` is the reader's own store.
BESIDE = re.compile(r"""(?:open|Path|read_text|np\.load|imread)\(\s*["']""")


def code(page: Path) -> str:
    return "\n".join(CELL.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_installs_the_library_on_colab_alone_and_says_where_it_runs(page: Path) -> None:
    source = code(page)
    guard = source.index('if "google.colab" in sys.modules:')
    assert source.index("!pip install") > guard
    assert source.count("!pip") == 1 and "torch.__version__" in source


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_reads_no_file_that_only_a_checkout_has(page: Path) -> None:
    assert BESIDE.findall(code(page)) == []


def test_reading_a_file_beside_the_page_is_noticed() -> None:
    assert BESIDE.search('claims_table(Path("x.claims.yml"))') and BESIDE.search("open('a.csv')")


@pytest.mark.parametrize("page", sorted((BOOK / "papers").glob("*.md")), ids=lambda p: p.stem)
def test_a_paper_without_a_gpu_says_that_it_takes_hours(page: Path) -> None:
    assert 'if device == "cpu" and preset != "smoke":' in code(page)
