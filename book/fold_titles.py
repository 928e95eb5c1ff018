"""What a folded cell of code is called, in the book and in the notebooks."""

import ast
import re
from typing import Any

FOLDED = {"hide-cell", "hide-input", "remove-input"}
PROMPTS = ("code_prompt_show", "code_prompt_hide")


def title_of(cell: Any, heading: str) -> str:
    """The title that a page gives (`mystnb: code_prompt_show`), else one from what the cell makes.

    Args:
        cell: of code.
        heading: of its section; "" before the first.
    """
    given = cell.metadata.get("mystnb", {}).get(PROMPTS[0])
    if given:
        return str(given)
    number = re.search(
        r"""(?:^|["'])((?:Figure|Table) \d+)\.""", caption_of(cell) or str(cell.source)
    )
    if number:
        return f"Code of {number[1]}"
    if all(isinstance(node, ast.Import | ast.ImportFrom) for node in parsed(cell.source).body):
        return "Imports"
    plain = re.sub(r"[$*`_\\]|\[|\]\([^)]*\)", "", heading)
    return f"Code: {plain}" if heading else "Set-up"


def caption_of(cell: Any) -> str:
    """Of the picture that a cell shows; "" without one."""
    return str(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", ""))


def last_heading(text: str, before: str) -> str:
    """Of the section in which Markdown ends; the one from before where it has none."""
    return next(reversed(re.findall(r"^##+ (.+)$", text, re.MULTILINE)), before)


def parsed(source: str) -> ast.Module:
    """Python without magics."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def give_titles(notebook: Any) -> None:
    """Names every folded cell of a notebook for MyST-NB, which says "Show code cell source" of each
    otherwise.
    """
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = last_heading(cell.source, heading)
        elif cell.cell_type == "code" and FOLDED & set(cell.metadata.get("tags", [])):
            title = title_of(cell, heading)
            cell.metadata["mystnb"] = {
                **dict.fromkeys(PROMPTS, title),
                **cell.metadata.get("mystnb", {}),
            }
