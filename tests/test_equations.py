"""A paper's equations are found from its module: every name of its map leads to a line, no number
lacks, and the book's page of equations links them.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "book" / "_extensions"))  # as Sphinx does

import equations  # noqa: E402

PAPERS = {"biomarker": 3, "disease_masks": 10}  # how many equations a paper numbers
SYSTEMS = {
    path: lines
    for folder in ("papers", "baselines")
    for path in sorted((ROOT / "cxrtut" / folder).glob("*.py"))
    if (lines := equations.equation_map(ast.get_docstring(ast.parse(path.read_text())) or ""))
}
NAMES = [(path, name) for path, lines in SYSTEMS.items() for name in re.findall("`(.+?)`", lines)]


@pytest.mark.parametrize(("path", "name"), NAMES, ids=[f"{p.stem}-{n}" for p, n in NAMES])
def test_what_a_map_names_has_a_line_in_the_source(path, name):
    file, line = equations.place_of(name, path)
    last = name.rpartition(".")[2]
    assert last in file.read_text().splitlines()[line - 1] or file.stem == last


def test_every_paper_and_every_system_it_compares_with_has_a_map():
    found = {f"{path.parent.name}/{path.stem}" for path in SYSTEMS}
    baselines = {"attention_mining", "chestxray8", "contrast_attention", "limited_supervision"}
    assert found == {f"papers/{p}" for p in PAPERS} | {f"baselines/{b}" for b in baselines}


@pytest.mark.parametrize(("paper", "numbered"), PAPERS.items())
def test_every_numbered_equation_has_its_line(paper, numbered):
    lines = SYSTEMS[ROOT / "cxrtut" / "papers" / f"{paper}.py"]
    numbers = [int(n) for n in re.findall(r"^ +\((\d+)\)", lines, re.MULTILINE)]
    assert numbers == list(range(1, numbered + 1))


MODULE = '''"""A system.

Somebody, Something, 2020.

Equations
    (1) a < b      `f`
                   `C.m`, `C.kept`
Steps
    Section 2      `evaluation_mode.evaluating`, `evaluating`, `missing`

Reading: of the `module`.
"""
from cxrtut.evaluation_mode import evaluating
SIZE: int = 3
def f(): ...
class C:
    kept: int
    def m(self):
        """Reading: of m."""
'''


@pytest.fixture
def module(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(equations, "ROOT", tmp_path)
    monkeypatch.setattr(equations, "PACKAGE", tmp_path / "cxrtut")
    for name, text in (
        ("baselines/system.py", MODULE),
        ("evaluation_mode.py", "\ndef evaluating(): 0"),
    ):
        path = tmp_path / "cxrtut" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "cxrtut" / "baselines" / "system.py"


def test_an_equation_map_is_its_indented_lines_with_their_headings(module):
    lines = equations.equation_map(ast.get_docstring(ast.parse(MODULE))).splitlines()
    assert [line.split()[0] for line in lines] == ["Equations", "(1)", "`C.m`,", "Steps", "Section"]
    assert equations.equation_map("Nothing.\n\n    `a`") == ""
    assert equations.citation(ast.get_docstring(ast.parse(MODULE))) == "Somebody, Something, 2020."


@pytest.mark.parametrize(
    ("name", "file", "line"),
    [
        ("f", "baselines/system.py", 15),
        ("C", "baselines/system.py", 16),
        ("C.kept", "baselines/system.py", 17),
        ("C.m", "baselines/system.py", 18),
        ("SIZE", "baselines/system.py", 14),
        ("evaluating", "evaluation_mode.py", 2),
        ("evaluation_mode.evaluating", "evaluation_mode.py", 2),
        ("evaluation_mode", "evaluation_mode.py", 1),
    ],
)
def test_a_name_leads_to_the_line_that_defines_it(module, name, file, line):
    assert MODULE.splitlines()[13] == "SIZE: int = 3"
    assert equations.place_of(name, module) == (module.parents[1] / file, line)


@pytest.mark.parametrize(
    "name", ["missing", "C.missing", "nn.missing.f", "evaluation_mode.missing"]
)
def test_a_name_that_nothing_defines_leads_nowhere(module, name):
    assert equations.place_of(name, module) is None


def test_a_map_is_a_table_and_its_text_is_text(module):
    found = equations.table("    (1) a < b   `f`\n            `missing`", module)
    target = f"{equations.SOURCE}cxrtut/baselines/system.py#L15"
    assert f'<td>(1) a &lt; b</td><td><a href="{target}">f</a><br>missing</td>' in found


def test_a_deeper_line_goes_on_with_its_row():
    lines = "Equations\n    (3) L: max   `f`\n           min   `C.m`, `C`\n    (4) none"
    assert equations.rows(lines) == [
        ("Equations", []), ("(3) L: max\nmin", ["f", "C.m", "C"]), ("(4) none", [])
    ]  # fmt: skip


def test_code_in_a_summary_is_told_from_text():
    paragraph = equations.text_with_code("Returns `x` and $y$.")
    assert [(type(node).__name__, node.astext()) for node in paragraph] == [
        ("Text", "Returns "), ("literal", "x"), ("Text", " and $y$.")
    ]  # fmt: skip
