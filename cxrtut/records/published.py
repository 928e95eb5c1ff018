"""The numbers that the papers print, with their place; nothing here is ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "printed"


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes:
        place: where the paper prints it, and what it is.
        numbers: method -> column (a disease, a data set, `mean`) -> the number as it is printed.
    """

    place: str
    numbers: Mapping[str, Mapping[str, float]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of all methods, in the paper's order."""
        return tuple(dict.fromkeys(c for row in self.numbers.values() for c in row))

    def number(self, method: str, column: str = "mean") -> float | None:
        """None where the paper prints none."""
        return self.numbers.get(method, {}).get(column)

    @property
    def digits(self) -> int:
        """Digits behind the point, as the paper prints its numbers."""
        return max(
            (printed_digits(v) for row in self.numbers.values() for v in row.values()), default=0
        )

    def text(self, method: str, column: str = "mean") -> str | None:
        """The number with all its digits, such as "0.30"; None where the paper prints none."""
        number = self.number(method, column)
        return None if number is None else f"{number:.{self.digits}f}"

    def by_column(self) -> list[dict[str, str | None]]:
        """A row for each column (a disease), a column for each method, for a table of which we have
        nothing; else see `records.tables.classes_beside_paper`.
        """
        return [
            {"disease": column, **{method: self.text(method, column) for method in self.numbers}}
            for column in self.columns
        ]


def printed_digits(number: float) -> int:
    """Digits behind the point that a number needs: 2 for 0.43."""
    return len(repr(float(number)).partition(".")[2].removesuffix("0"))


def published(paper: str) -> dict[str, PublishedTable]:
    """The tables of a paper by the identifier of their measure, such as "loc_acc@0.3".

    Raises:
        FileNotFoundError: no such paper; those that are there are named.
    """
    path = FOLDER / f"{paper}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise FileNotFoundError(f"no numbers of {paper!r}; there are those of {known}")
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: PublishedTable(table["place"], table["numbers"])
        for name, table in content["tables"].items()
    }
