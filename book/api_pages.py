"""The pages of the library, one for each package, written from the package as it is.

They hold directives of sphinx.ext.autodoc only; `_extensions/api_reference.py` says how docstrings
become text. No name of a package or module is written down anywhere else, so that a module can be
renamed without a thought for them.
"""

import ast
from pathlib import Path

FOLDER = "appendix/api"
OVERVIEW = f"{FOLDER}.md"

PAGE = """\
# `{name}`

```{{eval-rst}}
.. automodule:: {name}
   :members:
```
"""
MODULE = """
## `{heading}`

```{{eval-rst}}
.. automodule:: {name}
   :members:
```
"""


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_empty(path: Path) -> bool:
    """Whether a file says nothing: neither a docstring nor a definition."""
    return not _tree(path).body


def summary(path: Path) -> str:
    """The first sentence or paragraph of a module's docstring, on one line."""
    return " ".join((ast.get_docstring(_tree(path)) or "").split("\n\n")[0].split())


def page(package: Path, files: list[Path], root: Path) -> str:
    """One page: the package itself, and below it each of its modules with a heading."""
    name = module_name(package, root)
    text = PAGE.format(name=name)
    for path in files:
        module = module_name(path, root)
        if path != package and not is_empty(path):
            # As a path from the library: what the equation maps write, too.
            heading = module.partition(".")[2]
            text += MODULE.format(name=module, heading=heading)
    return text


def package_pages(library: Path) -> dict[str, str]:
    """The text of every page by its name in the book; `library` is the folder of its source.

    The modules that lie beside the packages share one page.
    """
    root, first = library.parent, library / "__init__.py"
    packages = {path: sorted(path.parent.rglob("*.py")) for path in library.glob("*/__init__.py")}
    packages[first] = sorted(library.glob("*.py"))
    return {
        f"{FOLDER}/{module_name(package, root).rpartition('.')[2]}.md": page(package, files, root)
        for package, files in sorted(packages.items())
    }


def listing(library: Path) -> str:
    """A Markdown list of the pages: a link to each, and what its package says it is."""
    lines = []
    for package in [library / "__init__.py", *sorted(library.glob("*/__init__.py"))]:
        name = module_name(package, library.parent)
        target = f"{FOLDER.rpartition('/')[2]}/{name.rpartition('.')[2]}.md"
        lines.append(f"- [`{name}`]({target}): {summary(package)}\n")
    return "".join(lines)
