"""The front page, README and the chapters say the same of times, addresses and the citation."""

import re
from pathlib import Path

import pytest
import yaml
from test_book_extensions import load

ROOT = Path(__file__).resolve().parents[1]
FRONT = (ROOT / "book" / "index.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
TIME = r"about\s+([a-z]+\s+(?:seconds?|minutes?))"
CHAPTERS = [
    path.relative_to(ROOT / "book").with_suffix("").as_posix()
    for folder in ("foundations", "papers")
    for path in sorted((ROOT / "book" / folder).glob("*.md"))
]


def told(text: str) -> str:
    """The first time that a text names as `about ...`."""
    found = re.search(TIME, text)
    assert found is not None, text
    return " ".join(found[1].split())


def card(chapter: str) -> str:
    """What the front page says of a chapter."""
    return FRONT.partition(f"{{grid-item-card}} {{doc}}`{chapter}`")[2].partition("\n:::\n")[0]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_front_page_and_readme_name_the_time_of_the_chapters_own_box(chapter: str) -> None:
    page = (ROOT / "book" / f"{chapter}.md").read_text("utf-8")
    box = page.partition(":class: cost-box")[2].partition("```")[0]
    row = next(line for line in README.splitlines() if f"(book/{chapter}.md)" in line)
    assert told(card(chapter)) == told(box) == told(row)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_badge_opens_the_published_notebook(chapter: str) -> None:
    address = load("addresses").notebook_on_colab(chapter)
    assert card(chapter).count("_static/colab.svg") == card(chapter).count(f"({address})") == 1


def test_the_citation_is_that_of_the_citation_file() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    entry = FRONT.partition("```bibtex")[2].partition("```")[0]
    fields = dict(re.findall(r"^\s+(\w+)\s*= \{(.*)\}", entry, flags=re.MULTILINE))
    assert fields == {
        "title": cited["title"],
        "author": "{" + cited["authors"][0]["name"] + "}",
        "version": str(cited["version"]),
        "url": cited["repository-code"],
        "license": cited["license"],
    }


def test_the_front_page_has_one_title_and_no_step_between_headings() -> None:
    levels = [len(line.split()[0]) for line in FRONT.splitlines() if re.match(r"#+ ", line)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(levels) == 2


def test_the_pictures_of_the_front_page_are_small() -> None:
    pictures = list((ROOT / "book" / "_static").glob("*.webp"))
    assert len(pictures) == len(CHAPTERS) + 1
    assert sum(path.stat().st_size for path in pictures) < 150_000  # bytes
