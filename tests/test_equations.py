"""A paper's equations are found from its module: every name of its map exists, no number lacks."""

import ast
import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cxrtut"
PAPERS = {"biomarker": 3, "disease_masks": 10}  # how many equations a paper numbers
MODULES = {
    f"cxrtut.{path.parent.name}.{path.stem}": ast.get_docstring(ast.parse(path.read_text()))
    for folder in ("papers", "baselines")
    for path in sorted((PACKAGE / folder).glob("*.py"))
    if path.stem != "__init__"
}


def equation_map(docstring: str) -> str:
    """The indented lines below "Equations" and "Steps"."""
    found, inside = [], False
    for line in docstring.splitlines():
        indented = line.startswith(" ")
        inside = line.startswith(("Equations", "Steps")) or (inside and indented)
        if inside and indented:
            found.append(line)
    return "\n".join(found)


MAPS = {module: lines for module, text in MODULES.items() if (lines := equation_map(text or ""))}
NAMES = [(module, n) for module, lines in MAPS.items() for n in re.findall(r"`([\w.]+)`", lines)]


def resolved(module: str, name: str) -> object:
    """An object by the name it has in a module, or by its path from `cxrtut`."""
    rest = name.split(".")
    if (PACKAGE / rest[0]).is_dir():
        found = importlib.import_module(".".join(["cxrtut", *rest[:2]]))
        rest = rest[2:]
    else:
        found = importlib.import_module(module)
    for part in rest:
        declared = part in getattr(found, "__annotations__", {})  # a buffer or a field of a class
        found = getattr(found, part) if not declared else found.__annotations__[part]
    return found


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_what_the_map_names_exists(module, name):
    assert resolved(module, name) is not None


@pytest.mark.parametrize("name", ["loss_3", "losses.nothing", "losses.perceptual.nothing"])
def test_what_does_not_exist_is_noticed(name):
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolved("cxrtut.papers.biomarker", name)


def test_every_paper_and_every_system_it_compares_with_has_a_map():
    plain = {"cxrtut.baselines.classifier"}  # no system of a paper: a network and cross-entropy
    assert set(MODULES) - set(MAPS) <= plain | {"cxrtut.baselines.point_gan"}
    assert {module.rpartition(".")[2] for module in MODULES if ".papers." in module} == set(PAPERS)


@pytest.mark.parametrize(("paper", "equations"), PAPERS.items())
def test_every_numbered_equation_has_its_line(paper, equations):
    lines = MAPS[f"cxrtut.papers.{paper}"]
    numbers = [int(n) for n in re.findall(r"^ +\((\d+)\)", lines, re.MULTILINE)]
    assert numbers == list(range(1, equations + 1))
