"""The pages of the library by sphinx.ext.autodoc: what stands in them, and where it links.

book/api_pages.py writes the pages; `docstrings` makes their text. Signatures and fields are
shown as the source writes them: Float[Tensor, "B C H W"]. A docstring that is no valid
reStructuredText is shown as it is written: however it is worded, the page builds.

A chapter links to an object by a role such as {py:func}`cxrtut.localize.cam.class_activation_map`.
"""

import ast
import importlib
from functools import cached_property
from pathlib import Path
from typing import Any

from docstrings import (
    as_restructured_text,
    field_list,
    fields_of,
    preformatted,
    said_of_fields,
    signature,
    without_fields,
)
from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser
from docutils.utils import new_document
from source_lines import address, definition, file_of, syntax
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config as GoogleConfig
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util import logging

PAGES = "appendix/api"
# Variables as a list of their own: directives would describe them twice.
GOOGLE = GoogleConfig(napoleon_use_ivar=True)
log = logging.getLogger(__name__)


def source_of(name: str) -> tuple[ast.AST, Path] | None:
    """The syntax of an object, named with dots from `cxrtut` on, and its file; None without one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = file_of(".".join(parts[:length]))
        if path is not None:
            node = syntax(parts[length:], path)
            return None if node is None else (node, path)
    return None


# What is shown


def is_valid(lines: list[str], env: BuildEnvironment) -> bool:
    """Whether docutils reads the lines without a complaint, and no reference in them is open."""
    settings = get_default_settings(Parser)
    settings.report_level = settings.halt_level = 5  # neither print nor raise
    settings.env = env
    document = new_document("docstring", settings)
    Parser().parse("\n".join(lines), document)
    complaints = [m for m in document.findall(nodes.system_message) if m["level"] > 1]
    open_ends = list(document.findall(nodes.substitution_reference))
    return not (complaints or open_ends or document.refnames)


def process_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstring to reStructuredText, in place; a class with its fields, a module with a link."""
    # Of a variable napoleon would take what stands before a colon for its type.
    kind = "function" if what in ("attribute", "data", "property") else what

    def converted(written: list[str]) -> list[str]:
        marked = as_restructured_text(written)
        google = GoogleDocstring(marked, GOOGLE, app, kind, name, obj, options).lines()
        return google if is_valid(google, app.env) else preformatted(written)

    node, path = source_of(name) or (None, None)
    if isinstance(node, ast.ClassDef) and path is not None:
        said = said_of_fields(node, lines, path.read_text(encoding="utf-8").splitlines())
        fields = field_list(node, {name: converted(text) for name, text in said.items()})
        lines[:] = [*converted(without_fields(lines, set(said))), "", *fields]
        return
    lines[:] = converted(lines)
    if what == "module" and path is not None:
        link = f"`[source] <{address((path, 1))}>`__"
        lines[:0] = [".. container:: module-source", "", f"   {link}", ""]


def process_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, args: str | None, result: str | None
) -> tuple[str, str | None] | None:
    """The signature as written; a class that lists its fields goes without."""
    node, _ = source_of(name) or (None, None)
    if isinstance(node, ast.ClassDef):
        makers = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
        if makers:
            return signature(makers[0], bound=True)[0], None
        return ("", None) if fields_of(node) else None
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        static = any(ast.unparse(mark) == "staticmethod" for mark in node.decorator_list)
        return signature(node, bound=what == "method" and not static)
    return None


def skip_member(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the variables of a class: `process_docstring` has written its fields."""
    # A field may have a function of somewhere else as its default.
    own = getattr(obj, "__qualname__", "").endswith(f".{name}")
    shown = own or isinstance(obj, property | cached_property)
    return True if what == "class" and not shown else None


# Links


def line_on_github(domain: str, info: dict[str, str]) -> str | None:
    """The address of the line that defines an object; None for what has no line of its own."""
    path = file_of(info["module"]) if domain == "py" else None
    place = definition(info["fullname"].split("."), path) if path else None
    return address(place) if place else None


def home_of(target: str) -> str | None:
    """Where an object is defined that another module hands on; None if there is no such object."""
    parts = target.split(".")
    if parts[0] != "cxrtut" or not all(map(str.isidentifier, parts)):
        return None
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
            for name in parts[length:]:
                found = getattr(found, name)
        except (ImportError, AttributeError):
            continue
        if hasattr(found, "__qualname__"):
            return f"{found.__module__}.{found.__qualname__}"
    return None


def search_nearby_only(app: Sphinx, doctree: nodes.document) -> None:
    """A bare name in a signature means that of its own module, not every object of this name."""
    for node in doctree.findall(pending_xref):
        if node.get("refdomain") == "py":
            node.attributes.pop("refspecific", None)


def find_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, inside: nodes.Element
) -> nodes.Element | None:
    """Resolve a name that a module imports or has beside it, or that is a path from `cxrtut`.

    A role in a chapter that leads nowhere is a warning, hence an error of the build.
    """
    if node.get("refdomain") != "py":
        return None
    python, target = env.get_domain("py"), node["reftarget"].removesuffix("()")
    known = {name for name, *_ in python.get_objects()}
    module = node.get("py:module") or ""
    # A bare name that its module lacks is more often an argument than a neighbour of the module.
    around = (module, module.rpartition(".")[0], "cxrtut")[: 3 if "." in target else 1]
    nearby = [f"{above}.{target}" for above in around]
    for name in [*map(home_of, nearby), *nearby, home_of(target)]:
        if name in known:
            return python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, inside)
    if not node["refdoc"].startswith(PAGES):
        log.warning("no such object of the library: %s", target, location=node)
    return None


def configure(app: Sphinx, config: Config) -> None:
    config["autodoc_member_order"] = "bysource"
    config["autodoc_default_options"] = {
        "undoc-members": True,
        "ignore-module-all": True,
        "no-value": True,  # of a variable; that of a module would name a folder of this machine
    }
    config["autodoc_inherit_docstrings"] = False
    config["add_module_names"] = False
    config["python_maximum_signature_line_length"] = 60
    config["linkcode_resolve"] = line_on_github


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.linkcode")
    app.connect("config-inited", configure)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("doctree-read", search_nearby_only)
    app.connect("missing-reference", find_elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
