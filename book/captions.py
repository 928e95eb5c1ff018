"""Captions of the pictures and tables of an executed page: each is there, and they are numbered 1,
2, 3 in the order of the page.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from page_syntax import directive_of, tokens_of

HIDDEN = {"remove-cell", "remove-output"}
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass
class Shown:
    """A picture or a table of a page.

    Attributes:
        kind: Figure or Table.
        where: a line of the cell.
        caption: None where there is none.
        alt: empty where there is none; a table needs none.
    """

    kind: str
    where: str
    caption: str | None
    alt: str = ""


def complaints(notebook: Any) -> list[str]:
    """What is wrong with the captions of an executed notebook: the cell, and what was expected."""
    wrong: list[str] = []
    number = {"Figure": 0, "Table": 0}
    for shown in _all_shown(notebook, wrong):
        if shown.kind == "Figure" and not shown.alt.strip():
            wrong.append(f"a picture without alternative text: {shown.where}")
        number[shown.kind] += 1
        expected = f"{shown.kind} {number[shown.kind]}."
        if shown.caption is None or not shown.caption.strip():
            wrong.append(f"expected a caption that begins {expected!r}, got none: {shown.where}")
        elif not re.match(rf"{re.escape(expected)}\s+\S", shown.caption.strip()):
            begun = shown.caption.strip()[:40]
            wrong.append(
                f"expected a caption that begins {expected!r}, got {begun!r}: {shown.where}"
            )
    return wrong


def _all_shown(notebook: Any, wrong: list[str]) -> Iterator[Shown]:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield from _in_text(cell.source)
        elif cell.cell_type == "code" and not HIDDEN & set(cell.metadata.get("tags", [])):
            yield from _in_outputs(cell, wrong)


def _in_text(text: str) -> Iterator[Shown]:
    """Figures and tables with a caption of a text, those inside of boxes included."""
    for token in tokens_of(text):
        directive = directive_of(token)
        for child in token.children or []:
            if child.type == "image":
                where = f"![{child.content}]({child.attrs['src']})"
                yield Shown("Figure", where, None, child.content)
        if directive is None:
            continue
        where = f"{{{directive.name}}} {directive.argument}"
        if directive.name in {"figure", "image"}:
            yield Shown("Figure", where, directive.body, directive.options.get("alt", ""))
        elif directive.name in {"table", "list-table"}:
            yield Shown("Table", where, directive.argument)
        elif directive.name not in {"code-block", "math"}:
            yield from _in_text(directive.body)


def _in_outputs(cell: Any, wrong: list[str]) -> Iterator[Shown]:
    where = cell.source.partition("\n")[0]
    told = cell.metadata.get("mystnb", {})
    caption, alt = told.get("figure", {}).get("caption"), told.get("image", {}).get("alt", "")
    pictures = 0
    for output in cell.outputs:
        data = output.get("data", {})
        if WIDGET in data:
            wrong.append(f"a widget, which a page without a kernel cannot show: {where}")
        elif "text/html" in data:
            yield from _in_html(data["text/html"], where)
        elif any(kind in data for kind in PICTURES):
            pictures += 1
            if pictures > 1:
                wrong.append(f"several pictures under one caption: {where}")
            else:
                yield Shown("Figure", where, caption, alt)


def _in_html(text: str, where: str) -> list[Shown]:
    reader = _Reader(where)
    reader.feed(text)
    reader.close()
    return reader.shown


@dataclass
class _Open:
    """A figure or a table that is being read."""

    tag: str
    shown: Shown
    alts: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    """Finds the figures of an output, and the tables of class `table`; those that are of class
    `readings`, too, carry captions without a number.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.shown = where, list[Shown]()
        self.open: list[_Open] = []
        self.caption: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        classes = (attributes.get("class") or "").split()
        if tag == "figure":
            self._begin(tag, "Figure")
        elif tag == "table" and "table" in classes and "readings" not in classes:
            self._begin(tag, "Table")
        elif tag == "img" and self.open:
            self.open[-1].alts.append(attributes.get("alt") or "")
        elif tag in {"caption", "figcaption"}:
            self.caption = []

    def _begin(self, tag: str, kind: str) -> None:
        shown = Shown(kind, self.where, None)
        self.shown.append(shown)
        self.open.append(_Open(tag, shown))

    def handle_data(self, data: str) -> None:
        if self.caption is not None:
            self.caption.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"caption", "figcaption"} and self.caption is not None:
            if self.open and (tag == "caption") == (self.open[-1].tag == "table"):
                self.open[-1].shown.caption = " ".join("".join(self.caption).split())
            self.caption = None
        elif self.open and tag == self.open[-1].tag:
            done = self.open.pop()
            if done.tag == "figure":
                done.shown.alt = done.alts[0] if done.alts and all(done.alts) else ""
