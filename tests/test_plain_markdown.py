"""Each construct of MyST that pages use, and what becomes of it in a notebook."""

import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
sys.path += [str(BOOK), str(BOOK / "_extensions")]
from book_error import BookError  # noqa: E402
from citations import Citations, prefix_of  # noqa: E402
from plain_markdown import REFERENCES_HERE, Page  # noqa: E402

WORKS = r"""
@misc{one, title={On {CAM}s}, author={Kim, Euyoung and Lee, Soo and Wu, Ann}, year={2021a},
      eprint={2110.12984}, archiveprefix={arXiv}}
@article{two, title={A_b $5}, author={R{\"o}ntgen, Wilhelm and Berliner, Anna}, year={1901},
         journal={Annalen}, pages={1--9}, doi={10.1000/x}}
@book{three, title={Shadows}, author={Abel, Ida}, year={1999}, publisher={Press},
      address={Berlin}}
@misc{four, title={A page}, author={Zorn, Max}, year={2000}, url={https://zorn.org/a}}
"""
URL = "https://cxrtut.github.io/cxrtut/"
RAW = "https://raw.githubusercontent.com/cxrtut/cxrtut/v1.2.3/book/"


@pytest.fixture
def book(tmp_path):
    files = {
        "references.bib": WORKS,
        "_static/chart.svg": "<svg/>",
        "part/page.md": "# This page\n",
        "part/other.md": "---\nx: y\n---\n\n# The other page\n",
        "words.md": "# Words\n\n```{glossary}\nHealthy twin\n  The same.\n```\n",
    }
    for name, text in files.items():
        path = tmp_path / "book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    package = tmp_path / "cxrtut" / "localize"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text('"""Maps."""\n')
    (package / "cam.py").write_text("def cam(): ...\nclass Map:\n    def top(self): ...\n")
    (package.parent / "files.py").write_text("def whole(): ...\n")
    return tmp_path / "book"


@pytest.fixture
def page(book):
    return Page("part/page", book, "1.2.3", Citations(book / "references.bib", "p-"))


CONVERTED = {
    "Seen by {cite:t}`p-one` first": (
        "Seen by Kim *et al.* [[2021a](https://arxiv.org/abs/2110.12984)] first"
    ),
    "{cite:t}`two`": "Röntgen and Berliner [[1901](https://doi.org/10.1000/x)]",
    "so {cite:p}`p-one,p-three,p-four`.": (
        "so [[Abel, 1999](#References), [Kim *et al.*, 2021a](https://arxiv.org/abs/2110.12984), "
        "[Zorn, 2000](https://zorn.org/a)]."
    ),
    "see {doc}`other`": f"see [The other page]({URL}part/other.html)",
    "see {doc}`this <../words>`": f"see [this]({URL}words.html)",
    "in [](other.md), [there](../words.md#axes)": (
        f"in [The other page]({URL}part/other.html), [there]({URL}words.html#axes)"
    ),
    "[above](#cam) and [out](https://a.org)": (
        f"[above]({URL}part/page.html#cam) and [out](https://a.org)"
    ),
    "a {term}`healthy twin`, {term}`two <Healthy twin>`": (
        f"a [healthy twin]({URL}words.html#term-Healthy-twin), "
        f"[two]({URL}words.html#term-Healthy-twin)"
    ),
    "{py:func}`cxrtut.localize.cam.cam`": (
        f"[`cxrtut.localize.cam.cam()`]({URL}appendix/api/localize.html#cxrtut.localize.cam.cam)"
    ),
    "{py:meth}`~cxrtut.localize.cam.Map.top`": (
        f"[`top()`]({URL}appendix/api/localize.html#cxrtut.localize.cam.Map.top)"
    ),
    "{py:func}`so <cxrtut.files.whole>`": (
        f"[so]({URL}appendix/api/cxrtut.html#cxrtut.files.whole)"
    ),
    "H{sub}`2`O, {math}`a_b`": "H<sub>2</sub>O, $a_b$",
    "`{cite:t}` in code, then {cite:t}`p-four`": (
        "`{cite:t}` in code, then Zorn [[2000](https://zorn.org/a)]"
    ),
    "- a\n  {doc}`other`\n- b {doc}`other`": (
        f"- a\n  [The other page]({URL}part/other.html)\n- b [The other page]({URL}part/other.html)"
    ),
    "over two lines, {doc}`here it\n is <other>`": (
        f"over two lines, [here it  is]({URL}part/other.html)"
    ),
    "| a | b |\n|---|---|\n| {doc}`other` | {doc}`../words` |": (
        "| a | b |\n|---|---|\n"
        f"| [The other page]({URL}part/other.html) | [Words]({URL}words.html) |"
    ),
    "```{figure} ../_static/chart.svg\n:alt: Boxes [two], arrows\n:width: 100%\n\nFigure 1. One\n"
    "of *two*.\n```": (
        f"![Boxes \\[two\\], arrows]({RAW}_static/chart.svg)\n\n<em>Figure 1. One of *two*.</em>"
    ),
    "```{figure} ../_static/chart.svg\n---\nalt: Boxes\n  and arrows\n---\nPlain.\n```": (
        f"![Boxes and arrows]({RAW}_static/chart.svg)\n\n*Plain.*"
    ),
    "![Boxes](../_static/chart.svg)": f"![Boxes]({RAW}_static/chart.svg)",
    "```{admonition} What it *costs*\n:class: cost-box\nLittle:\n\n- `smoke`: one\n- more\n```": (
        "> **What it *costs***\n>\n> Little:\n>\n> - `smoke`: one\n> - more"
    ),
    ":::{note}\nSee {doc}`other`.\n:::": (
        f"> **Note**\n>\n> See [The other page]({URL}part/other.html)."
    ),
    "```{tip} In short\nlittle\n```": "> **Tip**\n>\n> In short\n> little",
    "```{warning}\nSo $a\n= b$ is\n\n$$c\n= d$$\n```": (
        "> **Warning**\n>\n> So $a = b$ is\n>\n> $$c = d$$"
    ),
    "1. One?\n\n```{dropdown} Solutions\n**1.** $x$\n\n$$y\nz$$\n```\n\nAfter": (
        "1. One?\n\n<details>\n<summary><b>Solutions</b></summary>\n\n**1.** $x$\n\n$$y\nz$$\n\n"
        "</details>\n\nAfter"
    ),
    "````{admonition} Fold\n:class: dropdown\n```{note}\nIn it\n```\n````": (
        "<details>\n<summary><b>Fold</b></summary>\n\n> **Note**\n>\n> In it\n\n</details>"
    ),
    "Term\n: What it\n  is\n\nOther *one*\n: Two\n\n  - parts": (
        "- **Term**: What it\n  is\n- **Other *one***: Two\n\n  - parts"
    ),
    "```{table} Table 1. Of two\n| a |\n|---|\n| {doc}`other` |\n```": (
        f"*Table 1. Of two*\n\n| a |\n|---|\n| [The other page]({URL}part/other.html) |"
    ),
    "```{math}\na = b\n```": "$$\na = b\n$$",
    "```{code-block} python\nx = 1\n```": "```python\nx = 1\n```",
    "```python\n{cite:t}`p-one`\n```": "```python\n{cite:t}`p-one`\n```",
    "(there)=\n## Here\n\n% nobody reads this\n\nText": "\n## Here\n\n\n\nText",
    "## References\n\n```{bibliography}\n:filter: docname in docnames\n```": (
        f"## References\n\n{REFERENCES_HERE}"
    ),
    "Plain $a$, **b**, <br> and\n\n$$c$$\n\n> quoted": (
        "Plain $a$, **b**, <br> and\n\n$$c$$\n\n> quoted"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "plain"), CONVERTED.items(), ids=range(len(CONVERTED)))
def test_a_construct_becomes_plain_markdown(page, text, plain):
    assert page.plain(text) == plain


REFUSED = {
    "{cite:t}`p-nobody`": "no work 'p-nobody' in the bibliography",
    "{cite:author}`p-one`": r"no plain form is known of the role \{cite:author\}",
    "{doc}`nowhere`": "there is no page nowhere",
    "[](nowhere.md)": "there is no page nowhere",
    "[](#here)": "needs a text",
    "{term}`hilum`": "no glossary of the book has the word 'hilum'",
    "{py:func}`cxrtut.localize.cam.gone`": "the library has no cxrtut.localize.cam.gone",
    "{numref}`x`": r"no plain form is known of the role \{numref\}",
    "```{sidebar} x\n```": r"no plain form is known of the directive \{sidebar\}",
    ":::{grid} 2\n:::": r"no plain form is known of the directive \{grid\}",
    "```{figure} gone.svg\n:alt: x\n```": "there is no picture gone.svg",
    "```{figure} ../_static/chart.svg\n```": "chart.svg has no alternative text",
    "- x\n\n  ```{note}\n  y\n  ```": "stands inside a list",
    "$$a$$ (eq)": "write the formula without a label",
    "\\begin{align}\na\n\\end{align}": r"write the formula between \$\$",
    "{{ version }}": "write what stands for it",
    "so[^1] it is": r"footnote: \[\^1\]",
    "so[^1] it is\n\n[^1]: Foot": "footnote",
    "```{note}\n{{ deep }}\n```": "write what stands for it",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_known_is_an_error_that_names_the_page(page, text):
    with pytest.raises(BookError, match=REFUSED[text]) as caught:
        page.plain(text)
    assert str(caught.value).startswith("book/part/page.md: ")
    assert str(caught.value).count("part/page.md") == 1


def test_references_are_those_that_were_cited_in_their_order(page):
    page.plain("{cite:p}`p-two,p-three` and {cite:t}`p-one`")
    assert page.citations.references().split("\n\n") == [
        '<a name="References"></a>',
        "**Abel, 1999.** Ida Abel. *Shadows*. Press, Berlin, 1999.",
        "**Kim et al., 2021a.** Euyoung Kim, Soo Lee, and Ann Wu. On CAMs. 2021a. "
        "[arXiv:2110.12984](https://arxiv.org/abs/2110.12984).",
        r"**Röntgen and Berliner, 1901.** Wilhelm Röntgen and Anna Berliner. A\_b \$5. *Annalen*, "
        "pages 1–9, 1901. [doi:10.1000/x](https://doi.org/10.1000/x).",
    ]


def test_the_prefix_of_keys_is_that_of_the_bibliography():
    assert prefix_of(["# A", "```{bibliography}\n:filter: x\n:keyprefix: b-\n```"]) == "b-"
    assert prefix_of(["# A"]) == ""


def test_citations_read_as_in_the_built_book():
    """Taken from the HTML that sphinxcontrib-bibtex makes of the same keys."""
    works = Citations(BOOK / "references.bib", "d-")
    found = works.parenthetical("d-wang2017chestxray8,d-cai2018mining,d-liu2019align")
    assert found == (
        "[[Cai *et al.*, 2018](#References), [Liu *et al.*, 2019](#References), "
        "[Wang *et al.*, 2017](#References)]"
    )
    assert works.textual("arjovsky2017principled").startswith("Arjovsky and Bottou [[2017](")
