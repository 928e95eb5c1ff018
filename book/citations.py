"""Citations and references as the book prints them, in plain Markdown."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from book_error import BookError

REFERENCES = "References"


@functools.cache
def _library(path: Path) -> Any:
    from pybtex.database import parse_file

    return parse_file(str(path), bib_format="bibtex")


class Citations:
    """The works of a bibliography, and which of them a page cites.

    Args:
        path: the BibTeX file.
        prefix: what the page puts before its keys, so that each page has references of its own.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self.works, self.prefix, self.cited = _library(path), prefix, set[str]()

    def _key(self, key: str) -> str:
        plain = key.strip().removeprefix(self.prefix)
        if plain not in self.works.entries:
            raise BookError(f"no work {key.strip()!r} in the bibliography")
        self.cited.add(plain)
        return plain

    def _label(self, key: str) -> tuple[str, str]:
        """Authors, "et al." in italics, and year."""
        from author_year import AuthorYearLabels

        (label,) = AuthorYearLabels().format_labels([self.works.entries[key]])
        authors, _, year = label.rpartition(", ")
        return authors.replace("et al.", "*et al.*"), year

    def _address(self, key: str) -> str:
        """The work itself where its entry says where it is, else the page's references."""
        fields = self.works.entries[key].fields
        if "doi" in fields:
            return f"https://doi.org/{fields['doi']}"
        if "eprint" in fields:
            return f"https://arxiv.org/abs/{fields['eprint']}"
        return fields.get("url", f"#{REFERENCES}")

    def textual(self, keys: str) -> str:
        """Of "a, b": Zhang et al. [2019], Arjovsky and Bottou [2017]; years are links."""
        found = []
        for key in map(self._key, keys.split(",")):
            authors, year = self._label(key)
            found.append(f"{authors} [[{year}]({self._address(key)})]")
        return ", ".join(found)

    def parenthetical(self, keys: str) -> str:
        """Of "a, b": [Arjovsky and Bottou, 2017, Zhang et al., 2019]; each a link."""
        ordered = sorted(map(self._key, keys.split(",")), key=self._label)
        links = (f"[{', '.join(self._label(key))}]({self._address(key)})" for key in ordered)
        return f"[{', '.join(links)}]"

    def references(self) -> str:
        """The works that were cited, one a paragraph, behind an anchor that citations lead to."""
        from author_year import AuthorYear

        formatted = AuthorYear().format_bibliography(self.works, sorted(self.cited))
        works = [
            f"**{entry.label}.** {' '.join(entry.text.render(_backend()).split())}"
            for entry in sorted(formatted, key=lambda entry: entry.label)
        ]
        return "\n\n".join([f'<a name="{REFERENCES}"></a>', *works])


def _backend() -> Any:
    from pybtex.backends.markdown import Backend

    class Plain(Backend):
        """Escapes what Markdown reads, and no more: `\\(` would begin a formula for MathJax."""

        symbols = {"ndash": "–", "newblock": " ", "nbsp": " "}  # noqa: RUF012

        def format_str(self, text: str) -> str:
            return re.sub(r"([\\`*_\[\]$<])", r"\\\1", text)

        def format_href(self, url: str, text: str, external: bool = False) -> str:
            return f"[{text}]({url})"

    return Plain()


def prefix_of(texts: Iterable[str]) -> str:
    """The prefix of keys that a page's bibliography states; none where it states none."""
    found = re.search(r"^:keyprefix:[ ]*(\S+)", "\n".join(texts), flags=re.MULTILINE)
    return found[1] if found else ""
