"""What the built HTML depends on, and its links."""

import importlib.util
import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
sys.path.append(str(BOOK))  # for the modules beside build.py
# By its path: `build` is the name of a package on PyPI, too.
_spec = importlib.util.spec_from_file_location("build_of_the_book", BOOK / "build.py")
assert _spec is not None and _spec.loader is not None
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)


def test_a_link_inside_the_book_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.html").write_text('<p id="here">')
    (tmp_path / "index.html").write_text(
        '<a href="a/b.html">1</a><a href="a/b.html#here">2</a><a href="#top">3</a><a href="#">4</a>'
        '<a href="https://a.org/#x">5</a><a href="mailto:a@b.org">6</a><a name="x" href="#x">7</a>'
        '<a href="a/b.html#there">8</a><a href="#y">9</a><a href="c.html">10</a>'
    )
    assert build.broken_links(tmp_path) == [
        "index.html: #y", "index.html: a/b.html#there", "index.html: c.html"
    ]  # fmt: skip


def test_the_key_of_the_html_follows_the_scripts_and_the_versions_of_its_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [build.html_key(tmp_path, True), build.html_key(tmp_path, False)]
    with monkeypatch.context() as patch:
        patch.setattr(build, "WIDGET_SETUP", "other")
        keys.append(build.html_key(tmp_path, True))
    for tool in ("myst-parser", "docutils", "sphinxcontrib-bibtex"):
        now = build.version_of
        with monkeypatch.context() as patch:
            patch.setattr(build, "version_of", lambda name, tool=tool, now=now: (
                "another" if name == tool else now(name)
            ))  # fmt: skip
            keys.append(build.html_key(tmp_path, True))
    assert len(set(keys)) == 6
    assert build.html_key(tmp_path, True) == keys[0]
