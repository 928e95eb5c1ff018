"""Show the library's own source in a notebook, so that a page never has to copy it: the code first,
with lines that fit a page, and what its docstrings say folded below it.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import Any

from cxrtut.viz.wrap import wrapped

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceCode:
    """A piece of source code as a notebook displays it.

    A notebook and the built book render the Markdown form and colour it with their own light or
    dark scheme; a terminal prints the plain form.

    Attributes:
        name: Dotted name of the object, such as `cxrtut.viz.source.show`.
        file: Path of the file inside its package, such as `cxrtut/viz/source.py`.
        first_line: Line of the file on which the code begins, counted from 1.
        last_line: Line of the file on which it ends.
        code: The code without docstrings and without the indentation it has in its file.
        docstring: The docstring, and below it those of what the object holds, each under its name;
            "" where there is none.
    """

    name: str
    file: str
    first_line: int
    last_line: int
    code: str
    docstring: str = ""

    @property
    def caption(self) -> str:
        """Where the code stands: name, file, first and last line."""
        return f"{self.name} ({self.file}, lines {self.first_line}-{self.last_line})"

    def __repr__(self) -> str:
        return f"# {self.caption}\n{self.code}"

    def _repr_markdown_(self) -> str:
        # A fence must be longer than any run of backticks inside it.
        longest = max((len(run) for run in re.findall(r"`+", self.code)), default=0)
        fence = "`" * max(3, longest + 1)
        where = f"`{self.name}` in `{self.file}`, lines {self.first_line}–{self.last_line}"
        shown = f"{where}\n\n{fence}python\n{self.code}\n{fence}\n"
        if not self.docstring:
            return shown
        last = self.name.rpartition(".")[2]
        # With a blank line before it, <pre> is a block of HTML of its own, which ends at </pre>
        # and may hold blank lines.
        return (
            f"{shown}\n<details><summary>Docstring of <code>{escape(last)}</code></summary>\n\n"
            '<pre class="docstring" style="white-space: pre-wrap">'
            f"{escape(self.docstring, quote=False)}</pre>\n\n</details>\n"
        )


def show(obj: object) -> SourceCode:
    """The source of a function, class, method, property or module, ready to be displayed.

    Docstrings leave the code: that of a class and those of its methods are folded below it, and so
    are those of a module. Lines of more than 79 columns are broken; see `viz.wrap`.

    Args:
        obj: What to show, such as `show(Biomarker.loss_1)`. Decorators that keep the original
            function are looked through.

    Returns:
        A `SourceCode`; as the last expression of a cell it is displayed with syntax colours.

    Raises:
        TypeError: `obj` is an instance (show its class), or something that has no Python source,
            such as a built-in.
    """
    target: Any = obj.fget if isinstance(obj, property) else obj
    if callable(target):
        target = inspect.unwrap(target)
    kinds = (inspect.isfunction, inspect.ismethod, inspect.isclass, inspect.ismodule)
    if not any(is_kind(target) for is_kind in kinds):
        raise TypeError(
            "show expects a function, class, method, property or module written in Python; "
            f"got {obj!r} of type {type(obj).__name__}"
        )
    try:
        lines, first_line = inspect.getsourcelines(target)
    except (OSError, TypeError) as error:
        raise TypeError(f"show found no Python source for {obj!r}: {error}") from error
    module = inspect.getmodule(target)
    module_name = module.__name__ if module else "__main__"
    if inspect.ismodule(target):
        name, first_line = module_name, 1
    else:
        name = f"{module_name}.{target.__qualname__}"
    whole = _dedent(lines)
    code, docstring = _without_docstrings(whole)
    return SourceCode(
        name, _file_inside_package(target, module_name), first_line,
        first_line + whole.count("\n"), wrapped(code), docstring,
    )  # fmt: skip


def _without_docstrings(code: str) -> tuple[str, str]:
    """The code without the docstrings of what it defines, and these docstrings. A body that was
    nothing else becomes `...`.
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a lambda, of which `inspect` gives the lines it stands on
        return code, ""
    docstrings: list[str] = []
    lines: list[str | None] = list(code.split("\n"))
    alone = len(tree.body) == 1 and isinstance(tree.body[0], Documented)
    root = tree.body[0] if alone else tree
    assert isinstance(root, Documented)
    for name, node in [("", root), *_inside(root, "")]:
        text, first = ast.get_docstring(node), node.body[0] if node.body else None
        if text is None or first is None or first.end_lineno is None:
            continue
        if not isinstance(node, ast.Module) and first.lineno == node.lineno:
            continue  # on the line of its `def`
        docstrings.append(f"{name}\n{textwrap.indent(text, '    ')}" if name else text)
        start, end = first.lineno - 1, first.end_lineno
        while len(node.body) > 1 and lines[end : end + 1] == [""]:
            end += 1
        lines[start:end] = [None] * (end - start)
        if len(node.body) == 1:
            lines[start] = " " * first.col_offset + "..."
    return "\n".join(line for line in lines if line is not None), "\n\n".join(docstrings)


def _inside(node: ast.AST, path: str) -> Iterator[tuple[str, Documented]]:
    """What is defined inside something and can have a docstring, with its name from there on."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}{inner.name}", inner
            yield from _inside(inner, f"{path}{inner.name}.")
        else:
            yield from _inside(inner, path)


def _dedent(lines: list[str]) -> str:
    """The lines without the indentation of the first, and without blank lines at the end."""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return "".join(line.removeprefix(indent) for line in lines).rstrip()


def _file_inside_package(target: Any, module_name: str) -> str:
    """The file's path from the package on: `cxrtut/viz/source.py`, never a path of this machine."""
    path = PurePath(inspect.getsourcefile(target) or module_name)
    depth = module_name.count(".") + (2 if path.name == "__init__.py" else 1)
    return "/".join(path.parts[-depth:])
