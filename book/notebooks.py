"""Pages as notebooks for Jupyter and Colab: not run, without MyST, with what Colab needs.

Colab's format: `accelerator` and `colab.gpuType` choose the machine; `# @param` makes a line of the
parameters' cell a field; a cell whose metadata has `cellView: form` and whose first line is
`# @title` shows the title in the place of its code, and a click opens it. Jupyter folds a cell by
`jupyter.source_hidden`.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from addresses import COLAB_BADGE, library_of_release, notebook_on_colab, page_in_the_book
from book_error import BookError
from citations import REFERENCES, Citations, prefix_of
from fold_titles import FOLDED, caption_of, last_heading, parsed, title_of
from nbformat import validate
from nbformat.v4 import new_code_cell, new_markdown_cell
from plain_markdown import REFERENCES_HERE, Page, italic

LEFT_OUT = "remove-cell"
PARAMETERS = "parameters"
TAGS = FOLDED | {LEFT_OUT, PARAMETERS, "hide-output", "nbval-check-output"}
INSTALL = """\
# @title Install the library (on Colab only)
import sys

if "google.colab" in sys.modules:
    from importlib.metadata import version

    # Named as they are, so that pip moves neither
    held = " ".join(f"{{name}}=={{version(name)}}" for name in ("numpy", "torch"))
    %pip install -q {address} {{held}}
"""


def plain_notebook(
    name: str, notebook: Any, book: Path, version: str, presets: Sequence[str]
) -> Any:
    """The notebook of a page, as it is published.

    Args:
        name: of the page, such as papers/biomarker.
        notebook: the page as jupytext reads it, with identifiers of its cells; is not changed.
        book: the folder of the pages.
        version: of the release that it is published with.
        presets: that the parameters' cell offers.

    Raises:
        BookError: the page uses what has no plain form.
    """
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    page = Page(name, book, version, Citations(book / "references.bib", prefix_of(texts)))
    made = type(notebook)(notebook)
    made.cells = list(_cells(page, notebook.cells, presets))
    _refuse_what_left_out_cells_define(name, notebook.cells)
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    if not any("pip install" in source for source in code):
        first = next(i for i, cell in enumerate(made.cells) if cell.cell_type == "code")
        made.cells.insert(first, _install_cell(name, version))
    _add_references(page, made)
    made.metadata = type(notebook.metadata)(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
        accelerator="GPU",
        colab={"gpuType": "T4", "provenance": []},
    )
    made.nbformat, made.nbformat_minor = 4, 5
    validate(made)
    return made


def _cells(page: Page, cells: Sequence[Any], presets: Sequence[str]) -> Iterator[Any]:
    heading = ""
    for number, cell in enumerate(cells):
        tags = set(cell.metadata.get("tags", []))
        if unknown := sorted(tags - TAGS):
            raise BookError(f"book/{page.name}.md: no plain form is known of the tag {unknown[0]}")
        if cell.cell_type == "markdown":
            text = page.plain(cell.source)
            heading = last_heading(text, heading)
            yield new_markdown_cell(
                _with_badge(page.name, text) if number == 0 else text, id=cell["id"]
            )
        elif LEFT_OUT not in tags:
            yield from _code(page, cell, tags, heading, presets)


def _code(
    page: Page, cell: Any, tags: set[str], heading: str, presets: Sequence[str]
) -> Iterator[Any]:
    """A cell of code, and its caption below it."""
    caption = caption_of(cell)
    source = cell.source
    metadata: dict[str, Any] = {}
    if PARAMETERS in tags:
        source, metadata = form(source, presets), {"tags": [PARAMETERS], "cellView": "form"}
    elif tags & FOLDED:
        source = f"# @title {title_of(cell, heading)}\n{source}"
        metadata = {"cellView": "form", "jupyter": {"source_hidden": True}}
    yield new_code_cell(source, id=cell["id"], metadata=metadata)
    if caption:
        yield new_markdown_cell(italic(page.plain(caption)), id=_id(page.name, caption))


def form(source: str, presets: Sequence[str]) -> str:
    """The parameters' cell as a form: a field for each assignment, a comment behind it above it."""
    lines = ["# @title Parameters"]
    told = source.splitlines()
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            raise BookError(
                f"expected assignments in the parameters' cell, got {ast.unparse(node)}"
            )
        name, value = node.targets[0].id, ast.literal_eval(node.value)
        comment = told[node.lineno - 1][node.end_col_offset or 0 :].strip().lstrip("# ")
        if comment:
            lines.append(f"# @markdown {comment}")
        shown = json.dumps(value) if isinstance(value, str) else repr(value)
        lines.append(f"{name} = {shown}  # @param {_field(name, value, presets)}")
    return "\n".join(lines)


def _field(name: str, value: Any, presets: Sequence[str]) -> str:
    """What Colab offers for a value."""
    if name == "preset":
        return json.dumps(list(presets))
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    if type(value) not in kinds:
        raise BookError(f"expected a number, a text or a truth value for {name}, got {value!r}")
    return json.dumps({"type": kinds[type(value)]})


def _with_badge(name: str, text: str) -> str:
    """The text of the first cell with two links below its title: to Colab and to the book."""
    title, _, rest = text.partition("\n")
    if not title.startswith("# "):
        raise BookError(f"book/{name}.md: expected a title in the first line, got {title!r}")
    badge = f"[![Open in Colab]({COLAB_BADGE})]({notebook_on_colab(name)})"
    back = f"[This page in the book]({page_in_the_book(name)})"
    return f"{title}\n\n{badge} {back}\n{rest}".rstrip("\n")


def _install_cell(name: str, version: str) -> Any:
    source = INSTALL.format(address=library_of_release(version)).rstrip("\n")
    metadata = {"cellView": "form", "jupyter": {"source_hidden": True}}
    return new_code_cell(source, id=_id(name, source), metadata=metadata)


def _add_references(page: Page, notebook: Any) -> None:
    """The works that the page cites, where its bibliography stands or else at the end."""
    works = page.citations.references()
    places = [cell for cell in notebook.cells if REFERENCES_HERE in cell.source]
    for cell in places:
        cell.source = cell.source.replace(REFERENCES_HERE, works)
    if page.citations.cited and not places:
        text = f"## {REFERENCES}\n\n{works}"
        notebook.cells.append(new_markdown_cell(text, id=_id(page.name, text)))


def _refuse_what_left_out_cells_define(name: str, cells: Sequence[Any]) -> None:
    """What a cell that is left out defines would be missing in the cells after it."""
    kept: set[str] = set()
    missing: dict[str, str] = {}
    for cell in cells:
        if cell.cell_type != "code":
            continue
        made, used = _names(cell.source)
        if LEFT_OUT in cell.metadata.get("tags", []):
            missing |= {each: cell.source.partition("\n")[0] for each in made - kept}
            continue
        for each in sorted(used & set(missing)):
            raise BookError(
                f"book/{name}.md: {each!r} is used in a notebook, but the cell that defines it is "
                f"tagged {LEFT_OUT}: {missing[each]}"
            )
        kept |= made
        missing = {each: where for each, where in missing.items() if each not in made}


def _names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell defines, and those that it uses without having defined them itself."""
    made, used = set[str](), set[str]()
    for node in ast.walk(parsed(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name):
                made.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                made.add(name)
            case ast.alias(name=name, asname=other):
                made.add(other or name.partition(".")[0])
    return made, used - made


def _id(page: str, text: str) -> str:
    return hashlib.sha256(f"{page}\0added\0{text}".encode()).hexdigest()[:12]
