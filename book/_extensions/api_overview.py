"""The directive `api-overview`: what a package offers, module by module, read from its source.

    ```{api-overview} cxrtut
    ```

The source is parsed, never imported, so that the page builds without the package's requirements.
For every module: the summary of its docstring, and for every public function and class its
signature and its docstring.
"""

import ast
import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SOURCE = "https://github.com/cxrtut/cxrtut/blob/main/"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
ROOT = Path(__file__).resolve().parents[2]


def public_definitions(tree: ast.Module | ast.ClassDef) -> list[Definition]:
    """Functions and classes of a module, or methods of a class, without a leading underscore."""
    return [node for node in tree.body if isinstance(node, Definition) and node.name[0] != "_"]


def signature(node: Definition) -> str:
    """The name with its arguments and types as written; of a class, its name and bases."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def summary(node: ast.AST) -> str:
    """The first paragraph of a docstring on one line, or nothing."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def text_with_code(text: str) -> nodes.paragraph:
    """A paragraph in which `...` is code and everything else is plain text."""
    paragraph = nodes.paragraph()
    for index, piece in enumerate(re.split(r"`+", text)):
        paragraph += nodes.literal(piece, piece) if index % 2 else nodes.Text(piece)
    return paragraph


def folded(docstring: str) -> nodes.raw:
    block = f"<details><summary>docstring</summary><pre>{html.escape(docstring)}</pre></details>"
    return nodes.raw("", block, format="html")


class ApiOverview(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = ROOT / self.arguments[0]
        sections = []
        for path in sorted(package.rglob("*.py")):
            self.env.note_dependency(path.as_posix())
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if public_definitions(tree):
                sections.append(self.module(path, tree))
        return sections

    def module(self, path: Path, tree: ast.Module) -> nodes.section:
        inside = path.relative_to(ROOT)
        name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title(name, name)
        section += text_with_code(summary(tree))
        listing = nodes.definition_list(classes=["api-overview"])
        for node in public_definitions(tree):
            listing += self.entry(node, inside)
        section += listing
        return section

    def entry(self, node: Definition, path: Path) -> nodes.definition_list_item:
        term = nodes.term("", "", nodes.literal(text=signature(node)))
        source = nodes.reference(refuri=f"{SOURCE}{path.as_posix()}#L{node.lineno}", text="source")
        definition = nodes.definition("", text_with_code(summary(node)))
        definition[0] += [nodes.Text(" "), source]
        docstring = ast.get_docstring(node) or ""
        if "\n\n" in docstring:
            definition += folded(docstring)
        if isinstance(node, ast.ClassDef) and public_definitions(node):
            methods = nodes.definition_list()
            for method in public_definitions(node):
                methods += self.entry(method, path)
            definition += methods
        return nodes.definition_list_item("", term, definition)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("api-overview", ApiOverview)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
