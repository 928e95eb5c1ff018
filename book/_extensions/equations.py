"""The directive `equations`: which code computes which equation, and what papers leave open.

    ```{equations} papers baselines
    ```

For every module of the packages named: its equation map, each name a link to the line of the source
that defines it, and its Readings. Sources are parsed, never imported.

A map stands in a module's docstring below a line "Equations" or "Steps". A row begins at four
columns, lines that are indented further go on with it: text with TeX between dollars, then from the
first backtick on the names of what computes it.
"""

import ast
import html
import re
from pathlib import Path

from docutils import nodes
from source_lines import ROOT, Place, address, definition
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cxrtut.viz.readings import by_group, parse, typeset
from cxrtut.viz.readings import table as readings_table

PACKAGE = ROOT / "cxrtut"
HEADINGS = ("Equations", "Steps")
INDENT = 4  # of a row


def summary(node: ast.AST) -> str:
    """The first paragraph of a docstring on one line, or nothing."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def text_with_code(text: str) -> nodes.paragraph:
    """A paragraph in which `...` is code, $...$ a formula, and everything else plain text."""
    paragraph = nodes.paragraph()
    for piece in filter(None, re.split(r"(`+[^`]+`+|\$[^$]+\$)", text)):
        kind = {"`": nodes.literal, "$": nodes.math}.get(piece[0])
        inner = piece.strip("`$")
        paragraph += kind(inner, inner) if kind else nodes.Text(piece)
    return paragraph


def equation_map(docstring: str) -> str:
    """The lines below "Equations" and "Steps", with these headings; empty where there are none."""
    found, inside = [], False
    for line in docstring.splitlines():
        heading = line.startswith(HEADINGS)
        inside = heading or (inside and line.startswith(" "))
        if inside:
            found.append(line)
    return "\n".join(found)


def citation(docstring: str) -> str:
    """The paragraph after the summary: whose equations these are."""
    return " ".join(docstring.split("\n\n")[1].split())


def place_of(name: str, path: Path) -> Place | None:
    """The file and line that define what a module calls by a name, or by a path from `cxrtut`.

    None where nothing does.
    """
    first, *rest = name.split(".")
    if (PACKAGE / first).is_dir() and rest:
        inner = PACKAGE / first / f"{rest[0]}.py"
        return definition(rest[1:], inner) if inner.is_file() else None
    if (PACKAGE / f"{first}.py").is_file():
        return definition(rest, PACKAGE / f"{first}.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("cxrtut."):
            continue
        if first in [alias.name for alias in node.names]:
            inner = ROOT / Path(*node.module.split(".")).with_suffix(".py")
            return definition([first, *rest], inner)
    return definition([first, *rest], path)


def rows(lines: str) -> list[tuple[str, str]]:
    """The map's rows: what the paper has, and what computes it, its names in backticks; a heading
    has nothing that computes it.
    """
    found: list[tuple[str, str]] = []
    for line in lines.splitlines():
        said, tick, code = line.strip().partition("`")
        if len(line) - len(line.lstrip()) > INDENT and found:
            above, before = found.pop()
            if before:
                said, code = above, f"{before} {line.strip()}"
            else:
                said, code = f"{above} {said}".strip(), tick + code
            found.append((said.strip(), code))
        else:
            found.append((said.strip(), tick + code))
    return found


def table(lines: str, path: Path) -> str:
    """A map as an HTML table, its names links to the source."""

    def linked(code: str) -> str:
        pieces = code.split("`")
        for index, piece in enumerate(pieces):
            # A line may end behind a dot of a long name.
            text = html.escape(piece).replace(".", ".<wbr>") if index % 2 else html.escape(piece)
            place = place_of(piece, path) if index % 2 else None
            target = address(place, ROOT) if place else ""
            pieces[index] = f'<a href="{target}"><code>{text}</code></a>' if place else text
        return "".join(pieces)

    body = []
    for said, code in rows(lines):
        if said.startswith(HEADINGS):
            body.append(f'<tr><th colspan="2" scope="rowgroup">{typeset(said)}</th></tr>')
        else:
            body.append(f"<tr><td>{typeset(said)}</td><td>{linked(code)}</td></tr>")
    caption = f"From the paper to the code of <code>{path.stem}</code>"
    head = (
        '<thead><tr><th scope="col">In the paper</th><th scope="col">In the code</th></tr></thead>'
    )
    return (
        f'<table class="table equation-map"><caption>{caption}</caption>{head}'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


class Equations(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        sections = []
        for package in self.arguments[0].split():
            for path in sorted((PACKAGE / package).rglob("*.py")):
                self.env.note_dependency(path.as_posix())
                sections += self.module(path)
        return sections

    def module(self, path: Path) -> list[nodes.Node]:
        source = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(tree := ast.parse(source)) or ""
        lines = equation_map(docstring)
        groups = by_group(parse(source, path.relative_to(ROOT).as_posix()))
        if not lines and not groups:
            return []
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        section = nodes.section(ids=[nodes.make_id(f"equations {name}")], names=[f"of {name}"])
        section += nodes.title(name, name)
        section += text_with_code(summary(tree))
        if lines:
            section += text_with_code(citation(docstring))
            section += nodes.raw("", table(lines, path), format="html")
        for caption, readings in groups:
            section += nodes.raw("", readings_table(caption, readings), format="html")
        return [section]


def load_mathjax(app: Sphinx, doctree: nodes.document) -> None:
    """Sphinx loads MathJax where a page has a formula; it does not look into HTML tables."""
    tables = (node for node in doctree.findall(nodes.raw) if 'class="math' in node.astext())
    if next(tables, None) is not None:
        app.env.get_domain("math").data["has_equations"][app.env.docname] = True


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("equations", Equations)
    app.connect("doctree-read", load_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
