"""Small tables for a notebook and for a terminal, computed values only."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from html import escape
from itertools import zip_longest

Cell = str | int | float | None
WIDTH = 100  # columns of a terminal; longer lines of text are wrapped inside their column
NARROWEST = 10  # no column of text becomes narrower than this
_NUMBER = re.compile(r"[+\-−]?(\d+\.?\d*|\.\d+)(\s*[±(–].*)?|[–-]|")


def _shown(value: Cell, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _whole(text: str) -> str:
    """A text in which no line ends inside a size, such as 3 x 64 x 64."""
    return re.sub(r"(?<=\d) x (?=\d)", "\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}", text)


@dataclass(frozen=True)
class Table:
    """Rows that share their columns, under a caption.

    A notebook shows it as HTML: the caption, a head for each column, and the first cell of each
    row as the head of that row. A wide one scrolls inside a box that the keyboard can reach. A
    terminal prints the caption above aligned text; cells of much text are wrapped.

    Attributes:
        rows: a mapping for each row, from the name of a column to what stands there. None and NaN
            are shown as a dash.
        caption: what the table shows, of which images and in which unit. On a page it begins with
            the table's number, as in "Table 2. Held out: ...".
        digits: digits behind the point of a float.
    """

    rows: Sequence[Mapping[str, Cell]]
    _: KW_ONLY
    caption: str
    digits: int = 2

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: the caption is empty, or a row has other columns than the first.
        """
        if not self.caption.strip():
            raise ValueError(f"expected a caption that says what is shown, got {self.caption!r}")
        for row in self.rows:
            if list(row) != list(self.rows[0]):
                raise ValueError(
                    f"every row needs the columns {list(self.rows[0])}, got {list(row)}"
                )

    def _cells(self) -> list[list[str]]:
        return [
            list(self.rows[0]) if self.rows else [],
            *([_shown(v, self.digits) for v in row.values()] for row in self.rows),
        ]

    def _sides(self) -> list[str]:
        """Of each column the side on which its cells are aligned: right for numbers."""
        _, *body = self._cells()
        return [
            "right" if all(_NUMBER.fullmatch(cell) for cell in column) else "left"
            for column in zip(*body, strict=True)
        ]

    def _repr_html_(self) -> str:
        head, *body = ([_whole(escape(cell)) for cell in line] for line in self._cells())
        styles = [f'style="text-align: {side}"' for side in self._sides()]
        heads = "".join(
            f'<th scope="col" {style}>{cell}</th>' for cell, style in zip(head, styles, strict=True)
        )
        rows = "".join(
            f'<tr><th scope="row" {styles[0]}>{first}</th>'
            + "".join(f"<td {s}>{cell}</td>" for cell, s in zip(rest, styles[1:], strict=True))
            + "</tr>"
            for first, *rest in body
        )
        return (
            f'<div class="table-box" tabindex="0" role="region" aria-label="{self._label()}" '
            f'style="overflow-x: auto"><table class="table"><caption>{escape(self.caption)}'
            f"</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _label(self) -> str:
        """What a screen reader calls the box: the caption up to its first stop, which comes behind
        the number.
        """
        start = re.match(r"(Table \d+\. )?.*?(?=[.:;?!](\s|$)|$)", self.caption, re.DOTALL)
        assert start is not None
        return escape(start.group())

    def __repr__(self) -> str:
        cells, sides = self._cells(), self._sides()
        widths = _widths(cells, sides)
        lines = [textwrap.fill(self.caption, WIDTH)]
        for row in cells:
            wrapped = [
                textwrap.wrap(c, w, break_long_words=False, break_on_hyphens=False) or [""]
                for c, w in zip(row, widths, strict=True)
            ]
            for parts in zip_longest(*wrapped, fillvalue=""):
                placed = (
                    part.rjust(w) if side == "right" else part.ljust(w)
                    for part, w, side in zip(parts, widths, sides, strict=True)
                )
                lines.append("  ".join(placed).rstrip())
        return "\n".join(lines)


def _widths(cells: Sequence[Sequence[str]], sides: Sequence[str]) -> list[int]:
    """Of each column its widest cell; where a line would be longer than `WIDTH`, the widest columns
    give way, those of text down to `NARROWEST` or their longest word, those of numbers never below
    a number.
    """
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = []
    for (head, *body), side in zip(columns, sides, strict=True):
        parts = [*head.split(" "), *(body if side == "right" else " ".join(body).split(" "))]
        least.append(max(map(len, parts)) if side == "right" else max(NARROWEST, *map(len, parts)))

    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        width, widest = max(((w, k) for k, w in enumerate(widths) if w > least[k]), default=(0, 0))
        if not width:
            break
        widths[widest] -= 1
    return widths
