"""The directive `equations`: which code computes which equation, and what papers leave open.

    ```{equations} papers baselines
    ```

For every module of the packages named: its equation map, each name a link to the line of the source
that defines it, and its `Reading:` paragraphs. Sources are parsed, never imported.
"""

import ast
import html
import re
from pathlib import Path

from docutils import nodes
from source_lines import ROOT, SOURCE, Place, definition
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cxrtut.viz.readings import paragraphs

PACKAGE = ROOT / "cxrtut"
HEADINGS = ("Equations", "Steps")
INDENT = 4  # of a row


def summary(node: ast.AST) -> str:
    """The first paragraph of a docstring on one line, or nothing."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def text_with_code(text: str) -> nodes.paragraph:
    """A paragraph in which `...` is code and everything else is plain text."""
    paragraph = nodes.paragraph()
    for index, piece in enumerate(re.split(r"`+", text)):
        paragraph += nodes.literal(piece, piece) if index % 2 else nodes.Text(piece)
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


def rows(lines: str) -> list[tuple[str, list[str]]]:
    """The map's rows: what the paper has, and the names beside it; a heading has no names.

    A line that is indented further than a row goes on with the row above it.
    """
    found: list[tuple[str, list[str]]] = []
    for line in lines.splitlines():
        names = re.findall(r"`([^`]+)`", line)
        said = line.partition("`")[0].strip()
        goes_on = len(line) - len(line.lstrip()) > INDENT
        if goes_on and found:
            above, before = found[-1]
            found[-1] = "\n".join(filter(None, (above, said))), before + names
        else:
            found.append((said, names))
    return found


def table(lines: str, path: Path) -> str:
    """A map as an HTML table, its names links to the source."""

    def link(name: str) -> str:
        place = place_of(name, path)
        if place is None:
            return html.escape(name)
        target = f"{SOURCE}{place[0].relative_to(ROOT).as_posix()}#L{place[1]}"
        return f'<a href="{target}">{html.escape(name)}</a>'

    body = []
    for said, names in rows(lines):
        text = html.escape(said).replace("\n", "<br>")
        if said.startswith(HEADINGS):
            body.append(f'<tr><th colspan="2" scope="colgroup">{text}</th></tr>')
        else:
            links = "<br>".join(map(link, names))
            body.append(f"<tr><td>{text}</td><td>{links}</td></tr>")
    return f'<table class="table equation-map">{"".join(body)}</table>'


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
        lines, readings = equation_map(docstring), paragraphs(source, path.stem)
        if not lines and not readings:
            return []
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        section = nodes.section(ids=[nodes.make_id(f"equations {name}")], names=[f"of {name}"])
        section += nodes.title(name, name)
        section += text_with_code(summary(tree))
        if lines:
            section += text_with_code(citation(docstring))
            section += nodes.raw("", table(lines, path), format="html")
        listing = nodes.definition_list(classes=["readings"])
        for owner, text in readings:
            term = nodes.term("", "", nodes.literal(text=owner))
            definition = nodes.definition("", text_with_code(text))
            listing += nodes.definition_list_item("", term, definition)
        if readings:
            section += listing
        return [section]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("equations", Equations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
