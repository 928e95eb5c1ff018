"""The Markdown of a page without MyST: what Jupyter and Colab show as it is meant.

Citations become authors and years, roles become links into the published book, a figure its picture
and its caption in italics, a box a quotation with a bold title, what is folded `<details>`. What is
not known here is an error, so that nothing of MyST reaches a notebook.
"""

import html
import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from addresses import file_of_release, page_in_the_book
from book_error import BookError
from citations import Citations
from markdown_it.token import Token
from page_syntax import Directive, directive_of, tokens_of
from source_lines import definition, file_of

REFERENCES_HERE = "\0references\0"
BOXES = {
    "attention", "caution", "danger", "error", "hint", "important", "note", "seealso", "tip",
    "warning",
}  # fmt: skip
BLOCKS = {
    "blockquote", "bullet_list", "heading", "list_item", "ordered_list", "paragraph", "table",
    "tbody", "td", "th", "thead", "tr",
}  # fmt: skip
KNOWN = {f"{name}_{end}" for name in BLOCKS for end in ("open", "close")} | {
    "code_block", "fence", "hr", "html_block", "math_block", "inline"
}  # fmt: skip
KNOWN_INLINE = {
    "code_inline", "em_close", "em_open", "hardbreak", "html_inline", "image", "link_close",
    "link_open", "math_inline", "softbreak", "strong_close", "strong_open", "text", "text_special",
}  # fmt: skip
ADVICE = {
    "amsmath": "write the formula between $$",
    "math_block_label": "write the formula without a label",
    "substitution_block": "write what stands for it",
    "substitution_inline": "write what stands for it",
}
Edit = tuple[int, int, str]
"""Begin and end in a text, and what is to stand there."""


@dataclass
class Page:
    """A page whose Markdown is made plain.

    Attributes:
        name: such as papers/biomarker.
        book: the folder of the pages.
        version: of the release whose files are shown.
        citations: those of the page.
    """

    name: str
    book: Path
    version: str
    citations: Citations

    def plain(self, text: str) -> str:
        """The text without MyST.

        Raises:
            BookError: a construct that is not known, or one that leads nowhere; names the page.
        """
        try:
            made = self._converted(text)
            refuse_unknown(tokens_of(made))
        except BookError as error:
            where = f"book/{self.name}.md: "
            said = str(error)
            raise BookError(said if said.startswith(where) else where + said) from error
        return made

    # Blocks

    def _converted(self, text: str) -> str:
        """The text without MyST, nested directives included."""
        edits: list[Edit] = []
        starts = _line_starts(text)
        inside = False  # of a block that was replaced whole
        for token in tokens_of(text):
            begin, end = token.map or (0, 0)
            if inside:
                inside = token.level > 0 or token.nesting >= 0
                continue
            new = self._block(token, text, starts)
            if new is not None:
                if token.level:
                    raise BookError(f"{_named(token)} stands inside a list or a quotation")
                edits.append((*_extent(text, starts, begin, end), new.strip("\n")))
                inside = token.nesting == 1
            elif token.type == "inline":
                edits += self._inline(token, text, max(starts[begin], _reached(edits)))
        return _edited(text, edits)

    def _block(self, token: Token, text: str, starts: list[int]) -> str | None:
        """What stands in the place of a block; None if it stays or its parts are looked at."""
        if token.type in {"myst_target", "myst_line_comment"}:
            return ""
        if token.type == "dl_open" and token.map:
            return self._definitions(text[slice(*_extent(text, starts, *token.map))])
        directive = directive_of(token)
        return None if directive is None else self._directive(directive)

    def _directive(self, it: Directive) -> str:
        match it.name:
            case "dropdown":
                return self._folded(it.argument, it.body)
            case "admonition" if "dropdown" in it.classes:
                return self._folded(it.argument, it.body)
            case "admonition":
                return quoted(f"**{self._converted(it.argument)}**\n\n{self._converted(it.body)}")
            case name if name in BOXES:
                body = f"{it.argument}\n{it.body}".strip()
                return quoted(f"**{name.capitalize()}**\n\n{self._converted(body)}")
            case "figure" | "image":
                picture = self._picture(it.argument, it.options.get("alt", ""))
                caption = italic(self._converted(it.body)) if it.body else ""
                return f"{picture}\n\n{caption}".strip()
            case "table":
                caption = italic(self._converted(it.argument)) if it.argument else ""
                return f"{caption}\n\n{self._converted(it.body)}".strip()
            case "math":
                return f"$$\n{it.body}\n$$"
            case "code-block":
                return f"```{it.argument}\n{it.body}\n```"
            case "bibliography":
                return REFERENCES_HERE
        raise BookError(f"no plain form is known of the directive {{{it.name}}}")

    def _folded(self, title: str, body: str) -> str:
        """With blank lines around the body, so that what is in it is read as Markdown."""
        summary = html.escape(title or "Details", quote=False)
        inside = self._converted(body)
        return f"<details>\n<summary><b>{summary}</b></summary>\n\n{inside}\n\n</details>"

    def _picture(self, target: str, alt: str) -> str:
        """By its address: Colab shows no SVG that is in the notebook itself."""
        if not alt:
            raise BookError(f"the picture {target} has no alternative text")
        words = re.sub(r"([\[\]])", r"\\\1", " ".join(alt.split()))
        if re.match(r"https?:", target):
            return f"![{words}]({target})"
        path = Path(os.path.normpath(self.book / Path(self.name).parent / target))
        if not path.is_file():
            raise BookError(f"there is no picture {target}")
        inside = path.relative_to(self.book.parent).as_posix()
        return f"![{words}]({file_of_release(inside, self.version)})"

    def _definitions(self, text: str) -> str:
        """A definition list as a list whose items begin with the term in bold."""
        items, lines = [], text.splitlines()
        for number, line in enumerate(lines):
            if not re.match(r":\s", line):
                continue
            above = lines[number - 1] if number else ""
            if re.match(r"(:\s|\s|$)", above):
                raise BookError(f"a definition without a term right above it: {line.strip()!r}")
            body = [line[1:]]
            for after in lines[number + 1 :]:
                if after.strip() and not after.startswith(" "):
                    break
                body.append(after)
            rest = textwrap.dedent("\n".join(body[1:]))
            inside = f"{body[0].strip()}\n{rest}"
            said = f"**{self._converted(above.strip())}**: {self._converted(inside.strip())}"
            items.append("- " + textwrap.indent(said, "  ").lstrip())
        return "\n".join(items)

    # Inside a paragraph

    def _inline(self, token: Token, text: str, at: int) -> list[Edit]:
        """The changes inside of a paragraph, heading or cell that begins at or after `at`."""
        edits: list[Edit] = []
        for child in token.children or []:
            if child.type == "text" and (left := re.search(r"\[\^[^\]]+\]", child.content)):
                raise BookError(f"no plain form is known of a footnote: {left[0]}")
            place = child.meta.get("place")
            if place is None:
                continue
            raw = token.content[place[0] : place[1]]
            new = self._replaced(child, raw)
            if new is None:
                continue
            spread = r"\n[ \t>]*".join(map(re.escape, raw.split("\n")))
            found = re.compile(spread).search(text, at)
            if found is None:
                raise BookError(f"{raw} cannot be changed where it stands")
            at = found.end()
            edits.append((found.start(), found.end(), new))
        return edits

    def _replaced(self, token: Token, raw: str) -> str | None:
        """What stands in the place of a role, a link or an image; None if it stays."""
        if token.type == "myst_role":
            return self._role(token.meta["name"], token.content)
        if token.type == "image":
            source = str(token.attrs["src"])
            return None if re.match(r"https?:", source) else self._picture(source, token.content)
        if token.type != "link_open" or re.match(r"[a-z]+:", str(token.attrs["href"])):
            return None
        inside = raw[1 : raw.rindex("](")] if "](" in raw else raw[1 : raw.index("]")]
        target, _, anchor = str(token.attrs["href"]).partition("#")
        page = self._page(target.removesuffix(".md")) if target else self.name
        if anchor and not inside:
            raise BookError(f"the link {raw} needs a text")
        return f"[{inside or self._title(page)}]({page_in_the_book(page, anchor)})"

    def _role(self, name: str, content: str) -> str:
        text, target = _text_and_target(content)
        match name:
            case "cite:t":
                return self.citations.textual(content)
            case "cite:p" | "cite":
                return self.citations.parenthetical(content)
            case "doc":
                page = self._page(target)
                return f"[{text or self._title(page)}]({page_in_the_book(page)})"
            case "term":
                return f"[{text or target}]({page_in_the_book(*self._term(target))})"
            case "math":
                return f"${content}$"
            case "sub" | "sup":
                return f"<{name}>{html.escape(content)}</{name}>"
            case _ if name.startswith("py:"):
                return self._object(name.removeprefix("py:"), text, target)
        raise BookError(f"no plain form is known of the role {{{name}}}")

    def _page(self, target: str) -> str:
        """The name of a page that is named from this one."""
        folder = "" if target.startswith("/") else os.path.dirname(self.name)
        name = os.path.normpath(os.path.join(folder, target.lstrip("/")))
        if not (self.book / f"{name}.md").is_file():
            raise BookError(f"there is no page {target}")
        return name

    def _title(self, page: str) -> str:
        text = (self.book / f"{page}.md").read_text(encoding="utf-8")
        found = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
        if found is None:
            raise BookError(f"the page {page} has no title")
        return found[1].strip()

    def _term(self, term: str) -> tuple[str, str]:
        """Page and anchor of a word of the glossary."""
        for path in sorted(self.book.rglob("*.md")):
            for token in tokens_of(path.read_text(encoding="utf-8")):
                directive = directive_of(token)
                if directive is not None and directive.name == "glossary":
                    for line in directive.body.splitlines():
                        if line.strip().lower() == term.lower():
                            page = path.relative_to(self.book).with_suffix("").as_posix()
                            return page, "term-" + re.sub(r"[^0-9A-Za-z]+", "-", line.strip())
        raise BookError(f"no glossary of the book has the word {term!r}")

    def _object(self, kind: str, text: str, target: str) -> str:
        """A link to where the library's pages say what an object is."""
        short, name = target.startswith("~"), target.lstrip("~!")
        parts = name.split(".")
        modules = (parts[:end] for end in range(len(parts), 0, -1))
        module = next((m for m in modules if file_of(".".join(m), self.book.parent)), None)
        file = file_of(".".join(module), self.book.parent) if module else None
        if module is None or file is None or definition(parts[len(module) :], file) is None:
            raise BookError(f"the library has no {name}")
        package = len(module) > 1 and (self.book.parent / module[0] / module[1]).is_dir()
        page = f"appendix/api/{module[1] if package else module[0]}"
        end = "()" if kind in {"func", "meth"} else ""
        said = text or f"`{parts[-1] if short else name}{end}`"
        return f"[{said}]({page_in_the_book(page, name)})"


def quoted(text: str) -> str:
    """A quotation, each formula on one line: the sign before a line would be read as part of it."""
    lines = one_line_formulas(text).strip().splitlines()
    return "\n".join(f"> {line}" if line.strip() else ">" for line in lines)


def italic(text: str) -> str:
    """A caption, on one line and in italics."""
    line = " ".join(text.split())
    return f"<em>{line}</em>" if "*" in line else f"*{line}*"


def one_line_formulas(text: str) -> str:
    """The text, each formula on one line."""
    edits: list[Edit] = []
    starts = _line_starts(text)
    for token in tokens_of(text):
        if token.type == "math_block" and token.map:
            extent = _extent(text, starts, *token.map)
            lines = text[slice(*extent)].splitlines()
            indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
            edits.append((*extent, indent + " ".join(map(str.strip, lines))))
        for child in token.children or []:
            if child.type == "math_inline" and "\n" in child.content:
                begin, end = child.meta["place"]
                spread = map(re.escape, token.content[begin:end].split("\n"))
                found = re.compile(r"\n[ \t>]*".join(spread)).search(text, _reached(edits))
                if found is not None:
                    one = re.sub(r"\n[ \t>]*", " ", found[0])
                    edits.append((found.start(), found.end(), one))
    return _edited(text, edits)


def refuse_unknown(tokens: list[Token]) -> None:
    """Raises BookError where something is left that Jupyter and Colab do not know."""
    for token in tokens:
        if directive_of(token) is not None:
            raise BookError(f"{_named(token)} was left")
        _refuse(token, KNOWN)
        for child in token.children or []:
            _refuse(child, KNOWN_INLINE)


def _refuse(token: Token, known: set[str]) -> None:
    if token.type not in known:
        advice = ADVICE.get(token.type, "say it without")
        raise BookError(f"no plain form is known of {_named(token)}; {advice}")


def _named(token: Token) -> str:
    said = token.info.strip() or token.meta.get("name") or token.content.strip()
    return f"{token.type} {' '.join(str(said).split())[:60]}".strip()


def _text_and_target(content: str) -> tuple[str, str]:
    """Of "text <target>" both; else no text, and all of it as the target."""
    found = re.fullmatch(r"(.+?)\s*<([^<>]+)>", content.strip(), flags=re.DOTALL)
    return (found[1], found[2]) if found else ("", content.strip())


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _extent(text: str, starts: list[int], begin: int, end: int) -> tuple[int, int]:
    """Where lines begin and end in the text, without the line breaks behind them."""
    start, stop = starts[begin], starts[min(end, len(starts) - 1)]
    return start, start + len(text[start:stop].rstrip("\n"))


def _reached(edits: list[Edit]) -> int:
    return edits[-1][1] if edits else 0


def _edited(text: str, edits: list[Edit]) -> str:
    for begin, end, new in reversed(edits):
        text = text[:begin] + new + text[end:]
    return text
