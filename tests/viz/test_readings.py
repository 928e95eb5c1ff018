"""The collected Readings."""

import sys
from types import ModuleType

from cxrtut.papers import biomarker
from cxrtut.viz.readings import readings

SOURCE = '''"""A module.

Reading: of the
module.
"""

def f():
    """No paragraph of that kind. Reading: not at its beginning."""

class A:
    """First.

    Reading: of `A` & <b>.

    Reading: another.
    """

    def m(self):
        """Reading: of m."""
'''


def module_of(tmp_path, monkeypatch) -> ModuleType:
    (tmp_path / "said.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "said", raising=False)
    return __import__("said")


def test_paragraphs_are_found_with_the_object_they_belong_to(tmp_path, monkeypatch):
    found = readings(module_of(tmp_path, monkeypatch))
    assert found.entries == (
        ("said", "of the module."), ("A", "of `A` & <b>."), ("A", "another."), ("A.m", "of m."),
    )  # fmt: skip
    assert repr(found).splitlines()[0] == "said: of the module."


def test_they_display_as_a_list_with_code_and_nothing_unescaped(tmp_path, monkeypatch):
    html = readings(module_of(tmp_path, monkeypatch))._repr_html_()
    assert "<dt><code>A.m</code></dt><dd>of m.</dd>" in html
    assert "of <code>A</code> &amp; &lt;b&gt;." in html


def test_the_biomarker_paper_has_its_readings():
    names = [name for name, _ in readings(biomarker).entries]
    assert "Biomarker" in names and "Biomarker.critic_loss" in names and len(names) >= 7
