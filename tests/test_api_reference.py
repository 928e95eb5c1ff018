"""The pages of the library: their list comes from the package, docstrings become valid text, and
names lead to their objects and lines.
"""

import ast
import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import docutils.core
import pytest
from docutils import nodes
from docutils.parsers.rst import roles

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "book" / "_extensions"))  # as Sphinx does
sys.path.append(str(ROOT / "book"))  # as build.py does

import api_pages  # noqa: E402
import api_reference  # noqa: E402
import docstrings  # noqa: E402
import source_lines  # noqa: E402


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of one package with a package in it, an empty module, and a module beside it."""
    for name, text in {
        "__init__.py": '"""The library."""',
        "files.py": '"""Files."""',
        "nn/__init__.py": '"""Networks\nand blocks.\n\nMore."""',
        "nn/unet.py": "class UNet: ...",
        "nn/empty.py": "",
        "nn/inner/__init__.py": "",
        "nn/inner/block.py": "def block(): ...",
    }.items():
        path = tmp_path / "cxrtut" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "cxrtut"


def modules_of(page: str) -> list[str]:
    return [line.split()[2] for line in page.splitlines() if line.startswith(".. automodule::")]


# The pages


def test_every_package_has_a_page_of_all_its_modules(library: Path) -> None:
    pages = api_pages.package_pages(library)
    assert {name: modules_of(page) for name, page in pages.items()} == {
        "appendix/api/cxrtut.md": ["cxrtut", "cxrtut.files"],
        "appendix/api/nn.md": ["cxrtut.nn", "cxrtut.nn.inner.block", "cxrtut.nn.unet"],
    }
    assert "## `nn.inner.block`\n" in pages["appendix/api/nn.md"]


def test_the_overview_links_every_page_with_what_its_package_says(library: Path) -> None:
    assert api_pages.listing(library).splitlines() == [
        "- [`cxrtut`](api/cxrtut.md): The library.",
        "- [`cxrtut.nn`](api/nn.md): Networks and blocks.",
    ]


def test_the_pages_of_the_library_hold_every_module_once() -> None:
    pages = api_pages.package_pages(ROOT / "cxrtut")
    shown = sorted(name for page in pages.values() for name in modules_of(page))
    files = [path for path in (ROOT / "cxrtut").rglob("*.py") if path.read_text().strip()]
    assert shown == sorted(api_pages.module_name(path, ROOT) for path in files)


# Docstrings


def read(lines: list[str]) -> tuple[nodes.document, list[str]]:
    """The document that docutils makes, and its complaints."""
    roles.register_generic_role("py:obj", nodes.literal)
    quiet = {"report_level": 5, "halt_level": 5}
    document = docutils.core.publish_doctree("\n".join(lines), settings_overrides=quiet)
    found = [node for node in document.findall(nodes.system_message) if node["level"] > 1]
    return document, [node.astext() for node in found]


@pytest.mark.parametrize(
    "text",
    [
        "||x|| and |x - G(x)|, mean of (||∇D(x)||₂ - 1)²",
        "(B, *shape) -> (B, *shape, 1, 1)",
        "**settings: further arguments, *rules too",
        "L_ and lambda_, w_kc and _hidden",
        r"a \ b",
        "R. Zhang, S. Tan, and others",
        "(1) a map",
        "A 2 * 3 * 4",
    ],
)
def test_what_looks_like_markup_is_text(text: str) -> None:
    document, complaints = read(docstrings.as_restructured_text([text]))
    assert complaints == []
    assert [type(node).__name__ for node in document.children] == ["paragraph"]
    assert document.astext() == text
    assert not list(document.findall(nodes.literal)) + list(document.findall(nodes.emphasis))


def test_code_and_emphasis_are_told_from_text() -> None:
    marked = docstrings.as_restructured_text(
        ["*Is* `Box`es, re`Box`ed, of `a < b|c`, **not** `x_`."]
    )
    assert marked == [
        r"*Is* :py:obj:`Box`\ es, re\ :py:obj:`Box`\ ed, of ``a < b|c``, **not** :py:obj:`x_`."
    ]
    document, complaints = read(marked)
    assert complaints == []
    assert [node.astext() for node in document.findall(nodes.literal)] == [
        "Box",
        "Box",
        "a < b|c",
        "x_",
    ]


def test_an_equation_map_is_a_table_with_formulas() -> None:
    rows = ["    (1)  |a| is $x_1 + yyyyyyyyyyyyyyyyyyyyyyyy$   `f` and", "         `g`"]
    lines = ["Equations", *rows, "Steps", "    2   `h`", "", "Then."]
    document, complaints = read(docstrings.as_restructured_text(lines))
    assert complaints == []
    tables = list(document.findall(nodes.table))
    cells = [[entry.astext() for entry in table.findall(nodes.entry)] for table in tables]
    assert cells == [["(1)  |a| is x_1 {} + yyyyyyyyyyyyyyyyyyyyyyyy", "f and g"], ["2", "h"]]
    assert [node.astext() for node in document.findall(nodes.math)] == [
        "x_1",
        "{} + yyyyyyyyyyyyyyyyyyyyyyyy",
    ]
    assert all(table["classes"] == ["equation-map"] for table in tables)
    margin = [node.astext() for node in document.children if isinstance(node, nodes.paragraph)]
    assert margin == ["Equations", "Steps", "Then."]


def test_a_reading_is_three_paragraphs_with_formulas() -> None:
    parts = ["Reading (loss, sum_ or |x|): One", "    is `f`.", "    Here: Two $x_k^c$."]
    lines = ["Of `f`.", "", *parts, "    Why: Three.", "", "Args:", "    x: a"]
    marked = docstrings.as_restructured_text(lines)
    assert marked[-2:] == ["Args:", "    x: a"]
    document, complaints = read(marked[:-2])
    assert complaints == []
    before, box = document.children
    assert before.astext() == "Of f."
    assert [node.astext() for node in box] == [
        "Reading (loss, sum_ or |x|). One is f.", "Here: Two x_k^c.", "Why: Three."
    ]  # fmt: skip
    assert [node.astext() for node in box.findall(nodes.math)] == ["x_k^c"]


@pytest.mark.parametrize("first", ["Reading: one.", "Reading (loss, a): One."])
def test_a_reading_without_its_form_is_shown_as_it_is_written(first: str) -> None:
    document, complaints = read(docstrings.as_restructured_text([first, "    Why: $x$."]))
    assert complaints == []
    assert document.astext() == f"{first}\n\nWhy: $x$."


def test_a_list_may_follow_a_line_and_go_on_in_a_second_one() -> None:
    lines = ["First:", "- one", "  and more", "- two", "", "1. three"]
    document, complaints = read(docstrings.as_restructured_text(lines))
    assert complaints == []
    items = [node.astext() for node in document.findall(nodes.list_item)]
    assert items == ["one\nand more", "two", "three"]


def test_sections_are_left_to_napoleon() -> None:
    lines = ["A.", "", "Args:", "    x: of |x|,", "        in pixels.", "", "Raises:", "    E: no."]
    marked = docstrings.as_restructured_text(lines)
    assert marked == [*lines[:3], r"    x: of \|x\|,", *lines[4:]]


ENV = SimpleNamespace()


@pytest.mark.parametrize("text", ["*open", "|nothing|", "nobody_", "`a`_", "a\n  b\nc", "[1]_"])
def test_what_is_no_valid_text_is_found_out(text: str) -> None:
    assert not api_reference.is_valid(text.splitlines(), ENV)


def test_valid_text_is_valid() -> None:
    lines = [
        ":param x: a *word* and ``code``",
        "",
        "1. a",
        "2. b",
        "",
        "A list may begin at",
        "",
        "3. c",
    ]
    assert api_reference.is_valid(lines, ENV)


def test_an_invalid_docstring_is_shown_as_it_is_written() -> None:
    app, lines = SimpleNamespace(env=ENV), ["An `open", "", "Args:", "    x: a"]
    api_reference.process_docstring(app, "function", "cxrtut.no", None, None, lines)
    assert lines[:6] == ["::", "", "   An `open", "   ", "   Args:", "       x: a"]


# Fields and signatures

CLASS = '''
class C:
    """Of n.

    Attributes:
        a, b: what they
        are.
        d: set when it is made.

    Raises:
        E: no.
    """

    a: Float[Tensor, " n"]
    b: int = 2  # not this
    c: str = "#"  # 3.1: a `name`
    _hidden: int = 0
    e: dict = {  # no
    }

    def __init__(self, x: int, *, y: Float[Tensor, "B C"] | None = None) -> None: ...
    @staticmethod
    def s(x): ...
    def m(self) -> "C": ...
'''


def test_a_field_says_what_its_class_or_the_comment_behind_it_says() -> None:
    node = ast.parse(CLASS).body[0]
    docstring = (ast.get_docstring(node) or "").splitlines()
    said = docstrings.said_of_fields(node, docstring, CLASS.splitlines())
    assert said == {
        "a": ["what they", "are."], "b": ["what they", "are."], "c": ["3.1: a `name`"], "e": []
    }  # fmt: skip
    kept = docstrings.without_fields(docstring, set(said))
    assert kept == [
        "Of n.", "", "Attributes:", "    d: set when it is made.", "", "Raises:", "    E: no."
    ]  # fmt: skip
    assert "Attributes:" not in docstrings.without_fields(docstring, {*said, "d"})
    listing = docstrings.field_list(node, said)
    assert listing[:6] == ["", ".. py:attribute:: a", "   :type: Float[Tensor, 'n']", "",
                           "   what they", "   are."]  # fmt: skip
    assert "   :value: '#'" in listing


def test_signatures_are_as_the_source_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cxrtut").mkdir()
    path = tmp_path / "cxrtut" / "m.py"
    path.write_text(CLASS + "class D:\n    a: int\nclass E: ...\ndef f(self): ...\n")
    monkeypatch.setattr(
        api_reference, "file_of", lambda module: path if module == "cxrtut.m" else None
    )

    def shown(what: str, name: str) -> tuple[str, str | None] | None:
        return api_reference.process_signature(None, what, name, None, None, "(?)", None)

    assert shown("class", "cxrtut.m.C") == (
        "(x: int, *, y: Float[Tensor, 'B C'] | None=None)",
        None,
    )
    assert shown("method", "cxrtut.m.C.m") == ("()", "'C'")
    assert shown("method", "cxrtut.m.C.s") == ("(x)", None)
    assert shown("function", "cxrtut.m.f") == ("(self)", None)
    assert shown("class", "cxrtut.m.D") == ("", None)  # it shows its fields
    assert shown("class", "cxrtut.m.E") is None
    assert shown("class", "cxrtut.other.E") is None


class Members:
    field = staticmethod(len)
    handed = lambda self: 0  # noqa: E731

    class Inner: ...

    def method(self) -> None: ...
    @classmethod
    def maker(cls) -> None: ...
    @property
    def size(self) -> int: ...
    @cached_property
    def kept(self) -> int: ...


def test_of_a_class_the_methods_are_shown_and_no_function_that_a_field_holds() -> None:
    skipped = {
        name
        for name in vars(Members)
        if name[0] != "_"
        and api_reference.skip_member(None, "class", name, getattr(Members, name), False, None)
    }
    assert skipped == {"field", "handed"}
    assert api_reference.skip_member(None, "module", "f", len, False, None) is None


# Links


def test_an_object_leads_to_its_line_on_github() -> None:
    info = {"module": "cxrtut.localize.cam", "fullname": "class_activation_map"}
    found = api_reference.line_on_github("py", info)
    path, line = found.removeprefix(source_lines.SOURCE).split("#L")
    text = (ROOT / path).read_text().splitlines()[int(line) - 1]
    assert text.startswith("def class_activation_map(")
    assert api_reference.line_on_github("py", {**info, "fullname": "missing"}) is None
    assert api_reference.line_on_github("py", {**info, "module": "json"}) is None


def test_an_object_that_is_handed_on_is_found_where_it_is_defined() -> None:
    home = api_reference.home_of("cxrtut.papers.biomarker.Batch.to")
    assert home == "cxrtut.data.sample.Batch.to"
    assert api_reference.home_of("cxrtut.papers.biomarker.missing") is None
    assert api_reference.home_of("json.loads") is None  # nothing is imported for a word in a text


class Python:
    """A domain that knows one function and its module."""

    def get_objects(self) -> list[tuple[str, str]]:
        return [("cxrtut.localize.cam.class_activation_map", ""), ("cxrtut.localize.cam", "")]

    def resolve_xref(self, *arguments: object) -> str:
        return f"to {arguments[4]}"


@pytest.mark.parametrize(
    ("target", "module", "found"),
    [
        ("localize.cam.class_activation_map", None, True),
        ("cam.class_activation_map", "cxrtut.localize.gradcam", True),
        ("class_activation_map()", "cxrtut.localize.cam", True),
        ("cam", "cxrtut.localize.gradcam", False),
        ("cxrtut.localize.cam.missing", None, False),
    ],
)
def test_a_name_is_found_from_its_module_or_from_the_library_and_else_missed_aloud(
    target: str, module: str | None, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr(api_reference.log, "warning", lambda *words, location: said.append(words))
    env = SimpleNamespace(get_domain=lambda name: Python())
    app = SimpleNamespace(builder=None)
    node = {"refdomain": "py", "reftarget": target, "py:module": module, "refdoc": "papers/x"}
    result = api_reference.find_elsewhere(app, env, node, None)
    assert result == ("to cxrtut.localize.cam.class_activation_map" if found else None)
    assert bool(said) != found
    said.clear()
    api_reference.find_elsewhere(app, env, {**node, "refdoc": "appendix/api/nn"}, None)
    assert said == []  # a docstring may name what has no entry


# The whole, by Sphinx

WILD = r'''
r"""A module.

R. Zhang, S. Tan.

Equations
    (1)  ||x||  `f`
Steps
    2

Reading: |x - G(x)|, lambda_, *rules and an `open one.
"""
import os

FILES = {"f": os}
"""Modules: by name."""

def f(x, **settings):
    """Norm ||x||_1 of `C`s.

    Args:
        x: |a|, *b
        **settings: more.
    """

class C:
    """Bad `one.

    Attributes:
        a_: of `f`.
    """

    a_: int = 1

    class Real: ...

    def m(self):
        """Said once."""

class D(C):
    class Real: ...

    def m(self): ...

def g(x: "Real"):
    r"""Of equations.

    Equations
        (1)  ||x||, which is $\|x\|_1 + 2$, as $\hat{x}$
             `C.m` or `no.such`

    Reading (loss, one_ of |a|): Two.
        Here: $x_1$.
        Why: Three.
    """
'''


def test_a_strict_build_takes_docstrings_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "wild.py").write_text(WILD)
    page = tmp_path / f"{api_pages.FOLDER}/wild.md"
    page.parent.mkdir(parents=True)
    page.write_text(api_pages.PAGE.format(name="wild"))
    chapter = tmp_path / "index.md"
    chapter.write_text(
        f"# A\n\n{{py:func}}`wild.f`\n\n```{{toctree}}\n{api_pages.FOLDER}/wild\n```\n"
    )
    settings = ["-C", "-D", "extensions=myst_parser,api_reference", "-b", "html", "-W", "-q"]
    command = [sys.executable, "-m", "sphinx", *settings, str(tmp_path), str(tmp_path / "out")]
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "book" / "_extensions")))
    built = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (built.returncode, built.stderr) == (0, "")
    html = (tmp_path / "out" / api_pages.FOLDER / "wild.html").read_text()
    assert all(f'id="wild.{name}"' in html for name in ("f", "g", "C", "D.m", "FILES"))
    assert html.count("Said once.") == 1  # and not where it is inherited
    assert 'class="equation-map' in html and "<td><p>(1)  ||x||, which is" in html
    assert html.count("math notranslate") == 3
    assert "&lt;module" not in html  # the value would name a folder of this machine
    target = f'href="{api_pages.FOLDER}/wild.html#wild.f"'
    assert target in (tmp_path / "out" / "index.html").read_text()
    chapter.write_text(chapter.read_text().replace("wild.f", "wild.gone"))
    again = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert again.returncode != 0 and "no such object of the library: wild.gone" in again.stderr
