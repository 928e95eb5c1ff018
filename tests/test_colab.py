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
def test_a_page_leaves_installing_and_forms_to_the_writer_of_notebooks(page: Path) -> None:
    source = code(page)
    assert not re.search(r"pip install|google\.colab|@param|@title", source)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_where_it_runs_and_goes_on_without_a_gpu(page: Path) -> None:
    source = code(page)
    needs_one = r"preset, \w+ = usable\(preset\)"
    assert re.search(rf"^({needs_one}|same_at_every_preset\(\))$", source, flags=re.MULTILINE)
    assert "is_available()" not in source


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_goes_on_where_the_recorded_networks_cannot_be_had(page: Path) -> None:
    assert not re.search(r"\bcxrtut\.load\(|\bload\(f?[\"']", code(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_reads_no_file_that_only_a_checkout_has(page: Path) -> None:
    assert BESIDE.findall(code(page)) == []


def test_reading_a_file_beside_the_page_is_noticed() -> None:
    assert BESIDE.search('claims_table(Path("x.claims.yml"))') and BESIDE.search("open('a.csv')")
