"""The shape of the book's pages, and the book's builder on a book of two small pages."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import pytest
import yaml
from small_book import FRONT, build, make_book

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
GOOD = (
    FRONT
    + """# A page

```{code-cell} python
:tags: [parameters]
preset = "paper"
seed = 0
data_root = ""
```

```{code-cell} python
:tags: [nbval-check-output]
import sys
from cxrtut import ANSWER
print(preset, seed, ANSWER)
print("a warning", file=sys.stderr)
ANSWER + 1
```
"""
)
BAD = (
    FRONT
    + """# A page that fails

```{code-cell} python
fine = 1
```

```{code-cell} python
before = "the line before"
raise ValueError("a reason")
```
"""
)


def load_builder(book: Path) -> ModuleType:
    """The module build.py of a book, together with the module beside it."""
    sys.path.insert(0, str(book))
    try:
        spec = importlib.util.spec_from_file_location("build_of_a_test", book / "build.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(book))
        for path in book.glob("*.py"):
            sys.modules.pop(path.stem, None)


BUILDER = load_builder(BOOK)
PAGES = BUILDER.all_pages()


def cells(page: str, kind: str) -> list[Any]:
    return [cell for cell in BUILDER.read_notebook(page).cells if cell.cell_type == kind]


def tagged(page: str, tag: str) -> list[Any]:
    return [cell for cell in cells(page, "code") if tag in cell.metadata.get("tags", [])]


def python_of(source: str) -> str:
    """A cell without its magics, which Python cannot parse."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


def toc_entries(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (node[key] for key in ("root", "file") if key in node)
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from toc_entries(child)


# The pages


def test_the_table_of_contents_lists_every_page_once() -> None:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    files = [path.relative_to(BOOK).as_posix() for path in BOOK.rglob("*.md")]
    pages = sorted(file for file in files if not file.startswith("_"))  # no drafts
    assert sorted(f"{name}.md" for name in toc_entries(toc)) == pages


@pytest.mark.parametrize("page", PAGES)
def test_a_page_states_its_kernel(page: str) -> None:
    kernel = BUILDER.read_notebook(page).metadata["kernelspec"]
    assert (kernel["name"], kernel.get("language", "python")) == ("python3", "python")


@pytest.mark.parametrize("page", PAGES)
def test_the_parameters_of_a_page_are_literals_and_those_of_colab(page: str) -> None:
    (cell,) = tagged(page, "parameters")
    values = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.Assign), f"not an assignment: {ast.unparse(node)}"
        assert isinstance(node.targets[0], ast.Name)
        values[node.targets[0].id] = ast.literal_eval(node.value)
    assert values["preset"] == "colab"  # a notebook that is opened by itself, on Colab
    assert values["seed"] == 0


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_is_short(page: str) -> None:
    for cell in cells(page, "code"):
        lines = cell.source.splitlines()
        assert len(lines) <= 15, f"{len(lines)} lines in one cell: {lines[0]}"
        assert [line for line in lines if len(line) > 76] == []
        for node in ast.walk(ast.parse(python_of(cell.source))):
            assert not isinstance(node, ast.ClassDef), f"class {node.name}: belongs to the library"
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 10, f"{node.name} has {length} lines: belongs to the library"


def complaints(notebook: Any) -> str:
    """What ruff says of a notebook; imports may come late, cells end with a name or a semicolon."""
    source = jupytext.writes(notebook, "py:percent")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--quiet",
        "--ignore",
        "E402,E501,E703,B018,I001",
        "-",
    ]
    return subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True).stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_passes_the_linter(page: str) -> None:
    assert complaints(BUILDER.read_notebook(page)) == ""


def test_the_linter_finds_a_name_that_does_not_exist() -> None:
    page = GOOD.replace("print(preset, seed", "%pip --version\nprint(present, seed")
    found = complaints(jupytext.reads(page, "md:myst"))
    assert "Undefined name `present`" in found
    assert found.count("-->") == 1


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_has_an_alternative_text(page: str) -> None:
    for cell in cells(page, "code"):
        shown = cell.metadata.get("mystnb", {})
        if "figure" in shown or "image" in shown:
            assert shown.get("image", {}).get("alt"), f"no alt text: {cell.source}"
    for cell in cells(page, "markdown"):
        assert not re.search(r"!\[\]\(", cell.source), "an image without alternative text"
        for options in re.findall(r"```+\{(?:figure|image)\}[^\n]*\n((?::[^\n]*\n)*)", cell.source):
            assert re.search(r"^:alt: \S", options, flags=re.MULTILINE)


def test_built_pages_load_nothing_from_the_network() -> None:
    built = sorted((ROOT / "build" / "html").rglob("*.html"))
    if not built or not (ROOT / "build" / "html" / "offline").is_dir():
        pytest.skip("no book with local scripts in build/html; make book builds one")
    loads = {path.name: BUILDER.external_loads(path.read_text("utf-8")) for path in built}
    assert {name: urls for name, urls in loads.items() if urls} == {}


# The builder, on a book of its own


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a book: a page that works, one that fails, and a library of one constant."""
    root = tmp_path_factory.mktemp("small")
    return make_book(root, {"part/good": GOOD, "bad": BAD})


@pytest.fixture(scope="module")
def first_run(small_book: Path) -> subprocess.CompletedProcess[str]:
    return build(small_book, "run", "--jobs", "2")


def test_a_failing_page_is_named_with_its_cell_and_traceback(
    first_run: subprocess.CompletedProcess[str],
) -> None:
    assert first_run.returncode == 1
    line = BAD.splitlines().index('before = "the line before"') + 1
    assert f"book/bad.md, line {line}, code cell 2:" in first_run.stderr
    assert 'before = "the line before"\nraise ValueError("a reason")' in first_run.stderr
    assert "ValueError: a reason" in first_run.stderr
    assert "\x1b" not in first_run.stderr
    assert "run    bad: FAILED in" in first_run.stdout


def test_the_other_pages_still_run(
    first_run: subprocess.CompletedProcess[str], small_book: Path
) -> None:
    assert "run    part/good: done in" in first_run.stdout
    executed = small_book / "build" / "executed"
    files = {path.relative_to(executed).as_posix() for path in executed.rglob("*.*")}
    assert files == {"part/good.ipynb", "part/good.json"}


def test_the_preset_is_injected_and_the_library_of_the_tree_is_used(
    first_run: subprocess.CompletedProcess[str], small_book: Path
) -> None:
    notebook = small_book / "build" / "executed" / "part" / "good.ipynb"
    assert BUILDER.printed(notebook) == [{"cell": "ANSWER + 1", "prints": "smoke 0 42\n43"}]


def test_what_is_unchanged_is_not_run_again(
    first_run: subprocess.CompletedProcess[str], small_book: Path
) -> None:
    again = build(small_book, "run", "--pages", "part/good")
    assert (again.returncode, again.stdout) == (
        0,
        "run    part/good: unchanged since its last run\n",
    )


def test_goldens_are_compared_and_rewritten(
    first_run: subprocess.CompletedProcess[str], small_book: Path
) -> None:
    pages = ("--pages", "part/good")
    assert build(small_book, "check", "--update", *pages).returncode == 0
    golden = small_book / "book" / "goldens" / "part" / "good.json"
    assert build(small_book, "check", *pages).returncode == 0
    golden.write_text(golden.read_text().replace("42", "41"))
    differs = build(small_book, "check", *pages)
    assert differs.returncode == 1
    assert "41" in differs.stderr and "42" in differs.stderr and "make goldens" in differs.stderr


def test_goldens_are_not_written_from_another_seed_than_the_standard_one(
    small_book: Path,
) -> None:
    (small_book / "book" / "seeded.md").write_text(GOOD)
    pages, golden = ("--pages", "seeded"), small_book / "book" / "goldens" / "seeded.json"
    try:
        assert build(small_book, "run", "--seed", "1", *pages).returncode == 0
        for words in (("check",), ("check", "--update")):
            done = build(small_book, *words, *pages)
            assert done.returncode == 0 and not golden.exists()
            assert "seeded: not compared, goldens hold at seed 0, not 1" in done.stdout
    finally:
        (small_book / "book" / "seeded.md").unlink()
        for path in (small_book / "build" / "executed").glob("seeded.*"):
            path.unlink()


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"key":1,"parameters":3,"threads":"1","seconds":1,"torch":"a"}']
)
def test_a_page_whose_record_is_broken_counts_as_not_run(
    first_run: subprocess.CompletedProcess[str], small_book: Path, text: str
) -> None:
    record = small_book / "build" / "executed" / "part" / "good.json"
    before = record.read_text()
    record.write_text(text)
    try:
        done = build(small_book, "check", "--pages", "part/good")
    finally:
        record.write_text(before)
    assert (done.returncode, done.stderr) == (
        1, "part/good has not been run: python book/build.py run --pages part/good\n"
    )  # fmt: skip


def test_a_changed_library_makes_every_page_stale(
    first_run: subprocess.CompletedProcess[str], small_book: Path
) -> None:
    library = small_book / "cxrtut" / "__init__.py"
    before = library.read_text()
    library.write_text(before.replace("42", "43"))
    try:
        stale = build(small_book, "check", "--pages", "part/good")
    finally:
        library.write_text(before)
    assert stale.returncode == 1
    assert "part/good changed since it was run" in stale.stderr


def test_the_key_follows_source_library_records_weights_claims_and_parameters(
    small_book: Path,
) -> None:
    builder = load_builder(small_book / "book")

    def key(parameters: dict[str, str], page: str = "bad", threads: str = "1") -> str:
        return builder.cache_key(page, parameters, threads)

    keys = [key({"preset": "smoke"}), key({}), key({}, threads="2")]
    added = [
        small_book / name
        for name in (
            "cxrtut/new.py", "cxrtut/a.json", "cxrtut/a.yml", "book/weights/w"
        )
    ]  # fmt: skip
    for path in added:
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
        keys.append(key({}))
    for path in added:
        path.unlink()
    assert len(set(keys)) == 7
    assert key({}) == keys[1]
    assert key({}, "part/good") != keys[1]
    (small_book / "cxrtut" / "__pycache__").mkdir(exist_ok=True)
    (small_book / "cxrtut" / "__pycache__" / "new.pyc").write_text("1")
    assert key({}) == keys[1]


def test_a_store_is_handed_to_the_pages_that_take_one(tmp_path: Path, small_book: Path) -> None:
    (small_book / "book" / "real.md").write_text(GOOD.replace("seed, ANSWER", "seed, data_root"))
    store, pages = tmp_path / "store", ("--pages", "real")
    try:
        refused = build(small_book, "run", "--data-root", str(store), *pages)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == f"--data-root: expected an array store, got {store}\n"
        store.mkdir()
        (store / "store.json").write_text('{"fingerprint": "abc"}')
        # Relative to where the command is given, not to the folder of the page.
        relative = Path(os.path.relpath(store, small_book))
        done = build(small_book, "run", "--data-root", str(relative), *pages)
        assert done.returncode == 0, done.stderr
        notebook = small_book / "build" / "executed" / "real.ipynb"
        assert BUILDER.printed(notebook)[0]["prints"] == f"smoke 0 {store.resolve()}\n43"
        compared = build(small_book, "check", *pages)
        assert compared.returncode == 0
        assert "real: not compared, goldens hold without a store" in compared.stdout
        (store / "store.json").write_text('{"fingerprint": "def"}')
        assert "changed since it was run" in build(small_book, "check", *pages).stderr
    finally:
        (small_book / "book" / "real.md").unlink()
        for path in (small_book / "build" / "executed").glob("real.*"):
            path.unlink()


def test_a_page_without_the_parameter_gets_no_store() -> None:
    notebook = jupytext.reads(GOOD.replace('data_root = ""\n', ""), "md:myst")
    wanted = {"preset": "smoke", "seed": 0, "data_root": "/somewhere"}
    assert BUILDER.accepted_parameters(notebook, wanted) == {"preset": "smoke", "seed": 0}


def test_an_interrupted_copy_leaves_the_former_folder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "new", tmp_path / "html"
    for folder in (source, target):
        folder.mkdir()
        (folder / "index.html").write_text(folder.name)

    def interrupt(_: Path, fresh: Path) -> None:
        fresh.mkdir()
        (fresh / "half.html").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BUILDER.shutil, "copytree", interrupt)
        BUILDER.replace_folder(source, target)
    assert (target / "index.html").read_text() == "html"
    BUILDER.replace_folder(source, target)
    assert (target / "index.html").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["html", "new"]


def test_an_unknown_page_is_answered_with_the_list(small_book: Path) -> None:
    result = build(small_book, "run", "--pages", "part/godo")
    assert result.returncode == 1
    assert "No such page: part/godo. The pages: bad, part/good" in result.stderr


def test_cell_ids_do_not_depend_on_the_cells_before(small_book: Path) -> None:
    builder = load_builder(small_book / "book")
    path = small_book / "book" / "ids.md"
    # The last cell stands there twice: equal cells need different ids.
    text = GOOD + GOOD[GOOD.rindex("```{code-cell}") :]
    path.write_text(text)
    before = [cell["id"] for cell in builder.read_notebook("ids").cells]
    path.write_text(text.replace("# A page", "# A page\n\n```{code-cell} python\n1 + 1\n```\n"))
    after = [cell["id"] for cell in builder.read_notebook("ids").cells]
    path.unlink()
    assert len(set(before)) == len(before)
    assert [name for name in after if name in before] == before


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "page.ipynb"
    BUILDER.write_whole(target, "old")
    monkeypatch.setattr(BUILDER.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        BUILDER.write_whole(target, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"page.ipynb": "old"}


def test_published_notebooks_hold_no_outputs(small_book: Path, tmp_path: Path) -> None:
    assert build(small_book, "notebooks", "--out", str(tmp_path)).returncode == 0
    notebook = json.loads((tmp_path / "part" / "good.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["source"][0] for cell in code] == [
        "# @title Install the library (on Colab only)\n", "# @title Parameters\n", "import sys\n"
    ]  # fmt: skip
    assert "/v1.2.3.zip" in "".join(code[0]["source"])
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
