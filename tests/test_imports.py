"""Who may import whom, and that importing the library does nothing."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cxrtut"
GROUND = ("randomness", "files", "evaluation_mode", "console")
FLOOR = ("data", "nn", "losses", "localize", "metrics", "viz", "engine")
METHODS = ("papers", "baselines", "evaluation", "records")
# A package may import itself and what is named here. What is not named is a program on top.
ALLOWED = {
    **{name: set() for name in GROUND},
    **{name: {*GROUND} for name in FLOOR},
    **{name: {*FLOOR, *GROUND} for name in METHODS},
    **{name: {*METHODS, *FLOOR, *GROUND} for name in ("experiments", "foundations")},
}
PROGRAMS = {"__main__", "usage", "bench"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str, source: str, is_package: bool) -> Iterator[str]:
    """Modules of cxrtut that a source imports, anywhere in it; relative imports resolved."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "cxrtut")
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join([*start, node.module or ""] if node.level else [node.module or ""])
            origin = origin.strip(".")
            if origin.split(".")[0] != "cxrtut":
                continue
            for name in node.names:
                inner = f"{origin}.{name.name}"
                yield inner if inner in MODULES else origin


def forbidden(module: str, imported: str) -> bool:
    """Whether the direction of this import is against the house rules."""
    here, there = (name.split(".")[1] if "." in name else "" for name in (module, imported))
    if module == "cxrtut":  # the user's names, loaded when they are asked for
        return False
    if not there or here == there:
        # The papers stand side by side: one paper never builds on another.
        return here == "papers" and module != imported and imported != "cxrtut.papers"
    return here not in PROGRAMS and there not in ALLOWED.get(here, set())


def imports_in(path: Path) -> set[str]:
    is_package = path.name == "__init__.py"
    return set(imports_of(module_name(path), path.read_text(encoding="utf-8"), is_package))


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph as a path that ends where it began, or an empty list."""
    finished: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in finished:
            return []
        for follower in sorted(graph.get(node, set()) - {node}):
            if circle := walk(follower, [*path, node]):
                return circle
        finished.add(node)
        return []

    return next((circle for node in sorted(graph) if (circle := walk(node, []))), [])


def in_fresh_python(code: str, folder: Path) -> str:
    """What a new interpreter prints that runs the code in a folder."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_in_the_direction_of_the_house_only(module: str) -> None:
    wrong = sorted(name for name in imports_in(MODULES[module]) if forbidden(module, name))
    assert not wrong, f"{module} may not import {', '.join(wrong)}"


@pytest.mark.parametrize(
    ("module", "source", "is_wrong"),
    [
        ("cxrtut.data.nih", "from cxrtut.metrics.detection import froc", True),
        ("cxrtut.data.nih", "from ..viz import images", True),
        ("cxrtut.data.nih", "from cxrtut.data.sample import Batch", False),
        ("cxrtut.losses.adversarial", "import cxrtut.papers.biomarker", True),
        ("cxrtut.papers.granet", "def f():\n    from cxrtut.papers.biomarker import G", True),
        ("cxrtut.papers.granet", "from cxrtut.nn.unet import UNet", False),
        ("cxrtut.papers.granet", "from cxrtut.baselines.stargan import G", True),
        ("cxrtut.experiments.granet", "from cxrtut.papers.granet import G", False),
        ("cxrtut.data.nih", "from cxrtut import bench", True),
        ("cxrtut.__main__", "from cxrtut import bench, papers", False),
    ],
)
def test_the_direction_is_read_from_every_form_of_import(
    module: str, source: str, is_wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODULES, "cxrtut.bench", PACKAGE / "bench.py")
    monkeypatch.setitem(MODULES, "cxrtut.viz.images", PACKAGE / "viz" / "images.py")
    found = [name for name in imports_of(module, source, False) if forbidden(module, name)]
    assert bool(found) == is_wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    lazy = {"cxrtut"}  # the user's names, loaded when they are asked for
    graph = {module: imports_in(path) for module, path in MODULES.items() if module not in lazy}
    circle = find_circle(graph)
    assert not circle, " -> ".join(circle)


def test_a_circle_is_found_and_named() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def lazily_random(source: str) -> bool:
    """Whether a source uses `np.random`, which numpy loads when it is first used: an interrupt that
    comes while its compiled modules are loaded is swallowed there, and a program goes on.
    """
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "random"
        and isinstance(node.value, ast.Name)
        and node.value.id in ("np", "numpy")
        for node in ast.walk(ast.parse(source))
    )


def test_random_numbers_of_numpy_are_loaded_with_the_program() -> None:
    paths = [*MODULES.values(), *sorted((ROOT / "data_scripts").glob("*.py"))]
    wrong = [path.name for path in paths if lazily_random(path.read_text(encoding="utf-8"))]
    assert not wrong, f"from numpy.random import ..., in {', '.join(wrong)}"
    assert lazily_random("np.random.default_rng(0)")


def test_drawing_images_loads_no_compiled_module_while_it_works(tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "from cxrtut.data.phantom import ChestPhantom\n"
        "before = set(sys.modules)\n"
        "ChestPhantom(32, prevalence=0.5).sample(torch.arange(4))\n"
        "late = {name: sys.modules[name] for name in set(sys.modules) - before}\n"
        "print([n for n, m in late.items() if str(getattr(m, '__file__', '')).endswith('.so')])"
    )
    assert in_fresh_python(code, tmp_path).strip() == "[]"


def test_importing_the_package_imports_nothing_else(tmp_path: Path) -> None:
    code = "import cxrtut; print([m for m in ('torch', 'numpy', 'cv2') if m in sys.modules])"
    assert in_fresh_python(code, tmp_path).strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_importing_the_data_modules_does_nothing(tmp_path: Path) -> None:
    names = [name for name in MODULES if name.split(".")[1:2] == ["data"]]
    # torch, numpy and OpenCV are what these modules are made of (OpenCV sets variables of its own).
    # A connection raises; seeding, other settings and heavy imports show.
    code = f"""
import importlib, json, os, random, socket
import cv2, numpy, torch
def refuse(*_):
    raise RuntimeError("an import opened a connection")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
def states():
    return [torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state()),
            torch.get_num_threads(), torch.get_default_dtype()]
before = states(), dict(os.environ)
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps({{
    "unchanged": (states(), dict(os.environ)) == before,
    "loaded": [m for m in ("torchvision", "matplotlib", "IPython", "pydicom") if m in sys.modules],
}}))
"""
    seen = json.loads(in_fresh_python(code, tmp_path))
    assert seen == {"unchanged": True, "loaded": []}
    assert list(tmp_path.iterdir()) == []


def tracked_sources() -> list[Path]:
    folders = ("cxrtut", "tests", "data_scripts", "book")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_file_is_named_after_a_subject() -> None:
    homeless = re.compile(r"(utils?|misc|helpers?|common|base)")
    assert [path for path in tracked_sources() if homeless.fullmatch(path.stem)] == []


def test_no_file_has_more_than_450_lines() -> None:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in tracked_sources()}
    assert {path: length for path, length in lengths.items() if length > 450} == {}
