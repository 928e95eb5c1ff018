"""An executed notebook as the book shows it: one cell of parameters, with the values that were used
and a line that says how the page was made; folded cells have titles.
"""

import ast
import copy
import json
from typing import Any

from fold_titles import give_titles

INJECTED = "injected-parameters"
PARAMETERS = "parameters"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def shown_notebook(notebook: Any, record: dict[str, Any]) -> Any:
    """The notebook without the cell that papermill put in; what it set stands in the page's own.

    Args:
        notebook: an executed page; is not changed.
        record: of its run: parameters, threads, seconds, torch.
    """
    from nbformat.v4 import new_markdown_cell

    shown = copy.deepcopy(notebook)
    cells = []
    for cell in shown.cells:
        tags = cell.metadata.get("tags", [])
        if INJECTED in tags:
            continue
        cells.append(cell)
        if PARAMETERS in tags:
            cell.source = with_values(cell.source, record["parameters"])
            cells.append(new_markdown_cell(f"*{made_with(record)}*", id="how-it-was-made"))
    shown.cells = cells
    give_titles(shown)
    return shown


def with_values(source: str, values: dict[str, Any]) -> str:
    """A cell of assignments with other values; comments stay."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        name, old = node.targets[0].id, node.value
        if name in values and old.lineno == old.end_lineno:
            value = values[name]
            new = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
            line = lines[old.lineno - 1].encode()  # columns are counted in bytes
            before, after = line[: old.col_offset], line[old.end_col_offset :]
            lines[old.lineno - 1] = before.decode() + new + after.decode()
    return "\n".join(lines)


def made_with(record: dict[str, Any]) -> str:
    """How a page was made: "Built at preset smoke in 65 s on two threads, torch 2.11." """
    preset = record["parameters"].get("preset")
    threads = record["threads"]
    count = NUMBERS[int(threads)] if threads.isdigit() and int(threads) < len(NUMBERS) else threads
    return (
        f"Built{f' at preset {preset}' if preset else ''} in {record['seconds']:.0f} s on {count} "
        f"thread{'' if count == 'one' else 's'}, {record['torch'].partition('+')[0]}."
    )
