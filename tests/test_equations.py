"""A paper's equations are found from its module: every name of its map leads to a line, no number
lacks, every formula is TeX, and the book's page of equations links and typesets them.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docutils import nodes
from matplotlib.mathtext import MathTextParser

from cxrtut.viz import readings

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "book" / "_extensions"))  # as Sphinx does

import equations  # noqa: E402

PAPERS = {
    "biomarker": 3,
    "disease_masks": 10,
    "pillet_gan": 13,
    "pix2pix": 3,
    "granet": 4,
}  # equations that each numbers
MODULES = sorted((ROOT / "cxrtut").rglob("*.py"))
MAPS = {
    path: lines
    for path in MODULES
    if (lines := equations.equation_map(ast.get_docstring(ast.parse(path.read_text())) or ""))
}
SYSTEMS = {
    path: lines for path, lines in MAPS.items() if path.parent.name in ("papers", "baselines")
}
NAMES = [(path, name) for path, lines in MAPS.items() for name in re.findall("`(.+?)`", lines)]
# What the library's formulas are made of, all of it known to MathJax without an extension.
COMMANDS = re.findall(
    r"\w+",
    "min max sum prod frac log ln exp cos sin tanh hat bar mathrm begin end cdot notin in times "
    "geq sim odot tilde lambda delta eta theta psi sigma beta omega varphi",
)


@pytest.mark.parametrize(("path", "name"), NAMES, ids=[f"{p.stem}-{n}" for p, n in NAMES])
def test_what_a_map_names_has_a_line_in_the_source(path, name):
    file, line = equations.place_of(name, path)
    last = name.rpartition(".")[2]
    assert last in file.read_text().splitlines()[line - 1] or file.stem == last


def test_every_paper_and_every_system_it_compares_with_has_a_map():
    found = {f"{path.parent.name}/{path.stem}" for path in SYSTEMS}
    baselines = {
        "attention_mining", "chestxray8", "chexnet", "contrast_attention", "cyclegan", "dgm",
        "fixed_point_gan", "limited_supervision", "munit", "pyolo", "stargan", "vagan", "yolov3",
    }  # fmt: skip
    assert found == {f"papers/{p}" for p in PAPERS} | {f"baselines/{b}" for b in baselines}


@pytest.mark.parametrize(("paper", "numbered"), PAPERS.items())
def test_every_numbered_equation_has_its_line(paper, numbered):
    lines = SYSTEMS[ROOT / "cxrtut" / "papers" / f"{paper}.py"]
    numbers = [int(n) for n in re.findall(r"^ +\((\d+)\)", lines, re.MULTILINE)]
    assert numbers == list(range(1, numbered + 1))


def formulas_of(path: Path) -> list[str]:
    """All $formulas$ in the docstrings of a module."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    found = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]
    texts = [ast.get_docstring(node) or "" for node in found]
    return [" ".join(tex.split()) for text in texts for tex in re.findall(r"\$([^$]+)\$", text)]


FORMULAS = [(path, formula) for path in MODULES for formula in formulas_of(path)]


@pytest.mark.parametrize(("path", "formula"), FORMULAS, ids=[f"{p.stem}-{f}" for p, f in FORMULAS])
def test_a_formula_is_tex(path, formula):
    assert set(re.findall(r"\\([A-Za-z]+)", formula)) <= set(COMMANDS)
    # A reader of TeX that is not MathJax; it knows no matrix, only what is in one.
    opened, closed = (rf"\{word}{{bmatrix}}" for word in ("begin", "end"))
    assert formula.count(opened) == formula.count(closed) == formula.count("&") // 4
    body = formula.replace(opened, "").replace(closed, "").replace("&", "").replace(r"\\", "")
    MathTextParser("path").parse(f"${body}$")


def test_every_equation_of_the_papers_is_a_formula():
    for lines in SYSTEMS.values():
        for said, code in equations.rows(lines):
            assert "`" in code or said.startswith(equations.HEADINGS)
            assert "$" in said or not re.match(r"\(\d+\)", said)


MODULE = '''"""A system.

Somebody, Something, 2020.

Equations
    (1) $a < b$    `f`
                   `C.m`, `C.kept`
Steps
    Section 2      `evaluation_mode.evaluating`, `evaluating`, `missing`

Reading (loss, much): One.
    Here: Two.
    Why: $x$ is three.
"""
from cxrtut.evaluation_mode import evaluating
SIZE: int = 3
def f(): ...
class C:
    kept: int
    def m(self):
        """Of m."""
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
        ("f", "baselines/system.py", 17),
        ("C", "baselines/system.py", 18),
        ("C.kept", "baselines/system.py", 19),
        ("C.m", "baselines/system.py", 20),
        ("SIZE", "baselines/system.py", 16),
        ("evaluating", "evaluation_mode.py", 2),
        ("evaluation_mode.evaluating", "evaluation_mode.py", 2),
        ("evaluation_mode", "evaluation_mode.py", 1),
    ],
)
def test_a_name_leads_to_the_line_that_defines_it(module, name, file, line):
    assert MODULE.splitlines()[15] == "SIZE: int = 3"
    assert equations.place_of(name, module) == (module.parents[1] / file, line)


@pytest.mark.parametrize(
    "name", ["missing", "C.missing", "nn.missing.f", "evaluation_mode.missing"]
)
def test_a_name_that_nothing_defines_leads_nowhere(module, name):
    assert equations.place_of(name, module) is None


def test_a_map_is_a_table_and_its_text_is_text(module):
    found = equations.table("    (1) $a < b$ & c   `f` once,\n            `missing`", module)
    target = f"{readings.SOURCE}cxrtut/baselines/system.py#L17"
    formula = r'<span class="math notranslate nohighlight">\(a &lt; b\)</span><wbr>'
    link = f'<a href="{target}"><code>f</code></a>'
    assert f"<td>(1) {formula} &amp; c</td><td>{link} once, missing</td>" in found
    assert "<caption>From the paper to the code of <code>system</code></caption>" in found


def test_a_deeper_line_goes_on_with_its_row():
    lines = (
        "Equations\n    (3) L: max   `f`\n           min   `C.m`, `C`\n"
        "    (4) none\n    (5) a\n       b   `f`"
    )
    assert equations.rows(lines) == [
        ("Equations", ""), ("(3) L: max", "`f` min   `C.m`, `C`"), ("(4) none", ""),
        ("(5) a b", "`f`"),
    ]  # fmt: skip


def test_code_and_formulas_in_a_summary_are_told_from_text():
    paragraph = equations.text_with_code("Returns `x` and $y$.")
    assert [(type(node).__name__, node.astext()) for node in paragraph] == [
        ("Text", "Returns "), ("literal", "x"), ("Text", " and "), ("math", "y"), ("Text", ".")
    ]  # fmt: skip


def test_the_page_has_for_each_module_its_map_and_its_readings(module, monkeypatch):
    directive = object.__new__(equations.Equations)
    (section,) = directive.module(module)
    tables = [node.astext() for node in section.findall(nodes.raw)]
    captions = [re.findall("<caption>(.*?)</caption>", table) for table in tables]
    assert captions == [
        ["From the paper to the code of <code>system</code>"], ["Readings on the losses"]
    ]  # fmt: skip
    assert f'{readings.SOURCE}cxrtut/baselines/system.py#L1"' in tables[1]


def test_a_page_whose_tables_alone_have_formulas_gets_mathjax(tmp_path):
    (tmp_path / "index.md").write_text(
        "# A\n\n```{equations} losses\n```\n\n```{toctree}\nplain\n```\n"
    )
    (tmp_path / "plain.md").write_text("# B\n\n```{equations} engine\n```\n")
    extensions = "extensions=myst_parser,sphinx.ext.mathjax,equations"
    settings = ["-C", "-D", extensions, "-b", "html", "-W", "-q"]
    command = [sys.executable, "-m", "sphinx", *settings, str(tmp_path), str(tmp_path / "out")]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "book" / "_extensions")))
    built = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (built.returncode, built.stderr) == (0, "")
    pages = {name: (tmp_path / "out" / f"{name}.html").read_text() for name in ("index", "plain")}
    assert r"\(\log 2\)" in pages["index"]
    assert ["mathjax" in page for page in pages.values()] == [True, False]
