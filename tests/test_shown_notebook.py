"""What becomes of an executed notebook before the book shows it."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

BOOK = Path(__file__).resolve().parents[1] / "book"
sys.path += [str(BOOK)]
from shown_notebook import made_with, shown_notebook, with_values  # noqa: E402

RECORD = {
    "parameters": {"preset": "smoke", "seed": 3},
    "threads": "2",
    "seconds": 64.6,
    "torch": "torch 2.11.0+cpu",
}


def executed():
    return new_notebook(
        cells=[
            new_markdown_cell("# A"),
            new_code_cell('preset = "colab"\nseed = 0', metadata={"tags": ["parameters"]}),
            new_code_cell('preset = "smoke"', metadata={"tags": ["injected-parameters"]}),
            new_code_cell("print(preset)", metadata={"tags": ["remove-cell"]}),
        ]
    )


def test_one_cell_of_parameters_is_left_with_the_values_used_and_a_line_about_the_run():
    before = executed()
    shown = shown_notebook(before, RECORD)
    assert [cell.source for cell in shown.cells] == [
        "# A",
        'preset = "smoke"\nseed = 3',
        "*Built at preset smoke in 65 s on two threads, torch 2.11.0.*",
        "print(preset)",
    ]
    nbformat.validate(shown)
    assert len(before.cells) == 4 and before.cells[1].source.startswith('preset = "colab"')


def test_only_values_change():
    source = 'preset = "colab"\nseed = 0  # é, of all\nx = "é"; seed_2 = 5\nroot = ""  # a store'
    values = {"preset": "smoke", "seed": 12, "root": "/a/é", "other": 1}
    assert with_values(source, values) == (
        'preset = "smoke"\nseed = 12  # é, of all\nx = "é"; seed_2 = 5\nroot = "/a/é"  # a store'
    )


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"threads": "1"}, "Built at preset smoke in 65 s on one thread, torch 2.11.0."),
        ({"threads": "16"}, "Built at preset smoke in 65 s on 16 threads, torch 2.11.0."),
        ({"parameters": {}}, "Built in 65 s on two threads, torch 2.11.0."),
    ],
)
def test_the_line_says_what_the_record_says(changed, line):
    assert made_with(RECORD | changed) == line


def test_a_folded_cell_is_called_by_what_it_makes_and_by_the_page_first():
    def prompts(source, tags=("hide-input",), **mystnb):
        metadata = {"tags": list(tags), **({"mystnb": mystnb} if mystnb else {})}
        cells = [
            new_markdown_cell("# A\n\n## The *loss*"),
            new_code_cell(source, metadata=metadata),
        ]
        cell = shown_notebook(new_notebook(cells=cells), RECORD).cells[1]
        about = cell.metadata.get("mystnb", {})
        return about.get("code_prompt_show"), about.get("code_prompt_hide")

    assert prompts('Table(rows, caption="Table 4. So")') == ("Code of Table 4",) * 2
    assert prompts("draw();", figure={"caption": "Figure 2. A"}) == ("Code of Figure 2",) * 2
    assert prompts("import torch") == ("Imports",) * 2
    assert prompts("x = 1") == ("Code: The loss",) * 2
    assert prompts("x = 1", code_prompt_show="Ours", code_prompt_hide="Away") == ("Ours", "Away")
    assert prompts("x = 1", tags=()) == (None, None)
