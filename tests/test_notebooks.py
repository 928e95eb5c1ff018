"""The pages as notebooks for Jupyter and Colab: nothing of MyST is left, and Colab's format."""

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

import cxrtut
from cxrtut.experiments.registered import COMPARISONS
from cxrtut.experiments.runtime import PRESETS

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
sys.path += [str(BOOK), str(BOOK / "_extensions")]
from addresses import notebook_on_colab, page_in_the_book  # noqa: E402
from book_error import BookError  # noqa: E402
from notebooks import form, plain_notebook  # noqa: E402
from page_syntax import EXTENSIONS  # noqa: E402

_spec = importlib.util.spec_from_file_location("build_for_notebooks", BOOK / "build.py")
assert _spec is not None and _spec.loader is not None
BUILDER = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(BUILDER)
PAGES = BUILDER.all_pages()
FENCED = re.compile(r"^(`{3,}).*?^\1`*$", re.DOTALL | re.MULTILINE)
# What a reader of a notebook would take for a mistake.
LEFT = (
    r"```+\{", r":::", r"\{(?:cite|doc|ref|eq|term|numref|py)[:}]", r"\{(?:figure|bibliography)\}",
    r"^:[a-z]+:(?: |$)", r"^\([a-z-]+\)=$", r"\]\([^)#h]", r"\0", r"^: ", r"\[\^",
)  # fmt: skip


def notebook_of(page):
    return plain_notebook(page, BUILDER.read_notebook(page), BOOK, cxrtut.__version__, PRESETS)


@pytest.fixture(params=PAGES)
def page(request):
    return request.param


@pytest.fixture
def notebook(page):
    return notebook_of(page)


def test_nothing_of_myst_is_left(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"(`+)[^`\n]+\1", "", cell.source)
            for pattern in LEFT:
                found = re.search(pattern, text, flags=re.MULTILINE)
                assert found is None, f"{found and found[0]!r} in {text[:200]}"


def test_formulas_and_folds_are_balanced(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"`[^`]*`", "", FENCED.sub("", cell.source)).replace("\\$", "")
            assert text.count("$$") % 2 == 0, text
            assert text.replace("$$", "").count("$") % 2 == 0, text
            assert text.count("<details>") == text.count("</details>"), text
            for fold in re.findall(r"<details>.*?</details>", text, flags=re.DOTALL):
                assert "</summary>\n\n" in fold and fold.endswith("\n\n</details>")


def test_it_is_a_valid_notebook_that_asks_for_a_gpu_and_was_not_run(notebook, tmp_path):
    nbformat.write(notebook, tmp_path / "a.ipynb")
    read = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    nbformat.validate(read)
    assert read.metadata["accelerator"] == "GPU"
    assert read.metadata["colab"] == {"gpuType": "T4", "provenance": []}
    assert read.metadata["kernelspec"]["name"] == "python3"
    code = [cell for cell in read.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_it_begins_with_title_badge_and_the_way_back(page, notebook):
    title, empty, links = notebook.cells[0].source.splitlines()[:3]
    assert title.startswith("# ") and empty == ""
    assert links.startswith("[![Open in Colab](") and f"]({notebook_on_colab(page)})" in links
    assert f"({page_in_the_book(page)})" in links


def test_works_that_are_cited_are_listed_at_the_end(notebook):
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    if not any("#References" in text for text in texts):
        pytest.skip("cites nothing without an address of its own")
    last = texts[-1].partition("## References\n\n<a name=")[2]
    cited = {name for text in texts for name in re.findall(r"\[([^\[\]]+), \d{4}\w?\]\(", text)}
    assert all(f"**{name.replace('*', '')}, " in last for name in cited)


def test_the_parameters_are_a_form_with_all_presets(notebook):
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert cell.metadata["cellView"] == "form"
    first, *lines = cell.source.splitlines()
    assert first == "# @title Parameters"
    offered = re.search(r'^preset = "\w+"  # @param (\[.*\])$', cell.source, flags=re.MULTILINE)
    assert json.loads(offered[1]) == list(PRESETS)
    assert 'seed = 0  # @param {"type": "integer"}' in lines
    assert {type(node) for node in ast.parse(cell.source).body} == {ast.Assign}


def test_folded_cells_are_folded_on_colab_and_in_jupyter(page, notebook):
    hidden = {"hide-cell", "hide-input", "remove-input"}
    sources = {cell["id"]: cell for cell in notebook.cells}
    for cell in BUILDER.read_notebook(page).cells:
        if hidden & set(cell.metadata.get("tags", [])):
            made = sources[cell["id"]]
            assert made.source.startswith("# @title ") and made.source.endswith(cell.source)
            assert made.metadata["cellView"] == "form"
            assert made.metadata["jupyter"] == {"source_hidden": True}


# By hand


FRONT = "---\njupytext:\n  text_representation:\n    format_name: myst\n---\n"
SMALL = """# Small

```{code-cell} python
:tags: [parameters]
preset = "colab"
seed = 0
data_root = ""  # where é is
share = .5
```

## Look

```{code-cell} python
:tags: [remove-cell, nbval-check-output]
scaffold = 1
print(preset)
```

```{code-cell} python
---
tags: [hide-input]
mystnb:
  image:
    alt: a lung
  figure:
    caption: "Figure 2. Seen by {cite:t}`zhou2016cam`."
---
draw(preset)
```

```{code-cell} python
:tags: [hide-input]
Table(rows, caption="Table 1. What it is")
```

```{code-cell} python
:tags: [hide-cell]
import sys
from a import b
```
"""


def small(text=SMALL, name="part/small"):
    notebook = jupytext.reads(FRONT + text, "md:myst")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return plain_notebook(name, notebook, BOOK, "1.2.3", ("smoke", "big"))


def test_a_page_by_hand():
    kinds = [(cell.cell_type, cell.source) for cell in small().cells]
    assert [kind for kind, _ in kinds] == [
        "markdown", "code", "code", "markdown", "code", "markdown", "code", "code", "markdown"
    ]  # fmt: skip
    sources = [source for _, source in kinds]
    assert sources[2] == (
        "# @title Parameters\n"
        'preset = "colab"  # @param ["smoke", "big"]\n'
        'seed = 0  # @param {"type": "integer"}\n'
        "# @markdown where é is\n"
        'data_root = ""  # @param {"type": "string"}\n'
        'share = 0.5  # @param {"type": "number"}'
    )
    assert sources[4] == "# @title Code of Figure 2\ndraw(preset)"
    assert sources[5] == (
        "<em>Figure 2. Seen by Zhou *et al.* [[2016](#References)].</em>"
    )  # fmt: skip
    assert sources[6].startswith("# @title Code of Table 1\n")
    assert sources[7].startswith("# @title Imports\n")
    assert sources[8].startswith("## References\n\n<a name")
    assert not any("scaffold" in source for source in sources)


def test_the_released_library_is_installed_on_colab_alone_and_numpy_and_torch_are_held():
    install = small().cells[1]
    assert install.metadata["cellView"] == "form"
    lines = install.source.splitlines()
    guard = lines.index('if "google.colab" in sys.modules:')
    assert all(line.startswith("    ") for line in lines[guard + 1 :] if line)
    assert lines[-1] == (
        "    %pip install -q https://github.com/cxrtut/cxrtut/archive/refs/tags/v1.2.3.zip {held}"
    )
    plain = "\n".join(lines[guard + 1 : -1]).replace("\n    ", "\n").strip()
    names = {}
    exec(plain, names)
    import numpy
    import torch

    versions = [need.split("==") for need in names["held"].split()]
    assert [name for name, _ in versions] == ["numpy", "torch"]
    assert versions[0][1] == numpy.__version__
    assert versions[1][1].split("+")[0] == torch.__version__.split("+")[0]


def test_a_page_that_installs_by_itself_gets_no_second_install():
    text = SMALL + "\n```{code-cell} python\n!pip install -q x\n```\n"
    assert sum("pip install" in cell.source for cell in small(text).cells) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "\n```{code-cell} python\nscaffold + 1\n```\n", "'scaffold' is used in a note"),
        (SMALL + "\n```{code-cell} python\n:tags: [odd]\n1\n```\n", "of the tag odd"),
        (SMALL.replace("# Small", "Small"), "expected a title in the first line, got 'Small'"),
        (SMALL.replace("{cite:t}", "{odd}"), r"of the role \{odd\}"),
    ],
)
def test_what_cannot_be_in_a_notebook_is_an_error_that_names_the_page(text, said):
    with pytest.raises(BookError, match=said) as caught:
        small(text)
    assert "part/small" in str(caught.value)


def test_what_is_defined_again_may_be_used():
    again = "\n```{code-cell} python\nscaffold = 2\n```\n\n```{code-cell} python\nscaffold\n```\n"
    assert small(SMALL + again).cells[-2].source == "scaffold"


def test_a_parameter_that_is_no_literal_of_a_field_is_refused():
    with pytest.raises(BookError, match="expected assignments in the parameters' cell"):
        form("print(1)", ("smoke",))
    with pytest.raises(BookError, match=r"for sizes, got \[1\]"):
        form("sizes = [1]", ("smoke",))


# Lists that agree


def test_the_syntax_is_that_of_the_configuration():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert sorted(EXTENSIONS) == sorted(config["parse"]["myst_enable_extensions"])
    base = config["sphinx"]["config"].get("html_baseurl", page_in_the_book("")[: -len(".html")])
    assert base == page_in_the_book("")[: -len(".html")]


def test_every_preset_that_is_offered_is_one_of_every_paper_and_cpu_is_for_records_alone():
    for comparison in COMPARISONS.values():
        assert set(comparison.presets) - {"cpu"} == set(PRESETS)


def test_pages_and_notebooks_are_published_from_a_tag_alone_and_together():
    folder = ROOT / ".github" / "workflows"
    flows = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in folder.glob("*.yml")}
    text = {path.stem: path.read_text("utf-8") for path in folder.glob("*.yml")}
    publishing = {n for n, t in text.items() if "deploy-pages" in t or "git push" in t}
    assert publishing == {"release"}
    release = flows["release"]
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    jobs = release["jobs"]
    assert jobs["pages"]["needs"] == jobs["notebooks"]["needs"] == "book"
    assert (
        jobs["book"]["uses"] == "./.github/workflows/book.yml"
        and "workflow_call" in flows["book"][True]
    )
