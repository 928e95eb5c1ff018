"""Shorter lines: the same syntax tree, and code as one would write it."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import cxrtut
from cxrtut.viz.source import show
from cxrtut.viz.wrap import WIDTH, wrapped

UNBREAKABLE = "state.get('format')"  # a field of an f-string, 82 columns


def without_docstrings(code: str) -> str:
    """The syntax tree, made as the grammar says and not as the library does."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                    node.body = rest or [ast.Expr(ast.Constant(...))]
    return ast.dump(tree)


def modules() -> list[Any]:
    names = [m.name for m in pkgutil.walk_packages(cxrtut.__path__, "cxrtut.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def is_of(module: Any, function: Any) -> bool:
    """Whether it has a name in the module's file: dataclasses write some methods of no file."""
    code = inspect.unwrap(function).__code__
    return code.co_filename == module.__file__ and code.co_name != "<lambda>"


def objects() -> list[Any]:
    """Every function, class and method of the library, once."""
    found: dict[str, Any] = {}
    for module in modules():
        for thing in vars(module).values():
            if getattr(thing, "__module__", "") != module.__name__:
                continue
            if inspect.isclass(thing) or (inspect.isfunction(thing) and is_of(module, thing)):
                found[f"{module.__name__}.{thing.__qualname__}"] = thing
            if inspect.isclass(thing):
                for inner in vars(thing).values():
                    if inspect.isfunction(inner) and is_of(module, inner):
                        found[f"{module.__name__}.{inner.__qualname__}"] = inner
    return list(found.values())


def test_everything_in_the_library_is_shown_with_its_own_syntax_tree_and_fits_a_page() -> None:
    checked, long = 0, []
    for thing in [*objects(), *modules()]:
        code = show(thing).code
        body = inspect.getsource(thing) if inspect.ismodule(thing) else source_of(thing)
        assert ast.dump(ast.parse(code)) == without_docstrings(body), thing
        if not inspect.ismodule(thing):
            long += [line for line in code.splitlines() if len(line) > WIDTH]
        checked += 1
    assert checked > 800
    assert all(UNBREAKABLE in line for line in long), long


def source_of(thing: Any) -> str:
    """The source, cut out of the file by the parser and not by `inspect`."""
    thing = inspect.unwrap(thing)
    file = Path(inspect.getsourcefile(thing) or "")
    node: Any = ast.parse(file.read_text(encoding="utf-8"))
    for name in thing.__qualname__.split("."):
        node = next(n for n in node.body if getattr(n, "name", None) == name)
    return ast.unparse(node)


def test_short_code_is_not_touched() -> None:
    code = "x = [1,2 ,\n   3]  # as it was"
    assert wrapped(code) == code


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        (  # arguments before what is returned
            'def maps(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:\n    pass',
            [
                "def maps(",
                '    self, image: Float[Tensor, "B C H W"]',
                ') -> Float[Tensor, "B K"]:',
                "    pass",
            ],
        ),
        (  # behind commas, as many on a line as fit
            "result = function(first_argument, second_argument, third, fourth, fifth)",
            [
                "result = function(",
                "    first_argument, second_argument, third,",
                "    fourth, fifth",
                ")",
            ],
        ),
        (  # no bracket: it gets some
            "return first_number + second_number * third_number - fourth_number_x",
            [
                "return (",
                "    first_number + second_number * third_number",
                "    - fourth_number_x",
                ")",
            ],
        ),
        (  # a choice is not broken in the middle of one half
            "total = make_networks(config, seed) if networks is None else networks",
            [
                "total = (",
                "    make_networks(config, seed)",
                "    if networks is None else networks",
                ")",
            ],
        ),
        (  # the message of an assertion stays one
            'assert batch.uniforms is not None, "a batch for training has them"',
            [
                "assert batch.uniforms is not None, (",
                '    "a batch for training has them"',
                ")",
            ],
        ),
        (  # a string becomes two
            'raise ValueError(f"expected between {low} and {high} numbers, got {n}")',
            [
                "raise ValueError(",
                '    f"expected between {low} and {high} numbers, "',
                '    f"got {n}"',
                ")",
            ],
        ),
        (  # a comment behind a line moves above it
            "size: int = 128  # 3.3: image size, which is that of the paper's images",
            [
                "# 3.3: image size, which is that of the paper's",
                "# images",
                "size: int = 128",
            ],
        ),
        (  # one for tools only goes
            "x = 1  # noqa: because of something that is much longer than it is",
            ["x = 1"],
        ),
        (  # the words of a long comment are set anew
            "# One line that is longer than the fifty columns it has,\n# and another.\nx = 1",
            [
                "# One line that is longer than the fifty columns",
                "# it has, and another.",
                "x = 1",
            ],
        ),
        (
            "from cxrtut.localize.boxes import Scored, threshold_relative",
            ["from cxrtut.localize.boxes import (", "    Scored, threshold_relative", ")"],
        ),
        (  # parameters of a lambda stay together
            "apply(lambda first, second: first + second, first_values, others)",
            [
                "apply(",
                "    lambda first, second: first + second,",
                "    first_values, others",
                ")",
            ],
        ),
    ],
)
def test_a_long_line_is_broken_as_one_would_write_it(code: str, lines: list[str]) -> None:
    assert wrapped(code, 50).splitlines() == lines


@pytest.mark.parametrize(
    "code",
    [
        'x = """one\n' + "long " * 20 + '"""',  # a string of several lines
        "x = 1 + \\\n    " + "first_number + " * 6 + "1",  # a backslash
        "import " + "x" * 90,
        "this is no Python, but it is longer than seventy-nine columns " + "and longer " * 3,
    ],
)
def test_what_cannot_be_broken_stays(code: str) -> None:
    assert wrapped(code) == code


def test_a_blank_in_a_field_of_an_f_string_or_behind_a_name_of_a_character_is_no_place() -> None:
    field = "call(f'{function(argument_one,  argument_two)}:{function(argument)}')"
    assert "{function(argument_one,  argument_two)}" in wrapped(field, 50)
    named = r"call('\N{LATIN SMALL LETTER A WITH MACRON}\N{GREEK SMALL LETTER ALPHA}')"
    other = "call('words that are far too many for a line of fifty')"
    made = wrapped(f"{named}\n{other}", 50)
    assert named[5:-1] in made and other not in made
