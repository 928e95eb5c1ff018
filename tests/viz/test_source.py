"""Tests of showing the library's own source."""

import functools
import inspect
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import cxrtut
from cxrtut.viz import source
from cxrtut.viz.source import SourceCode, show


class Shelf:
    @property
    def size(self) -> int:
        """How much it holds."""
        return 3

    def label(self) -> str:
        text = """first
no indent"""
        return text


def loud(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


LAMBDAS: dict[str, Callable[[int], int]] = {
    "twice": lambda x: 2 * x,
}


@loud
def quiet() -> str:
    return "```"


class Box:
    """What holds things.

    More of it.
    """

    size: int = 3

    def put(self, thing: str) -> None:
        """Puts it in.

        Args:
            thing: $x$ <b> &lt; *y*.
        """

    class Lid:
        """Its lid."""

        def open(self) -> int:
            """Opens it."""

            return 1


def test_a_function_is_shown_with_name_file_and_lines() -> None:
    shown = show(source._dedent)
    lines = Path(source.__file__).read_text(encoding="utf-8").splitlines()
    assert shown.name == "cxrtut.viz.source._dedent"
    assert shown.file == "cxrtut/viz/source.py"
    code = shown.code.splitlines()
    assert code[0] == lines[shown.first_line - 1]
    assert code[-1] == lines[shown.last_line - 1]


def test_the_lines_are_those_of_the_file_with_the_docstring() -> None:
    shown = show(Box.put)
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert lines[shown.first_line - 1] == "    def put(self, thing: str) -> None:"
    assert shown.last_line == shown.first_line + 5


def test_docstrings_leave_the_code_and_stand_below_it_under_their_names() -> None:
    shown = show(Box)
    assert shown.code == (
        "class Box:\n"
        "    size: int = 3\n\n"
        "    def put(self, thing: str) -> None:\n        ...\n\n"
        "    class Lid:\n        def open(self) -> int:\n            return 1"
    )
    assert shown.docstring == (
        "What holds things.\n\nMore of it.\n\n"
        "put\n    Puts it in.\n\n    Args:\n        thing: $x$ <b> &lt; *y*.\n\n"
        "Lid\n    Its lid.\n\n"
        "Lid.open\n    Opens it."
    )
    assert show(Box.put).docstring.startswith("Puts it in.")
    assert show(quiet).docstring == ""


class Page(HTMLParser):
    """What a page shows: the text of each element by the names of those that it is in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.texts: dict[str, str] = {}
        self.feed(html)
        assert not self.inside

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        path = " ".join(self.inside)
        self.texts[path] = self.texts.get(path, "") + data


@pytest.mark.parametrize("thing", [Box, Box.put])
def test_markdown_folds_the_docstring_and_keeps_its_blank_lines(thing: Any) -> None:
    markdown = pytest.importorskip("markdown_it")
    html = markdown.MarkdownIt("commonmark").render(show(thing)._repr_markdown_())
    page = Page(html)
    assert page.texts["pre code"].strip() == show(thing).code
    assert 'class="language-python"' in html
    assert page.texts["details summary"] == "Docstring of "
    assert page.texts["details summary code"] == thing.__name__
    assert page.texts["details pre"] == show(thing).docstring


def test_a_lambda_is_shown_with_the_lines_it_stands_on() -> None:
    assert show(LAMBDAS["twice"]).code == '"twice": lambda x: 2 * x,'


def test_without_a_docstring_nothing_is_folded() -> None:
    assert "<details>" not in show(quiet)._repr_markdown_()


def test_a_method_loses_the_indentation_of_its_class_and_nothing_else() -> None:
    code = show(Shelf.label).code
    assert code.startswith("def label(self)")
    assert '    text = """first\nno indent"""\n' in code
    assert code == show(Shelf().label).code


def test_a_property_is_shown_by_its_getter() -> None:
    assert "return 3" in show(Shelf.size).code
    assert show(Shelf.size).name.endswith("Shelf.size")


def test_a_decorated_function_is_looked_through() -> None:
    assert show(quiet).code == '@loud\ndef quiet() -> str:\n    return "```"'


def test_a_module_is_shown_whole() -> None:
    shown = show(cxrtut)
    assert (shown.name, shown.file, shown.first_line) == ("cxrtut", "cxrtut/__init__.py", 1)
    assert "__version__" in shown.code
    assert shown.docstring == inspect.cleandoc(cxrtut.__doc__ or "")
    assert shown.docstring not in shown.code


def test_the_fence_is_longer_than_any_fence_in_the_code() -> None:
    markdown = show(quiet)._repr_markdown_()
    assert "````python\n@loud" in markdown
    assert markdown.endswith('return "```"\n````\n')


def test_the_plain_form_is_code_under_a_comment() -> None:
    shown = SourceCode("a.b", "a.py", 7, 8, "def b():\n    return 1")
    assert repr(shown) == "# a.b (a.py, lines 7-8)\ndef b():\n    return 1"
    namespace: dict[str, Any] = {}
    exec(repr(shown), namespace)
    assert namespace["b"]() == 1


@pytest.mark.parametrize("thing", [3, "text", Shelf(), len, int])
def test_what_has_no_source_is_named_in_the_error(thing: Any) -> None:
    with pytest.raises(TypeError, match=f"show (expects|found) .*{re.escape(repr(thing)[:12])}"):
        show(thing)
