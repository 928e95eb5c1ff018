"""The `Reading:` paragraphs of modules, collected for a page: where a paper is silent, what it
prints, what we do and why.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from html import escape
from types import ModuleType

_READING = re.compile(r"^Reading(?: of [^:]+)?:\s*(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Readings:
    """Paragraphs and the objects they belong to; displays itself as a list."""

    entries: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.entries)

    def _repr_html_(self) -> str:
        items = (
            f"<dt><code>{escape(name)}</code></dt><dd>{_code(escape(text))}</dd>"
            for name, text in self.entries
        )
        return f"<dl>{''.join(items)}</dl>"


def readings(*modules: ModuleType) -> Readings:
    """All `Reading:` paragraphs in the docstrings of some modules, in the order of the source."""
    entries: list[tuple[str, str]] = []
    for module in modules:
        entries += paragraphs(inspect.getsource(module), module.__name__.rpartition(".")[2])
    return Readings(tuple(entries))


def paragraphs(source: str, name: str) -> list[tuple[str, str]]:
    """The `Reading:` paragraphs of a source, each with the object whose docstring has it.

    Args:
        source: of a module.
        name: what the module itself is called.
    """
    entries = []
    for owner, text in _docstrings(ast.parse(source), name):
        for paragraph in re.split(r"\n\s*\n", text):
            if found := _READING.match(paragraph.strip()):
                entries.append((owner, " ".join(found.group(1).split())))
    return entries


def _docstrings(node: ast.AST, name: str) -> list[tuple[str, str]]:
    here = []
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        text = ast.get_docstring(node)
        here = [(name, text)] if text else []
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                inner = child.name if isinstance(node, ast.Module) else f"{name}.{child.name}"
                here += _docstrings(child, inner)
    return here


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
