"""The Readings: their form is held, whole and over the library, and they display as tables."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from textwrap import indent
from types import ModuleType

import pytest

from cxrtut.baselines import chestxray8
from cxrtut.losses import weighted_bce
from cxrtut.papers import biomarker
from cxrtut.viz.readings import GROUPS, breakable, parse, parts, readings, typeset

LIBRARY = Path(__file__).resolve().parents[2] / "cxrtut"
# Its docstring shows the form.
FILES = [path for path in sorted(LIBRARY.rglob("*.py")) if path.name != "readings.py"]
SOURCE = r'''r"""A module: it says much.

Reading (loss, sum or $x$): Nothing is said of
    the `module`.
    Here: We take a & <b>,
        and $x < y$.
    Why: "All" do.
"""

def f():
    """No paragraph of that kind. Reading is not at its beginning."""

class A:
    """First.

    Reading (data, first): One. Here: it goes on.
        Here: Two.
        Why: Three.

    Reading (loss, second): Four.
        Here: $v$ is five.
        Why: Six?
    """

    def m(self):
        """Of m.

        Reading (data, third): Seven.
            Here: Eight.
            Why: Nine.
        """
'''
WHOLE = "Reading (data, a): One.\n    Here: Two.\n    Why: Three."


@pytest.fixture
def said(tmp_path, monkeypatch) -> ModuleType:
    (tmp_path / "said.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "said", raising=False)
    return __import__("said")


# The form


def test_readings_are_found_with_their_parts_object_and_line(said):
    first, *others = readings(said).entries
    assert first == (
        "loss", "sum or $x$", "Nothing is said of the `module`.", "We take a & <b>, and $x < y$.",
        '"All" do.', "said", "said.py", 1, "A module",
    )  # fmt: skip
    found = [(r.group, r.printed, r.here, r.why, r.owner, r.line) for r in others]
    lines = SOURCE.splitlines()
    in_class, in_method = lines.index("class A:") + 1, lines.index("    def m(self):") + 1
    assert found == [
        ("data", "One. Here: it goes on.", "Two.", "Three.", "A", in_class),
        ("loss", "Four.", "$v$ is five.", "Six?", "A", in_class),
        ("data", "Seven.", "Eight.", "Nine.", "A.m", in_method),
    ]


def test_other_paragraphs_are_none():
    assert parts("Reading files is slow.\nThe reasons: disks.") is None
    assert parts(WHOLE) == ("data", "a", "One.", "Two.", "Three.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("Reading (data, a):", "Reading:"), "GROUP, TOPIC"),
        (("Reading (data, a):", "Reading of a result:"), "GROUP, TOPIC"),
        (("(data, a)", "(data)"), "GROUP, TOPIC"),
        (("(data, a)", "(design, a)"), "'design'"),
        (("\n    Why: Three.", ""), r"\['Here'\]"),
        (("Here: Two.\n    Why: Three.", "Why: Three.\n    Here: Two."), r"\['Why', 'Here'\]"),
        (("Three.", "Three.\n    Why: Four."), r"\['Here', 'Why', 'Why'\]"),
        (("    Here", "        Here"), "GROUP, TOPIC"),
        (("    Here", "Here"), "indented"),
        (("Two.", "two."), "'two.'"),
        (("Two.", "Two"), "'Two'"),
        (("Two.", "Two $x."), "closed"),
        (("Two.", "Two `x."), "closed"),
        (("Reading", "    Reading"), "own paragraph"),
        (("Reading", "Before.\nReading"), "own paragraph"),
        (("Reading (data, a): One.", "Before."), "own paragraph"),
    ],
)
def test_a_reading_without_the_form_is_an_error_that_names_file_and_object(change, said):
    source = (
        'class A:\n    """Of a.\n\n'
        + indent(WHOLE.replace(*change), "    ")
        + '\n\n    End.\n    """\n'
    )
    with pytest.raises(ValueError, match=said) as caught:
        parse(source, "cxrtut/nn/a.py")
    assert str(caught.value).startswith("cxrtut/nn/a.py, A: ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_each_reading_of_the_library_has_the_form_and_stands_in_a_docstring(path):
    source = path.read_text(encoding="utf-8")
    begun = re.findall(r"^[ #]*r?(?:\"\"\")?Reading(?::| ?\(| of )", source, re.MULTILINE)
    assert len(parse(source, path.as_posix())) == len(begun)


def test_readings_of_the_library_are_not_about_one_thing_twice():
    found = [r for path in FILES for r in parse(path.read_text(), path.as_posix())]
    assert len(found) > 60 and {r.group for r in found} == set(GROUPS)
    assert len({(r.file, r.topic) for r in found}) == len(found)


def test_the_biomarker_paper_has_its_readings():
    names = [reading.owner for reading in readings(biomarker).entries]
    assert "Biomarker" in names and "Biomarker.critic_loss" in names and len(names) >= 7


# What is displayed


class Cells(HTMLParser):
    """The tables of a page: captions, and the text and links of each cell."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.captions: list[str] = []
        self.cells: list[tuple[str, str]] = []
        self.links: list[str | None] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "wbr":
            return
        self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append((tag, ""))
        if tag == "caption":
            self.captions.append("")
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "caption" in self.open:
            self.captions[-1] += data
        elif self.cells and {"th", "td"} & set(self.open):
            self.cells[-1] = (self.cells[-1][0], self.cells[-1][1] + data)


def test_a_group_is_a_table_with_a_caption_and_links_to_the_source(said):
    shown = Cells(readings(said)._repr_html_())
    assert shown.captions == ["Readings on the data", "Readings on the losses"]
    assert shown.cells[:7] == [
        ("th", "The paper prints"), ("th", "We do"), ("th", "Why"), ("th", "First: A"),
        ("td", "One. Here: it goes on."), ("td", "Two."), ("td", "Three."),
    ]  # fmt: skip
    github = "https://github.com/cxrtut/cxrtut/blob/main/said.py#L"
    line = SOURCE.splitlines().index("class A:") + 1
    assert shown.links == [f"{github}{n}" for n in (line, line + 12, 1, line)]
    assert ("td", r"We take a & <b>, and \(x < y\).") in shown.cells


def test_comparators_are_folded_by_module_and_baselines_are_comparators(said):
    both = readings(biomarker, chestxray8, comparators=(said,))
    assert {r.file for r in both.entries} == {"cxrtut/papers/biomarker.py"}
    html = both._repr_html_()
    before, folded = html.split("<details>")
    assert "chestxray8" not in before
    assert "<summary>Readings on the comparators: 7</summary>" in folded
    assert Cells(folded.removesuffix("</details>")).captions == [
        "The weakly supervised classifier that came with the ChestX-ray8 images", "A module"
    ]  # fmt: skip


def test_a_link_of_the_library_leads_to_the_line_of_its_object():
    (reading, *_) = readings(weighted_bce).entries
    line = (LIBRARY.parent / reading.file).read_text().splitlines()[reading.line - 1]
    assert line == f"def {reading.owner}("


def test_a_terminal_shows_the_three_parts_within_79_columns(said):
    text = repr(readings(said, comparators=(weighted_bce,)))
    assert text.startswith("Readings on the data\n====")
    assert "\n\nThird (A.m)\n  The paper prints: Seven.\n  We do: Eight.\n  Why: Nine.\n" in text
    assert max(map(len, text.splitlines())) <= 79


def test_formulas_and_code_are_typeset_and_text_is_text():
    span = r'<span class="math notranslate nohighlight">\(a_1 &lt; b\)</span><wbr>'
    assert typeset("1 < 2, `a<b` and $a_1 < b$.") == f"1 &lt; 2, <code>a&lt;b</code> and {span}."


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("a = b + c", ["a = b + c"]),
        ("alphabets = betabets + \n gammabets", ["alphabets", "{} = betabets", "{} + gammabets"]),
        (r"\sum_{i + j} (a + b) - \frac{1 + x}{2}",
         [r"\sum_{i + j} (a + b)", r"{} - \frac{1 + x}{2}"]),
        (r"\|alpha - beta\| + |gamma - delta|", [r"\|alpha - beta\|", "{} + |gamma - delta|"]),
        (r" - " + "a" * 30, ["- " + "a" * 30]),
        (r"M = \begin{bmatrix} a + b \\ c - d \end{bmatrix}",
         ["M", r"{} = \begin{bmatrix} a + b \\ c - d \end{bmatrix}"]),
    ],
)  # fmt: skip
def test_a_long_formula_may_end_a_line_before_a_sign_that_no_bracket_encloses(formula, expected):
    assert breakable(formula) == expected


def test_colab_gets_mathjax_with_the_table_and_nobody_else(said, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    assert "<script" not in readings(said)._repr_html_()
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    assert readings(said)._repr_html_().count("<script") == 1
