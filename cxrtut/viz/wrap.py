"""Python code with shorter lines and the same syntax tree, for a page that is narrower than a file.

A line that is too long is broken inside its brackets, as code formatters break it: behind a comma
or before an operator, the content indented once more than its bracket. A statement without brackets
gets parentheses, and a long string becomes two that stand side by side.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

WIDTH = 79
INDENT = "    "
_OPENING, _CLOSING = ("(", "[", "{"), (")", "]", "}")
_VALUES = {"None", "True", "False"}
# Where a line may be broken, the best places first.
_OPERATORS = (
    "for async if else", "or", "and", "in not is < > == != <= >=", "|", "^", "&", "<< >>", "+ -",
    "* / // % @",
)  # fmt: skip
_RANKS = {
    word: 1 + rank for rank, group in enumerate(_OPERATORS) for word in group.split()
}  # 0 is behind a comma
_WORDS, _STRINGS, _CHAIN = 3, 12, 13  # up to `and`; between two strings; before a method
_PRAGMA = re.compile(r"#\s*(fmt:|noqa|type:|pragma)")
_STRING = re.compile(r"(?P<prefix>\w*)(?P<quote>['\"])(?P<text>.*)(?P=quote)", re.DOTALL)
_ASSIGNMENT = re.compile(r"([-+*/%@&|^]|\*\*|//|<<|>>)?=")


@dataclass(frozen=True)
class _Token:
    """A word of a line.

    Attributes:
        text: as it is written.
        kind: one of those of `tokenize`.
        gap: the blanks before it.
    """

    text: str
    kind: int
    gap: str = ""


def wrapped(code: str, width: int = WIDTH) -> str:
    """The code with lines of at most `width` columns, as far as that is possible.

    What cannot be broken stays as it is: strings of several lines, and names that are too long. A
    comment behind a line that is too long moves above it, and one for tools only is left out. Other
    lines are not touched.

    Args:
        code: whole statements, the first of them not indented.
        width: columns.

    Returns:
        Code with the same syntax tree; `code` itself where it cannot be parsed.
    """
    if all(len(line) <= width for line in code.splitlines()):
        return code
    try:
        made = "\n".join(_lines(code, width))
        return made if ast.dump(ast.parse(made)) == ast.dump(ast.parse(code)) else code
    except (SyntaxError, tokenize.TokenError):
        return code


def _lines(code: str, width: int) -> Iterator[str]:
    lines = code.splitlines()
    rows = _rows(code)
    row = 1
    while row <= len(lines):
        line, tokens = lines[row - 1], rows.get(row)
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith("#") and tokens is not None:
            last = row
            while last < len(lines) and lines[last].startswith(f"{indent}#") and last + 1 in rows:
                last += 1
            yield from _comment([x[len(indent) :] for x in lines[row - 1 : last]], indent, width)
            row = last + 1
            continue
        if len(line) <= width or tokens is None:
            yield line
        else:
            yield from _Breaker(width).row(tokens, indent)
        row += 1


@dataclass(frozen=True)
class _Row:
    """The tokens that begin on a line of the file.

    Attributes:
        tokens: all of them.
        depth: how many brackets are open where the line begins.
        whole: whether the line is one whole statement.
    """

    tokens: tuple[_Token, ...]
    depth: int
    whole: bool


def _rows(code: str) -> dict[int, _Row]:
    """The lines that may be broken by their number: all but those that a string or a backslash
    goes beyond.
    """
    found: dict[int, list[_Token]] = {}
    depths: dict[int, int] = {}
    starts, ends = set(), set()
    kept: set[int] = set()
    depth, begins, place = 0, True, (0, 0)
    for text, kind, start, end in _tokens(code):
        row = start[0]
        if kind in (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            continue
        if kind == tokenize.NEWLINE:
            ends.add(row)
            begins = True
            continue
        if kind == tokenize.NL:
            continue
        if start[0] != end[0]:
            kept |= set(range(start[0], end[0] + 1))
        if row not in found:
            found[row], depths[row] = [], depth
            if begins:
                starts.add(row)
            elif depth == 0 and kind != tokenize.COMMENT:
                kept |= {row - 1, row}  # behind a backslash
        gap = " " * (start[1] - place[1]) if place[0] == row else ""
        found[row].append(_Token(text, kind, gap))
        if kind == tokenize.OP:
            depth += (text in _OPENING) - (text in _CLOSING)
        begins = begins and kind == tokenize.COMMENT
        place = end
    return {
        row: _Row(tuple(tokens), depths[row], row in starts and row in ends)
        for row, tokens in found.items()
        if row not in kept
    }


def _tokens(code: str) -> Iterator[tuple[str, int, tuple[int, int], tuple[int, int]]]:
    """Text, kind, start and end of each token; an f-string is one, also from Python 3.12 on."""
    lines = code.splitlines(keepends=True)
    inside, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        name = tokenize.tok_name[token.type]
        if name.endswith("STRING_START"):
            start = start if inside else token.start
            inside += 1
        elif name.endswith("STRING_END"):
            inside -= 1
            if not inside:
                (first, left), (last, right) = start, token.end
                text = "".join(lines[first - 1 : last])
                text = text[left : len(text) - len(lines[last - 1]) + right]
                yield text, tokenize.STRING, start, token.end
        elif not inside:
            yield token.string, token.type, token.start, token.end


def _comment(lines: Sequence[str], indent: str, width: int) -> Iterator[str]:
    """A comment of several lines; if one of them is too long, its words are set anew."""
    room = width - len(indent)
    if all(len(line) <= room for line in lines):
        yield from (indent + line for line in lines)
    elif any(re.match(r"#(\s\s|\S)", line) or line.strip() == "#" for line in lines):
        for line in lines:
            yield from (indent + part for part in _filled([line], room))
    else:
        yield from (indent + part for part in _filled(lines, room))


def _filled(comment: Sequence[str], room: int) -> list[str]:
    if len(comment) == 1 and len(comment[0]) <= room:
        return list(comment)
    words = " ".join(line.lstrip("#").strip() for line in comment)
    return textwrap.wrap(
        words, room, initial_indent="# ", subsequent_indent="# ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


@dataclass(frozen=True)
class _Breaker:
    """Breaks lines for a width."""

    width: int

    def row(self, row: _Row, indent: str) -> list[str]:
        """A line of the file as several."""
        tokens = list(row.tokens)
        above: list[str] = []
        if tokens[-1].kind == tokenize.COMMENT:
            comment = tokens.pop().text
            if not _PRAGMA.match(comment):
                above = list(_comment([comment], indent, self.width))
        if self.fits(tokens, indent):
            return [*above, indent + _text(tokens)]
        made = self.broken(tokens, indent, row.depth)
        if row.whole and row.depth == 0 and (self.too_long(made) or _is_choice(tokens)):
            enclosed = self.parenthesised(tokens, indent)
            if enclosed and self.too_long(enclosed) <= self.too_long(made):
                made = enclosed
        return [*above, *made]

    def fits(self, tokens: Sequence[_Token], indent: str) -> bool:
        return len(indent) + len(_text(tokens)) <= self.width

    def too_long(self, lines: Sequence[str]) -> int:
        return sum(len(line) > self.width for line in lines)

    def broken(
        self, tokens: Sequence[_Token], indent: str, depth: int, hang: str = INDENT
    ) -> list[str]:
        """The tokens on as many lines as they need.

        Args:
            tokens: at least one.
            indent: of the first line.
            depth: how many brackets are open before the first token.
            hang: what is added to the indent behind the first line, but not behind a comma.
        """
        if self.fits(tokens, indent):
            return [indent + _text(tokens)]
        ways = list(self.in_brackets(tokens, indent, depth))
        rank, parts = _parts(tokens, depth)
        if len(parts) > 1:
            lines = self.packed(parts, indent, depth, hang if rank else "")
            ways.insert(0 if rank <= _WORDS else len(ways), lines)
        elif depth > 0:
            ways += self.in_strings(tokens, indent, depth)
        return min(ways, key=self.too_long, default=[indent + _text(tokens)])

    def packed(
        self, parts: Sequence[Sequence[_Token]], indent: str, depth: int, hang: str
    ) -> list[str]:
        """The parts, as many on a line as it holds."""
        lines: list[str] = []
        line: list[_Token] = []
        for part in parts:
            if line and not self.fits([*line, *part], indent):
                lines += self.broken(line, indent, depth)
                indent, hang = indent + hang, ""
                depth, line = depth + _opened(line), []
            line += part
        return lines + self.broken(line, indent, depth)

    def in_brackets(self, tokens: Sequence[_Token], indent: str, depth: int) -> Iterator[list[str]]:
        """Broken behind an opening bracket and before its closing one, in every way, the way with
        the fewest lines first.
        """
        ways = []
        for i, j in _pairs(tokens):
            head, body, tail = tokens[: i + 1], tokens[i + 1 : j], tokens[j:]
            within = depth + _opened(head)
            lines = self.broken(head, indent, depth)
            lines += self.broken(body, indent + INDENT, within, hang="")
            if tail:
                lines += self.broken(tail, indent, within + _opened(body))
            subscript = i > 0 and tokens[i].text == "[" and not tokens[i].gap
            ways.append(((subscript, len(lines), -len(body)), lines))
        yield from (lines for _, lines in sorted(ways, key=lambda way: way[0]))

    def in_strings(self, tokens: Sequence[_Token], indent: str, depth: int) -> Iterator[list[str]]:
        """Broken inside a string, which becomes two side by side."""
        for k, token in enumerate(tokens):
            if token.kind != tokenize.STRING:
                continue
            before, behind = tokens[:k], tokens[k + 1 :]
            room = self.width - len(indent) - len(_text([*before, replace(token, text="")]))
            halves = _halves(token, room)
            if halves is None:
                continue
            first, second = halves
            further = indent + (INDENT if before else "")
            yield [
                indent + _text([*before, first]),
                *self.broken([second, *behind], further, depth),
            ]

    def parenthesised(self, tokens: Sequence[_Token], indent: str) -> list[str]:
        """A statement whose expression gets parentheses; nothing where that is not possible."""
        words = [token.text for token in tokens]
        stop = len(words) - (words[-1] == ":")
        outside = [k for k in range(len(words)) if _opened(tokens[:k]) == 0]
        if words[0] in ("return", "if", "elif", "while", "assert"):
            commas = [k for k in outside if words[0] == "assert" and words[k] == ","]
            first = max(commas, default=0) + 1
        elif words[0] == "for" and "in" in words:
            first = words.index("in") + 1
        elif words[0] == "from" and "import" in words:
            first = words.index("import") + 1
        else:
            first = 1 + max((k for k in outside if _ASSIGNMENT.fullmatch(words[k])), default=stop)
        if first >= stop:
            return []
        body = [replace(tokens[first], gap=""), *tokens[first + 1 : stop]]
        opening = _Token("(", tokenize.OP, " ")
        closing = _Token(")", tokenize.OP)
        return [
            *self.broken([*tokens[:first], opening], indent, 0),
            *self.broken(body, indent + INDENT, 1, hang=""),
            indent + _text([closing, *tokens[stop:]]),
        ]


def _text(tokens: Sequence[_Token]) -> str:
    return "".join(token.gap * (k > 0) + token.text for k, token in enumerate(tokens))


def _is_choice(tokens: Sequence[_Token]) -> bool:
    """Whether a statement is one value or another, outside of all brackets."""
    places = [k for k, token in enumerate(tokens) if token.text == "else"]
    return any(k > 0 and _opened(tokens[:k]) == 0 for k in places)


def _opened(tokens: Sequence[_Token]) -> int:
    """Brackets that are opened less those that are closed."""
    words = [token.text for token in tokens if token.kind == tokenize.OP]
    return sum((word in _OPENING) - (word in _CLOSING) for word in words)


def _pairs(tokens: Sequence[_Token]) -> list[tuple[int, int]]:
    """The places of outermost brackets with something between them; one that is not closed here
    ends behind the last token.
    """
    pairs, opened = [], []
    for k, token in enumerate(tokens):
        if token.kind == tokenize.OP and token.text in _OPENING:
            opened.append(k)
        elif token.kind == tokenize.OP and token.text in _CLOSING and opened:
            pairs.append((opened.pop(), k))
    pairs += [(i, len(tokens)) for i in opened]
    outer = [p for p in pairs if not any(q[0] < p[0] and p[1] < q[1] for q in pairs)]
    return sorted((i, j) for i, j in outer if j > i + 1)


def _parts(tokens: Sequence[_Token], depth: int) -> tuple[int, list[Sequence[_Token]]]:
    """The tokens in parts between which a line may be broken, at the best places that there are:
    how good these are (0 for commas), and the parts.
    """
    places: list[tuple[int, int, int]] = []
    level, bottom, lambdas = depth, depth, []
    for k, token in enumerate(tokens):
        word, previous = token.text, tokens[k - 1] if k else None
        if token.kind == tokenize.OP:
            level -= word in _CLOSING
            bottom = min(bottom, level)
        if word == "lambda":
            lambdas.append(level)
        elif word == ":" and lambdas and lambdas[-1] == level:
            lambdas.pop()
        elif (
            previous is not None and 0 < level <= bottom and not (lambdas and lambdas[-1] == level)
        ):
            rank = _rank(previous, token)
            if rank is not None:
                places.append((level, rank, k))
        if token.kind == tokenize.OP:
            level += word in _OPENING
    if not places:
        return 0, [tokens]
    lowest, rank = min((level, rank) for level, rank, _ in places)
    cuts = [k for level, found, k in places if (level, found) == (lowest, rank)]
    return rank, [tokens[a:b] for a, b in pairwise([0, *cuts, len(tokens)])]


def _rank(previous: _Token, token: _Token) -> int | None:
    """How good it is to break a line between two tokens, 0 the best; None: not at all."""
    if token.text in _CLOSING:
        return None
    if previous.kind == tokenize.OP and previous.text == ",":
        return 0
    if previous.kind == token.kind == tokenize.STRING:
        return _STRINGS
    ends = (
        previous.kind in (tokenize.NUMBER, tokenize.STRING)
        or previous.text in _CLOSING
        or (previous.kind == tokenize.NAME and not _is_keyword(previous.text))
    )
    if not ends or token.kind not in (tokenize.OP, tokenize.NAME):
        return None
    if token.text == "." and previous.text in _CLOSING:
        return _CHAIN
    return _RANKS.get(token.text)


def _is_keyword(word: str) -> bool:
    return keyword.iskeyword(word) and word not in _VALUES


def _halves(token: _Token, room: int) -> tuple[_Token, _Token] | None:
    """A string as two of which the first has at most `room` columns, cut behind a blank or else
    before what an f-string fills in; None where there is no such place.
    """
    found = _STRING.fullmatch(token.text)
    if found is None or token.text.endswith(('"""', "'''")) or r"\N" in token.text:
        return None
    prefix, quote, text = found["prefix"], found["quote"], found["text"]
    room -= len(prefix) + 2 * len(quote)
    braces, blank, field = 0, 0, 0
    for k, character in enumerate(text[:room]):
        if "f" in prefix.lower():
            if character == "{" and braces == 0:
                field = k
            braces += (character == "{") - (character == "}")
        if character == " " and braces == 0 and text[k + 1 :]:
            blank = k + 1
    best = blank or field
    if not best:
        return None
    first, second = (f"{prefix}{quote}{part}{quote}" for part in (text[:best], text[best:]))
    return replace(token, text=first), _Token(second, tokenize.STRING)
