"""From the library's docstrings to reStructuredText.

The docstrings are Google style and written to be read as plain text: `code` in single backticks,
TeX between dollars, ||x||, |a - b|, **settings, equation maps and Readings. reStructuredText would
take much of that for markup of its own, so that it is marked here as what it is.
"""

import ast
import re
import tokenize
from collections.abc import Iterator

from equations import HEADINGS, rows

from cxrtut.viz.readings import breakable, parts

# A section of a Google docstring, an item of a list, and what reStructuredText reads by itself.
SECTION = re.compile(r"[A-Z][a-z]+( [A-Z]?[a-z]+)?:$")
ITEM = re.compile(r"([-*+]|\d+\.) ")
MARKED = re.compile(r"\.\. |.*::$|>>> ")
# "R. Zhang" and "(1) a" begin sentences, while reStructuredText would number from there.
NUMBERED = re.compile(r"\(?\w+[.)] ")
CODE = re.compile(r"(?<!`)(?<!:)`([^`]+)`(?!`)")
VERBATIM = re.compile(r"(:[\w:]+:`[^`]+`|``[^`]+``|`[^`]+`|\$[^$]+\$)")
NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?$")
EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(\w(?:[\w ,.'’-]*\w)?)\1(?![\w*])")
FIELD = re.compile(r" {4}(\w+(?:, \w+)*)(?: \(.*?\))?: ?(.*)")
Lines = list[str]


def code(text: str) -> str:
    """What stands in backticks: a name becomes a link, if there is such an object; else code."""
    return f":py:obj:`{text}`" if NAME.match(text) else f"``{text}``"


def formula(tex: str) -> str:
    """Roles for TeX: the parts of a formula between which a line may end."""
    return " ".join(f":math:`{part}`" for part in breakable(tex))


def escaped(text: str) -> str:
    """Text in which only `code`, $formulas$ and *emphasis* are markup."""
    pieces = VERBATIM.split(text)
    for index, piece in enumerate(pieces):
        if index % 2:
            # Markup ends at a space, if need be at one that is not shown: `Box`es.
            before = "\\ " if pieces[index - 1][-1:].isalnum() else ""
            after = "\\ " if pieces[index + 1][:1].isalnum() else ""
            marked = CODE.sub(lambda match: code(match[1]), piece)
            pieces[index] = before + (formula(piece[1:-1]) if piece[0] == "$" else marked) + after
            continue
        plain = EMPHASIS.split(piece)  # text, stars, emphasised, text, ...
        for place in range(0, len(plain), 3):
            plain[place] = re.sub(r"[\\|*]|(?<=\w)_(?!\w)", r"\\\g<0>", plain[place])
        pieces[index] = "".join(
            part if place % 3 == 0 else f"{plain[place]}{plain[place + 1]}{plain[place]}"
            for place, part in enumerate(plain)
            if place % 3 != 2
        )
    return "".join(pieces)


def blocks(lines: Lines) -> Iterator[tuple[Lines, Lines]]:
    """A docstring as pairs: lines at the margin, then the indented lines below them."""
    margin: Lines = []
    indented: Lines = []
    for line in lines:
        if line.startswith(" ") or (indented and not line):
            indented.append(line)
            continue
        if indented:
            yield margin, indented
            margin, indented = [], []
        margin.append(line)
    yield margin, indented


def equation_table(lines: Lines) -> Lines:
    """An equation map as a table: what the paper has, and what computes it."""
    text = ["", ".. list-table::", "   :class: equation-map", ""]
    for said, code in rows("\n".join(lines)):
        numbered = "\\" if NUMBERED.match(said) else ""
        text += [f"   * - {numbered}{escaped(said)}", f"     - {escaped(code)}"]
    return [*text, ""]


def reading(lines: Lines) -> Lines:
    """A Reading in three paragraphs; nothing for what has not the form of one."""
    try:
        said = parts("\n".join(lines).strip())
    except ValueError:
        said = None
    if said is None:
        return []
    group, topic, *texts = said
    labels = (f"**Reading ({group}, {topic}).** ", "*Here:* ", "*Why:* ")
    text = ["", ".. container:: reading", ""]
    for label, part in zip(labels, texts, strict=True):
        text += [f"   {label}{escaped(part)}", ""]
    return text


def as_restructured_text(lines: Lines) -> Lines:
    """A Google docstring with its sections kept, and the rest of it marked for reStructuredText.

    Indented lines belong to a section, to an item of a list, to an equation map or to a Reading;
    others, such as an example, keep their line breaks and columns.
    """
    text: Lines = []
    for margin, indented in blocks(lines):
        last = next((line for line in reversed(margin) if line), "")
        is_reading = reading([last, *indented])
        for line in margin[:-1] if is_reading else margin:
            above = text[-1] if text else ""
            if ITEM.match(line):
                # A list needs an empty line before it.
                text += [""] if above and above[0] != " " and not ITEM.match(above) else []
            numbered = not above and NUMBERED.match(line) and not ITEM.match(line)
            marked = line if MARKED.match(line) else escaped(line)
            text.append(f"\\{marked}" if numbered else marked)
        if is_reading:
            text += is_reading
        elif SECTION.match(last) or ITEM.match(last):
            text += map(escaped, indented)
        elif MARKED.match(last):
            text += indented
        elif indented and last.startswith(HEADINGS):
            text += equation_table(indented)
        elif indented:
            text += ["", "::", "", *indented, ""]
    return text


def preformatted(lines: Lines) -> Lines:
    """The lines as they are written."""
    return ["::", "", *(f"   {line}" for line in lines)]


# The fields of a class


def described_fields(lines: Lines) -> dict[str, Lines]:
    """What the section `Attributes` of a docstring says of each name."""
    found: dict[str, Lines] = {}
    inside = False
    said: Lines = []
    for line in lines:
        if line and line[0] != " ":
            inside = line == "Attributes:"
        elif inside and (match := FIELD.match(line)):
            said = [match[2]]
            found.update(dict.fromkeys(match[1].split(", "), said))
        elif inside:
            said.append(line.strip())
    return found


def without_fields(lines: Lines, names: set[str]) -> Lines:
    """The docstring without these names in its section `Attributes`, or without the section."""
    kept: Lines = []
    inside = dropping = False
    for line in lines:
        if line and line[0] != " ":
            inside, dropping = line == "Attributes:", False
        elif inside and (match := FIELD.match(line)):
            dropping = names.issuperset(match[1].split(", "))
        if not dropping:
            kept.append(line)
    if "Attributes:" in kept and not described_fields(kept):
        kept.remove("Attributes:")
    return kept


def trailing_comment(line: str) -> Lines:
    """The comment behind a field, which says what a docstring would; empty where there is none."""
    tokens = tokenize.generate_tokens(iter([f"{line.strip()}\n", ""]).__next__)
    try:
        found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    except tokenize.TokenError:  # the value goes on in the next line
        return []
    return [text[1:].strip() for text in found if not re.match(r"#\s*(type|noqa|fmt)\b", text)]


def as_written(node: ast.AST) -> str:
    """Source text on one line; without the space of Float[Tensor, " B"], which is for linters."""
    return re.sub(r"(\[[\w.]+, ') ", r"\1", ast.unparse(node))


def fields_of(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """The fields that a class declares with their types, in order, private ones left out."""
    declared = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    return [child for child in declared if not ast.unparse(child.target).startswith("_")]


def said_of_fields(node: ast.ClassDef, docstring: Lines, source: Lines) -> dict[str, Lines]:
    """What the class's docstring says of each of its fields, or else the comment behind it."""
    described = described_fields(docstring)
    comments = {
        ast.unparse(field.target): trailing_comment(source[(field.end_lineno or 1) - 1])
        for field in fields_of(node)
    }
    return {name: described.get(name) or comment for name, comment in comments.items()}


def field_list(node: ast.ClassDef, said: dict[str, Lines]) -> Lines:
    """A directive for each field: its type and default as written, and what is said of it."""
    text: Lines = []
    for field in fields_of(node):
        name = ast.unparse(field.target)
        text += ["", f".. py:attribute:: {name}", f"   :type: {as_written(field.annotation)}"]
        text += [f"   :value: {ast.unparse(field.value)}"] if field.value else []
        text += ["", *(f"   {line}" for line in said[name])]
    return [*text, ""]


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> tuple[str, str | None]:
    """Arguments and result with their types as written, `bound` without the first argument."""
    arguments = node.args
    if bound:
        (arguments.posonlyargs or arguments.args)[:1] = []
    returns = as_written(node.returns) if node.returns else None
    return f"({as_written(arguments)})", returns
