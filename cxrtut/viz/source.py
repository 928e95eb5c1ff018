"""Show the library's own source in a notebook, so that a page never has to copy it."""

import inspect
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True)
class SourceCode:
    """A piece of source code as a notebook displays it.

    A notebook and the built book render the Markdown form and colour it with their own light or
    dark scheme; a terminal prints the plain form.

    Attributes:
        name: Dotted name of the object, such as `cxrtut.viz.source.show`.
        file: Path of the file inside its package, such as `cxrtut/viz/source.py`.
        first_line: Line of the file on which the code begins, counted from 1.
        code: The code itself, without the indentation it has in its file.
    """

    name: str
    file: str
    first_line: int
    code: str

    @property
    def caption(self) -> str:
        """Where the code stands: name, file, first and last line."""
        last_line = self.first_line + self.code.count("\n")
        return f"{self.name} ({self.file}, lines {self.first_line}-{last_line})"

    def __repr__(self) -> str:
        return f"# {self.caption}\n{self.code}"

    def _repr_markdown_(self) -> str:
        # A fence must be longer than any run of backticks inside it.
        longest = max((len(run) for run in re.findall(r"`+", self.code)), default=0)
        fence = "`" * max(3, longest + 1)
        last_line = self.first_line + self.code.count("\n")
        where = f"`{self.name}` in `{self.file}`, lines {self.first_line}–{last_line}"
        return f"{where}\n\n{fence}python\n{self.code}\n{fence}\n"


def show(obj: object) -> SourceCode:
    """The source of a function, class, method, property or module, ready to be displayed.

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
    return SourceCode(name, _file_inside_package(target, module_name), first_line, _dedent(lines))


def _dedent(lines: list[str]) -> str:
    """The lines without the indentation of the first, and without blank lines at the end."""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return "".join(line.removeprefix(indent) for line in lines).rstrip()


def _file_inside_package(target: Any, module_name: str) -> str:
    """The file's path from the package on: `cxrtut/viz/source.py`, never a path of this machine."""
    path = PurePath(inspect.getsourcefile(target) or module_name)
    depth = module_name.count(".") + (2 if path.name == "__init__.py" else 1)
    return "/".join(path.parts[-depth:])
