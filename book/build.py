"""The book's one builder.

    python book/build.py run   [--preset smoke] [--seed 0] [--data-root STORE] [--pages PAGE ...]
                               [--jobs N]
    python book/build.py check [--pages PAGE ...] [--update | --rerun]
    python book/build.py html
    python book/build.py notebooks --out FOLDER

A page is a Markdown file of book/ with a kernelspec in its front matter (jupytext MyST), the only
source. `run` executes pages into build/executed, `check` compares what tagged cells print with
book/goldens, `html` assembles build/source and builds it strictly into build/html, and `notebooks`
writes the pages as notebooks that were not run. What is up to date is left alone. `--data-root`
hands an array store of real images to the pages whose `parameters` cell has `data_root`.
"""

import argparse
import ast
import contextlib
import difflib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from api_pages import OVERVIEW, listing, package_pages
from book_error import BookError
from fingerprint import digest, files_under, store_identity, version_of
from links import broken_links
from offline import VENDORED, WIDGET_SETUP, external_loads, vendor
from outputs import last_cell_begun, printed
from shown_notebook import shown_notebook
from whole_files import replace_folder, write_whole
from workers import Outcome, Stopped, kernel_options, run_each, stop_on_signals

ROOT = Path(__file__).resolve().parents[1]
BOOK, BUILD, EXECUTED = ROOT / "book", ROOT / "build", ROOT / "build" / "executed"
GOLDENS = BOOK / "goldens"
SEED = 0  # of the goldens
KNOWN_OF_A_RUN = {"key", "parameters", "threads", "seconds", "torch"}
# What can change the outputs of a page, besides the page and the library.
VERSIONS = ("torch", "torchvision", "numpy", "opencv-python", "matplotlib", "ipywidgets")
# What can change the HTML, besides the pages, the library and the extensions.
TOOLS = (
    "jupyter-book", "sphinx", "sphinx-book-theme", "pydata-sphinx-theme", "myst-nb", "myst-parser",
    "docutils", "sphinxcontrib-bibtex", "pybtex", "sphinx-external-toc",
)  # fmt: skip


# The pages


def all_pages() -> list[str]:
    """Names of the pages that hold code, such as foundations/radiograph, in alphabetical order."""
    pages = (path for path in BOOK.rglob("*.md") if path.relative_to(BOOK).parts[0][0] != "_")
    return sorted(
        path.relative_to(BOOK).with_suffix("").as_posix()
        for path in pages
        if "kernelspec:" in path.read_text(encoding="utf-8").partition("\n---")[0]
    )


def chosen_pages(names: list[str] | None) -> list[str]:
    pages = all_pages()
    unknown = sorted(set(names or ()) - set(pages))
    if unknown:
        raise BookError(f"No such page: {', '.join(unknown)}. The pages: {', '.join(pages)}")
    return names or pages


def read_notebook(page: str) -> Any:
    """The page as a notebook whose cell ids depend on the page and the cells' content alone."""
    import jupytext

    notebook = jupytext.read(BOOK / f"{page}.md")
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        times = seen[cell.source] = seen.get(cell.source, 0) + 1
        cell["id"] = hashlib.sha256(f"{page}\0{times}\0{cell.source}".encode()).hexdigest()[:12]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def accepted_parameters(notebook: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Those of the wanted parameters that the page's `parameters` cell assigns."""
    cells = (c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    nodes = (node for source in cells for node in ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return {name: value for name, value in wanted.items() if name in names}


# Running pages


def cache_key(page: str, parameters: dict[str, Any], threads: str) -> str:
    """Changes whenever the page's outputs could: source, claims, library, versions, parameters,
    records, the number of threads, and the content of the store that `data_root` names.
    """
    versions = [f"{threads} threads", platform.python_version(), *map(version_of, VERSIONS)]
    stores = [store_identity(Path(parameters["data_root"]))] if "data_root" in parameters else []
    inputs = files_under(ROOT / "cxrtut", BOOK / "weights")
    told = json.dumps(parameters, sort_keys=True)
    own = [BOOK / f"{page}.md"]
    return digest(ROOT, [told, *stores, *versions, *own, *inputs])


def record_of(page: str) -> dict[str, Any]:
    """What is known of the page's last run (`KNOWN_OF_A_RUN`); empty if it has none, or if the file
    that tells of it is broken.
    """
    if not (EXECUTED / f"{page}.ipynb").is_file():
        return {}
    try:
        record = json.loads((EXECUTED / f"{page}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(record, dict) and record.keys() >= KNOWN_OF_A_RUN
    return record if known and isinstance(record["parameters"], dict) else {}


def explain(page: str, error: Exception, output: Path) -> str:
    """Page, cell, source and traceback of a failure, as plain text; of a kernel that is gone, the
    cell alone.
    """
    from nbclient.exceptions import DeadKernelError

    source, trace = getattr(error, "source", None), getattr(error, "traceback", [])
    begun = last_cell_begun(output)
    if isinstance(error, DeadKernelError) and begun is not None:
        source, trace = begun, ["The kernel was gone (for want of memory?) while this cell ran."]
    if source is None and isinstance(error, RuntimeError) and begun is None:
        return f"{page}: expected a kernel of {sys.executable}, got none: {error}"
    if source is None:
        return f"{page}: {''.join(traceback.format_exception(error))}"
    code = [cell.source for cell in read_notebook(page).cells if cell.cell_type == "code"]
    number = f"code cell {code.index(source) + 1}" if source in code else "the injected parameters"
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    line = text.partition(source)[0].count("\n") + 1
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(trace))
    bar = "-" * 76
    return f"book/{page}.md, line {line}, {number}:\n{bar}\n{source}\n{bar}\n{plain}"


def execute(
    page: str, parameters: dict[str, Any], key: str, threads: str, scratch: Path
) -> Outcome:
    """Run one page in the folder of its source; returns page, seconds and the failure, if any."""
    import nbformat
    import papermill

    started = time.perf_counter()
    target, record = EXECUTED / f"{page}.ipynb", EXECUTED / f"{page}.json"
    record.unlink(missing_ok=True)
    target.unlink(missing_ok=True)
    source, output = scratch / "in.ipynb", scratch / "out.ipynb"
    nbformat.write(read_notebook(page), source)
    try:
        papermill.execute_notebook(
            source,
            output,
            parameters,
            cwd=(BOOK / page).parent,
            progress_bar=False,
            start_timeout=300,  # seconds; a busy machine starts a kernel slowly
            **kernel_options(scratch),
        )
    except Exception as error:
        return page, time.perf_counter() - started, explain(page, error, output)
    seconds = time.perf_counter() - started
    write_whole(target, output.read_text(encoding="utf-8"))
    run = {
        "key": key, "parameters": parameters, "threads": threads, "seconds": round(seconds, 1),
        "torch": version_of("torch"),
    }  # fmt: skip
    write_whole(record, json.dumps(run, indent=1))
    return page, seconds, None


def run(names: list[str] | None, wanted: dict[str, Any], jobs: int) -> None:
    """Execute the pages whose inputs changed since their last run.

    `wanted` are parameters (always a preset): a page gets those that its `parameters` cell assigns.
    """
    if "data_root" in wanted and store_identity(Path(wanted["data_root"])) == "absent":
        raise BookError(f"--data-root: expected an array store, got {wanted['data_root']}")
    EXECUTED.mkdir(parents=True, exist_ok=True)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = jobs or min(cpus, len(all_pages()))
    # Whatever else has to be run now: what a page prints may depend on it.
    threads = os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpus // jobs)))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    pages, waiting = chosen_pages(names), []
    for page in pages:
        parameters = accepted_parameters(read_notebook(page), wanted)
        key = cache_key(page, parameters, threads)
        if record_of(page).get("key") == key:
            print(f"run    {page}: unchanged since its last run", flush=True)
        else:
            waiting.append((page, parameters, key, threads))
    if not waiting:
        return
    jobs = min(jobs, len(waiting))
    print(
        f"run    {len(waiting)} of {len(pages)} pages, {jobs} at a time: {wanted['preset']}",
        flush=True,
    )
    failures = []
    with contextlib.closing(run_each(execute, waiting, jobs)) as outcomes:
        for done, (page, seconds, failure) in enumerate(outcomes, start=1):
            state = f"{'FAILED' if failure else 'done'} in {seconds:.1f} s"
            print(f"run    {page}: {state} ({done}/{len(waiting)})", flush=True)
            failures += [failure] if failure else []
    if failures:
        raise BookError("\n\n".join([*failures, f"{len(failures)} page(s) failed."]))


def fresh_notebook(page: str) -> Path:
    """The executed notebook of a page, provided that it belongs to the sources as they are now."""
    record = record_of(page)
    if not record:
        raise BookError(f"{page} has not been run: python book/build.py run --pages {page}")
    if record["key"] != cache_key(page, record["parameters"], record["threads"]):
        raise BookError(f"{page} changed since it was run: python book/build.py run --pages {page}")
    return EXECUTED / f"{page}.ipynb"


# Checking what pages print


def check(names: list[str] | None, update: bool) -> None:
    """Compare what tagged cells print at preset smoke with the goldens, or rewrite those; and look
    at the captions of pictures and tables.
    """
    import nbformat
    from captions import complaints

    wrong = []
    for page in chosen_pages(names):
        notebook, golden = fresh_notebook(page), GOLDENS / f"{page}.json"
        parameters = record_of(page)["parameters"]
        if said := complaints(nbformat.read(notebook, as_version=4)):
            wrong.append("\n".join(f"{page}: {line}" for line in said))
        if "data_root" in parameters:  # a reader's own pictures
            print(f"check  {page}: not compared, goldens hold without a store of real images")
            continue
        preset = parameters.get("preset", "smoke")
        if preset != "smoke":
            print(f"check  {page}: not compared, goldens hold at preset smoke, not {preset}")
            continue
        if (seed := parameters.get("seed", SEED)) != SEED:
            print(f"check  {page}: not compared, goldens hold at seed {SEED}, not {seed}")
            continue
        ours = json.dumps(printed(notebook), indent=1, ensure_ascii=False) + "\n"
        theirs = golden.read_text(encoding="utf-8") if golden.is_file() else "[]\n"
        if update:
            write_whole(golden, ours)
        elif ours != theirs:
            rows = [json_text.replace("\\n", "\n").splitlines() for json_text in (theirs, ours)]
            diff = difflib.unified_diff(*rows, f"book/goldens/{page}.json", "this run", lineterm="")
            wrong.append("\n".join([*diff, "If what the page prints is meant: make goldens"]))
        state = "golden written" if update else "as expected" if ours == theirs else "DIFFERS"
        print(f"check  {page}: {len(json.loads(ours))} tagged cells, {state}", flush=True)
    if wrong:
        raise BookError("\n\n".join(wrong))


def rerun(names: list[str] | None) -> None:
    """Run the executed notebooks once more with nbval: a page must print the same twice."""
    notebooks = [fresh_notebook(page).as_posix() for page in chosen_pages(names)]
    options = ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "-W", "default"]
    # A throw-away configuration file keeps the settings of the library's own tests out of this.
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "pytest.ini")
        settings.touch()
        command = [sys.executable, "-m", "pytest", "-c", str(settings), *options, *notebooks]
        if subprocess.run(command, cwd=ROOT).returncode:
            raise BookError("A page does not print the same when it is run twice; see above.")


# Building the HTML


def assemble(pages: list[str]) -> Path:
    """Copy book/ to build/source, executed notebooks, as they are shown, in the place of their
    pages.
    """
    import nbformat

    source = BUILD / "source"
    executed = {page: fresh_notebook(page) for page in pages}
    files: dict[str, Path] = {}
    for path in files_under(BOOK):
        name = path.relative_to(BOOK).as_posix()
        outside = name.startswith(("_extensions/", "goldens/", "weights/"))
        if not (outside or path.suffix in {".py", ".ipynb"} or name.removesuffix(".md") in pages):
            files[name] = path
    shutil.rmtree(source, ignore_errors=True)
    for name, path in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, source / name)
    for page, path in executed.items():
        shown = shown_notebook(nbformat.read(path, as_version=4), record_of(page))
        write_whole(source / f"{page}.ipynb", nbformat.writes(shown))
    for name, text in package_pages(ROOT / "cxrtut").items():
        write_whole(source / name, text)
    overview = source / OVERVIEW
    write_whole(overview, overview.read_text(encoding="utf-8") + listing(ROOT / "cxrtut"))
    return source


def html_key(source: Path, offline: bool) -> str:
    """Changes whenever the HTML of these sources could."""
    vendored = json.dumps(VENDORED) + WIDGET_SETUP
    inputs = files_under(source, ROOT / "cxrtut", BOOK / "_extensions")
    builder = sorted(BOOK.glob("*.py"))
    tools = map(version_of, TOOLS)
    return digest(ROOT, [str(offline), vendored, *tools, ROOT / "_config.yml", *builder, *inputs])


def build_html() -> None:
    """Assemble the sources and build them; a warning, or a link inside the book that leads nowhere,
    fails, with its text shown.
    """
    source = assemble(all_pages())
    try:
        offline = vendor(BUILD / "vendor" / "offline")
    except ValueError as error:  # not what was published under this name and version
        raise BookError(str(error)) from error
    target, stamp = BUILD / "html", BUILD / "html.key"
    key = html_key(source, offline)
    if (target / "index.html").is_file() and stamp.is_file() and stamp.read_text() == key:
        print(f"html   unchanged: {target / 'index.html'}")
        return
    stamp.unlink(missing_ok=True)
    options = ["--config", ROOT / "_config.yml", "--path-output", BUILD / "sphinx", "-W"]
    jupyter_book = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", jupyter_book, "build", source, *options, "--keep-going", "-q"]
    # Always from scratch: Sphinx would not repeat the warnings of a page that it has already read.
    shutil.rmtree(BUILD / "sphinx", ignore_errors=True)
    print("html   building", flush=True)
    result = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace"
    )
    if result.returncode:
        raise BookError(f"{result.stderr}\nThe book did not build without warnings; see above.")
    replace_folder(BUILD / "sphinx" / "_build" / "html", target)
    if offline:
        for path in target.rglob("*.html"):
            if loads := external_loads(path.read_text(encoding="utf-8")):
                raise BookError(f"{path} would load from the network: {', '.join(loads)}")
    if broken := broken_links(target):
        raise BookError("\n".join(["Links that lead nowhere:", *broken]))
    write_whole(stamp, key)
    print(f"html   {target / 'index.html'}")


def write_notebooks(folder: Path) -> None:
    """Every page as a notebook that was not run, for Jupyter and Colab."""
    import nbformat
    from notebooks import plain_notebook

    from cxrtut import __version__
    from cxrtut.experiments.runtime import PRESETS

    for page in all_pages():
        notebook = plain_notebook(page, read_notebook(page), BOOK, __version__, PRESETS)
        write_whole(folder / f"{page}.ipynb", nbformat.writes(notebook))
        print(f"notebooks  {folder / page}.ipynb")


def main() -> int:
    """The command line; returns its exit code: 0 done, 1 an error, 128 and a signal's number."""
    from cxrtut.experiments.runtime import PRESETS

    parser = argparse.ArgumentParser(description="Run, check and build the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "check"):
        command = commands.add_parser(name)
        command.add_argument("--pages", nargs="+", metavar="PAGE", help="only these pages")
        if name == "run":
            command.add_argument("--preset", default=PRESETS[0], choices=PRESETS)
            command.add_argument("--seed", type=int, default=0)
            command.add_argument(
                "--data-root", metavar="STORE", help="an array store, for pages that take one"
            )
            command.add_argument(
                "--jobs",
                type=int,
                default=0,
                help="pages at a time, which share the cores; 0: one per core",
            )
        if name == "check":
            command.add_argument("--update", action="store_true", help="rewrite the goldens")
            command.add_argument("--rerun", action="store_true", help="run twice, compare (nbval)")
    commands.add_parser("html")
    commands.add_parser("notebooks").add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    sys.path.append(str(BOOK / "_extensions"))  # addresses and citations are those of the HTML
    # What a page shows is kept: nobody watches a bar.
    os.environ["CXRTUT_UNWATCHED"] = "1"
    # Pages import the library of this tree, whichever copy is installed.
    path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    stop_on_signals()
    try:
        obey(asked)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    except Stopped as stopped:
        print("Interrupted; nothing half-written was left behind.", file=sys.stderr)
        return 128 + stopped.number
    return 0


def obey(asked: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    match asked.command:
        case "run":
            wanted = {"preset": asked.preset, "seed": asked.seed}
            if asked.data_root is not None:  # pages run in folders of their own
                wanted["data_root"] = str(Path(asked.data_root).expanduser().resolve())
            run(asked.pages, wanted, asked.jobs)
        case "check" if asked.rerun:
            rerun(asked.pages)
        case "check":
            check(asked.pages, asked.update)
        case "html":
            build_html()
        case "notebooks":
            write_notebooks(asked.out)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from cxrtut.console import run_program

    sys.exit(run_program(main))
