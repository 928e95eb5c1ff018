r"""The Readings of modules for a page: where a paper leaves something open, what it prints, what we
do, and why. A Reading is a paragraph of a docstring in this form:

    Reading (network, sum or mean): Eq. (2) applies the sigmoid to the sum of the map.
        Here: We take the mean.
        Why: The sum over 256 cells is 256 times as large, and $P_c \geq 0.8$ would mean nothing.

In parentheses stand one of `GROUPS` and what it is about. Each of the three parts is of whole
sentences, with `code` in backticks and TeX between dollars; whatever else is no Reading, and an
error.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from types import ModuleType
from typing import NamedTuple

SOURCE = "https://github.com/cxrtut/cxrtut/blob/main/"
GROUPS = {
    "data": "Readings on the data",
    "network": "Readings on the networks",
    "loss": "Readings on the losses",
    "training": "Readings on the training",
    "evaluation": "Readings on the evaluation",
}
COLUMNS = ("The paper prints", "We do", "Why")
LONG = 30  # characters of TeX, from which on a formula may go on in the next line

_BEGINS = re.compile(r"Reading\s*[:(,]|Reading of\b")
_LABEL = re.compile(r"\s*(Here|Why):")
_FORM = re.compile(
    r"Reading \((\w+), ([^():\n]+)\): (.+)\n    Here: (.+)\n    Why: (.+)", re.DOTALL
)
# MathJax in the output frame of Colab, which typesets text but not the HTML of a cell.
_COLAB = (
    '<script async src="https://cdn.jsdelivr.net/npm/mathjax@3.2.2/es5/tex-mml-chtml.js"></script>'
)


class Reading(NamedTuple):
    """One Reading, and where it stands.

    Attributes:
        group: one of `GROUPS`.
        topic: what it is about, a few words.
        printed: what the paper prints, or that it prints nothing.
        here: what we do.
        why: the reason.
        owner: the object whose docstring says it; the last name of a module.
        file: from the package on, such as `cxrtut/papers/biomarker.py`.
        line: on which the object begins, counted from 1.
        subject: what the module is about, in its own words.
    """

    group: str
    topic: str
    printed: str
    here: str
    why: str
    owner: str
    file: str
    line: int
    subject: str


@dataclass(frozen=True)
class Readings:
    """Readings by group, and those on comparators by their module; displays itself as tables."""

    entries: tuple[Reading, ...]
    comparators: tuple[Reading, ...] = ()

    def __repr__(self) -> str:
        tables = [*by_group(self.entries), *_by_module(self.comparators)]
        return "\n\n".join(_as_text(caption, rows) for caption, rows in tables)

    def _repr_html_(self) -> str:
        html = "".join(table(caption, rows) for caption, rows in by_group(self.entries))
        if self.comparators:
            n = len(self.comparators)
            count = f"Readings on the comparators: {n}"
            folded = "".join(table(caption, rows) for caption, rows in _by_module(self.comparators))
            html += f"<details><summary>{count}</summary>{folded}</details>"
        return html + (_COLAB if "google.colab" in sys.modules else "")


def readings(*modules: ModuleType, comparators: Sequence[ModuleType] = ()) -> Readings:
    """The Readings in the docstrings of some modules, in the order of the source.

    Args:
        modules: those of a paper and what it is made of. Those of `cxrtut.baselines` are
            comparators wherever they are named.
        comparators: further modules whose Readings are on what the paper is compared with.

    Raises:
        ValueError: a Reading without the form that this module describes.
    """
    ours: list[Reading] = []
    others: list[Reading] = []
    for module in modules:
        compared = module.__name__.startswith("cxrtut.baselines.")
        (others if compared else ours).extend(_of_module(module))
    for module in comparators:
        others += _of_module(module)
    return Readings(tuple(ours), tuple(others))


def _of_module(module: ModuleType) -> list[Reading]:
    is_package = hasattr(module, "__path__")
    path = module.__name__.replace(".", "/") + ("/__init__.py" if is_package else ".py")
    return parse(inspect.getsource(module), path)


# From docstrings


def parse(source: str, file: str) -> list[Reading]:
    """The Readings of a source.

    Args:
        source: of a module.
        file: its path from the package on, for links and errors.

    Raises:
        ValueError: a Reading without the right form; file, object and fault are named.
    """
    tree = ast.parse(source)
    summary = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    subject = summary.partition(": ")[0].rstrip(".")
    found = []
    for owner, line, text in _docstrings(tree, file.rpartition("/")[2].removesuffix(".py")):
        for paragraph in re.split(r"\n\s*\n", text):
            try:
                if said := parts(paragraph):
                    found.append(Reading(*said, owner, file, line, subject))
            except ValueError as fault:
                raise ValueError(f"{file}, {owner}: {fault}") from None
    return found


def parts(paragraph: str) -> tuple[str, str, str, str, str] | None:
    """Group, topic, what is printed, what we do and why; None for a paragraph of another kind.

    Raises:
        ValueError: a Reading without the right form.
    """
    first, *others = paragraph.strip("\n").splitlines() or [""]
    if not _BEGINS.match(first):
        if strays := [line for line in (first, *others) if _starts_one(line)]:
            raise ValueError(f"expected a Reading to be its own paragraph, got {strays[0]!r}")
        return None
    if any(line[:4].strip() for line in others):
        raise ValueError(f"expected the lines below to be indented, got {first!r}")
    labels = [found[1] for line in others if (found := _LABEL.match(line))]
    form = _FORM.fullmatch("\n".join((first, *others)))
    if form is None or labels != ["Here", "Why"]:
        wanted = "Reading (GROUP, TOPIC): ..., then Here: ... and Why: ..."
        raise ValueError(f"expected {wanted!r}, got {first!r} with {labels or 'no other part'}")
    group, topic, *said = (" ".join(part.split()) for part in form.groups())
    if group not in GROUPS:
        raise ValueError(f"expected one of {list(GROUPS)}, got {group!r}")
    for part in said:
        if not re.search(r"[.?][”\"]?$", part) or re.match(r"[\"“(]*[a-z]", part):
            raise ValueError(f"expected whole sentences, from a capital to a stop, got {part!r}")
        if part.count("$") % 2 or part.count("`") % 2:
            raise ValueError(f"expected each $ and ` to be closed, got {part!r}")
    printed, here, why = said
    return group, topic, printed, here, why


def _starts_one(line: str) -> bool:
    return bool(_BEGINS.match(line.strip()) or _LABEL.match(line))


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, int, str]]:
    """Each object with a docstring, the line on which it begins, and the docstring."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if text := ast.get_docstring(node):
        yield name, getattr(node, "lineno", 1), text
    for child in node.body:
        inner = getattr(child, "name", "")
        yield from _docstrings(child, inner if isinstance(node, ast.Module) else f"{name}.{inner}")


# To a page


def by_group(entries: Sequence[Reading]) -> list[tuple[str, list[Reading]]]:
    """Captions with their Readings: a group each, in the order of `GROUPS`."""
    found = {group: [entry for entry in entries if entry.group == group] for group in GROUPS}
    return [(GROUPS[group], rows) for group, rows in found.items() if rows]


def _by_module(entries: Sequence[Reading]) -> list[tuple[str, list[Reading]]]:
    return [(rows[0].subject, rows) for _, group in groupby(entries, lambda entry: entry.file)
            if (rows := list(group))]  # fmt: skip


def address(file: str, line: int) -> str:
    """A line of the library on GitHub; the file is named from the package on."""
    return f"{SOURCE}{file}#L{line}"


def table(caption: str, rows: Sequence[Reading]) -> str:
    """Readings as an HTML table: above each one its topic and a link to its object."""
    left = 'style="text-align: left; vertical-align: top"'
    head = "".join(f'<th scope="col" {left}>{column}</th>' for column in COLUMNS)
    body = []
    for row in rows:
        topic = typeset(row.topic[0].upper() + row.topic[1:])
        link = f'<a href="{address(row.file, row.line)}"><code>{escape(row.owner)}</code></a>'
        cells = "".join(
            f'<td data-column="{column}" {left}>{typeset(text)}</td>'
            for column, text in zip(COLUMNS, (row.printed, row.here, row.why), strict=True)
        )
        title = f'<th colspan="3" scope="rowgroup" {left}>{topic}: {link}</th>'
        body.append(f"<tbody><tr>{title}</tr><tr>{cells}</tr></tbody>")
    return (
        f'<table class="table readings"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>{''.join(body)}</table>"
    )


def typeset(text: str) -> str:
    """A text with `code` and $formulas$ as HTML that MathJax typesets, in a book and in Jupyter."""
    html = []
    for piece in re.split(r"(`[^`]+`|\$[^$]+\$)", text):
        if piece.startswith("`"):
            html.append(f"<code>{escape(piece[1:-1])}</code>")
        elif piece.startswith("$"):
            # Sphinx tells MathJax to look into elements of this class.
            html += [
                f'<span class="math notranslate nohighlight">\\({escape(part)}\\)</span><wbr>'
                for part in breakable(piece[1:-1])
            ]
        else:
            html.append(escape(piece))
    return "".join(html)


def breakable(formula: str) -> list[str]:
    """A long formula in parts between which a line may end: before a sign that no bracket encloses;
    a short one whole.
    """
    formula = " ".join(formula.split())
    if len(formula) < LONG:
        return [formula]
    found, depth, inside_bars = [""], 0, False
    for token in re.findall(r"\\[A-Za-z]+\*?|\\.| [-+=] |.", formula):
        opens = token in ("{", "(", "[", r"\{", r"\begin", r"\left")
        closes = token in ("}", ")", "]", r"\}", r"\end", r"\right")
        depth += opens - closes
        if token in ("|", r"\|") and depth == 0:
            inside_bars = not inside_bars
        if re.fullmatch(r" [-+=] ", token) and depth == 0 and not inside_bars and found[-1]:
            found.append("{}" + token)
        else:
            found[-1] += token
    return [part.strip() for part in found]


def _as_text(caption: str, rows: Sequence[Reading]) -> str:
    """For a terminal, wrapped at 79 columns."""
    lines = [caption, "=" * len(caption)]
    for row in rows:
        lines += ["", f"{row.topic[0].upper()}{row.topic[1:]} ({row.owner})"]
        for column, said in zip(COLUMNS, (row.printed, row.here, row.why), strict=True):
            lines += textwrap.wrap(
                f"{column}: {said}", 79, initial_indent="  ", subsequent_indent="    "
            )
    return "\n".join(lines)
