"""Where a name of the library is defined: its file, its line and its syntax, by parsing the source.

What is looked up is never imported.
"""

import ast
from pathlib import Path

from cxrtut.viz.readings import SOURCE

ROOT = Path(__file__).resolve().parents[2]
Place = tuple[Path, int]


def file_of(module: str, root: Path = ROOT) -> Path | None:
    """The file of a module or package, named with dots; None where there is none."""
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def syntax(names: list[str], path: Path) -> ast.AST | None:
    """The definition of a class and its member, or of a module's function; of no names, the module.

    None where the file does not define them.
    """
    node: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for name in names:
        here = [child for child in getattr(node, "body", []) if _defines(child, name)]
        if not here:
            return None
        node = here[0]
    return node


def definition(names: list[str], path: Path) -> Place | None:
    """The line of a definition; of no names, the first. None where the file does not define it."""
    node = syntax(names, path)
    return None if node is None else (path, getattr(node, "lineno", 1))


def address(place: Place, root: Path = ROOT) -> str:
    """The line on GitHub."""
    path, line = place
    return f"{SOURCE}{path.relative_to(root).as_posix()}#L{line}"


def _defines(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == name
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
