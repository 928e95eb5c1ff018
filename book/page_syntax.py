"""The syntax of a page: its Markdown as tokens, by the parser that Sphinx reads it with."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from book_error import BookError
from markdown_it import MarkdownIt
from markdown_it.token import Token

# As in _config.yml (`myst_enable_extensions`); tests/test_notebooks.py keeps the two in agreement.
EXTENSIONS = ("amsmath", "colon_fence", "deflist", "dollarmath", "substitution", "tasklist")
# Inline constructs whose place in the text is noted, so that they can be replaced there.
PLACED = {"myst_role", "link", "image", "math_inline"}


@dataclass(frozen=True)
class Directive:
    """A directive as it stands on a page: its name, what follows it, options, and what is in it."""

    name: str
    argument: str
    options: dict[str, str]
    body: str

    @property
    def classes(self) -> list[str]:
        return self.options.get("class", "").split()


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it.renderer import RendererHTML
    from myst_parser.config.main import MdParserConfig
    from myst_parser.parsers.mdit import create_md_parser

    parser = create_md_parser(MdParserConfig(enable_extensions=set(EXTENSIONS)), RendererHTML)
    for rule in list(parser.inline.ruler.__rules__):
        if rule.name in PLACED:
            parser.inline.ruler.at(rule.name, _noting_places(rule.fn))
    return parser


def _noting_places(rule: Callable[[Any, bool], bool]) -> Callable[[Any, bool], bool]:
    """The rule; the first token that it makes is told where in the text it begins and ends."""

    def noting(state: Any, silent: bool) -> bool:
        begin, before = state.pos, len(state.tokens)
        found = rule(state, silent)
        if found and not silent:
            made = (token for token in state.tokens[before:] if token.type != "text")
            next(made).meta["place"] = (begin, state.pos)
        return found

    return noting


def tokens_of(text: str) -> list[Token]:
    """The blocks of a text; the children of an inline token that stand for a role, a link, an image
    or a formula have `meta["place"]`, begin and end in the content of that token.
    """
    return _parser().parse(text)


def directive_of(token: Token) -> Directive | None:
    """The directive that a block is, if it is one.

    Raises:
        BookError: its options are no options.
    """
    info = token.info.strip()
    if token.type not in {"fence", "colon_fence"} or not info.startswith("{"):
        return None
    name, _, argument = info[1:].partition("}")
    lines, told = token.content.splitlines(), []
    if lines and lines[0].strip() == "---":
        end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), len(lines))
        told, lines = lines[1:end], lines[end + 1 :]
    else:
        while lines and lines[0].lstrip().startswith(":"):
            told.append(lines.pop(0).lstrip()[1:])
    try:
        # On a line of its own a value is text, whatever it holds: "Alt: what is seen"
        if any(line.startswith(" ") for line in told):
            options = yaml.safe_load("\n".join(told))
        else:
            options = {
                key.strip(): value.strip().strip("\"'")
                for key, _, value in (line.partition(":") for line in told)
            }
        options = {key: str(value) for key, value in options.items()}
    except (yaml.YAMLError, AttributeError) as error:
        raise BookError(f"the options of a directive {info} cannot be read: {error}") from error
    return Directive(name, argument.strip(), options, "\n".join(lines).strip("\n"))
