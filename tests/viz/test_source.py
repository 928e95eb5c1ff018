"""Tests of showing the library's own source."""

import functools
import re
from collections.abc import Callable
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


@loud
def quiet() -> str:
    return "```"


def test_a_function_is_shown_with_name_file_and_lines() -> None:
    shown = show(source._dedent)
    lines = Path(source.__file__).read_text(encoding="utf-8").splitlines()
    assert shown.name == "cxrtut.viz.source._dedent"
    assert shown.file == "cxrtut/viz/source.py"
    assert shown.code.splitlines()[0] == lines[shown.first_line - 1]
    assert shown.code.splitlines() == lines[shown.first_line - 1 :][: shown.code.count("\n") + 1]


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


def test_the_fence_is_longer_than_any_fence_in_the_code() -> None:
    markdown = show(quiet)._repr_markdown_()
    assert "````python\n@loud" in markdown
    assert markdown.endswith('return "```"\n````\n')


def test_the_plain_form_is_code_under_a_comment() -> None:
    shown = SourceCode("a.b", "a.py", 7, "def b():\n    return 1")
    assert repr(shown) == "# a.b (a.py, lines 7-8)\ndef b():\n    return 1"
    namespace: dict[str, Any] = {}
    exec(repr(shown), namespace)
    assert namespace["b"]() == 1


@pytest.mark.parametrize("thing", [3, "text", Shelf(), len, int])
def test_what_has_no_source_is_named_in_the_error(thing: Any) -> None:
    with pytest.raises(TypeError, match=f"show (expects|found) .*{re.escape(repr(thing)[:12])}"):
        show(thing)
