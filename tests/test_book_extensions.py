"""Tests of the small Sphinx extensions of the book."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pybtex.database import Entry, Person

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "_extensions"
sys.path.append(str(EXTENSIONS))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"extension_{name}", EXTENSIONS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def work(year: str, *authors: str) -> Entry:
    return Entry("misc", {"year": year}, {"author": [Person(author) for author in authors]})


def test_the_colab_link_alone_is_rewritten_to_the_published_notebook() -> None:
    elsewhere = {"text": "Repository", "url": "https://github.com/cxrtut/cxrtut"}
    colab = {"text": "Colab", "url": "https://colab.research.google.com/x/blob/main/book/a.ipynb"}
    context = {"header_buttons": [dict(elsewhere), {"type": "group", "buttons": [dict(colab)]}]}
    load("colab_notebooks").rewrite_colab_link(None, "foundations/radiograph", "", context, None)
    assert context["header_buttons"][0] == elsewhere
    assert context["header_buttons"][1]["buttons"][0]["url"] == (
        "https://colab.research.google.com/github/cxrtut/cxrtut/blob/notebooks/"
        "foundations/radiograph.ipynb"
    )


class Settings(dict[str, Any]):
    html_extra_path: tuple[str, ...] = ()


def test_local_scripts_are_used_where_they_are_present_only(tmp_path: Path) -> None:
    app = SimpleNamespace(srcdir=str(tmp_path / "source"))
    settings = Settings()
    load("offline_assets").use_local_files(app, settings)
    assert settings == {}
    (tmp_path / "vendor" / "offline").mkdir(parents=True)
    load("offline_assets").use_local_files(app, settings)
    assert settings["html_extra_path"] == [(tmp_path / "vendor").as_posix()]
    assert all(how == {"defer": "defer"} for how in settings["nb_ipywidgets_js"].values())
    assert [*settings["nb_ipywidgets_js"], settings["mathjax_path"]] == [
        "../offline/requirejs/require.js",
        "../offline/widget_setup.js",
        "../offline/html-manager/embed-amd.js",
        "../offline/mathjax/tex-mml-chtml.js",
    ]


def test_scripts_that_name_a_cdn_are_left_out() -> None:
    inline = SimpleNamespace(filename=None, attributes={"body": 'const THEBE_JS_URL = "https://x"'})
    script = SimpleNamespace(filename="_static/sphinx-thebe.js", attributes={})
    kept = SimpleNamespace(filename="_static/doctools.js", attributes={})
    context = {"script_files": [inline, kept, script, "_static/plain.js"]}
    load("offline_assets").drop_live_code(None, "index", "", context, None)
    assert context["script_files"] == [kept, "_static/plain.js"]


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        (work("2021a", "Kim, Euyoung", "Lee, Soochahn", "Lee, Kyoung Mu"), "Kim et al., 2021a"),
        (work("2014", "Kingma, Diederik", "Ba, Jimmy"), "Kingma and Ba, 2014"),
        (work("1901", 'R{\\"o}ntgen, Wilhelm'), "Röntgen, 1901"),
    ],
)
def test_a_reference_is_labelled_as_the_text_cites_it(entry: Entry, label: str) -> None:
    assert list(load("author_year").AuthorYearLabels().format_labels([entry])) == [label]
