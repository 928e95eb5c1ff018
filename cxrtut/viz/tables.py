"""Small tables for a notebook, computed values only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Cell = str | int | float | None


def _shown(value: Cell, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Table:
    """Rows that share their columns; displays itself as HTML, prints itself as aligned text."""

    rows: Sequence[Mapping[str, Cell]]
    digits: int = 2

    def __post_init__(self) -> None:
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

    def _repr_html_(self) -> str:
        head, *body = ([escape(cell) for cell in line] for line in self._cells())
        first = self.rows[0].values() if self.rows else []
        sides = ["left" if isinstance(v, str) else "right" for v in first]

        def line(cells: list[str], tag: str) -> str:
            made = (
                f'<{tag} style="text-align: {side}">{cell}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )
            return f"<tr>{''.join(made)}</tr>"

        rows = "".join(line(cells, "td") for cells in body)
        return (
            f'<table class="table"><thead>{line(head, "th")}</thead><tbody>{rows}</tbody></table>'
        )

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        return "\n".join(
            "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells
        )
