"""What the package requires, and that the lists which say so agree."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import cxrtut

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "opencv-python": "py-opencv", "playwright": "playwright-python"}
IMPORT_NAMES = {"opencv-python": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
# What Google Colab ships (autumn 2026); a requirement above it would move the reader's numpy.
COLAB = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.0.2",
    "opencv-python": "4.13.0",
    "matplotlib": "3.10.0",
    "ipywidgets": "7.7.1",
}


def requirements(*extras: str) -> list[Requirement]:
    """The library's requirements and those of the extras."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][name] for name in extras)]
    return [Requirement(line) for lines in lists for line in lines]


def test_conda_and_pip_ask_for_the_same_packages_and_bounds() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = {Requirement(line).name: str(Requirement(line).specifier)
             for line in environment["dependencies"] if line != "pip"}  # fmt: skip
    pip = {CONDA_NAMES.get(need.name, need.name): str(need.specifier)
           for need in requirements(*PROJECT["optional-dependencies"])}  # fmt: skip
    assert conda == {"python": PROJECT["requires-python"], **pip}


@pytest.mark.parametrize("package", COLAB)
def test_colab_already_meets_the_lower_bound(package: str) -> None:
    (need,) = (need for need in requirements() if need.name == package)
    assert need.specifier.contains(COLAB[package], prereleases=True)


def test_the_library_states_lower_bounds_only() -> None:
    assert {part.operator for need in requirements() for part in need.specifier} == {">="}


def test_the_oldest_versions_that_are_allowed_are_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    rows = {row["torch"]: row for row in workflow["jobs"]["torch"]["strategy"]["matrix"]["include"]}
    tested = [Requirement(line) for line in rows["oldest"]["packages"].split()]
    lower = {need.name: str(need.specifier).removeprefix(">=") for need in requirements()}
    assert {need.name: str(need.specifier) for need in tested} == {
        name: f"=={lower[name]}.*" for name in ("torch", "torchvision", "numpy")
    }
    assert PROJECT["requires-python"] == f">={rows['oldest']['python']}"


def test_every_import_of_the_library_is_required() -> None:
    declared = {
        IMPORT_NAMES.get(need.name, need.name) for need in requirements("dicom", "inception")
    }
    # IPython comes with ipywidgets; it is only ever asked to display.
    known = {*declared, *sys.stdlib_module_names, "cxrtut", "IPython"}
    missing = set()
    for path in sorted((ROOT / "cxrtut").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            missing |= {f"{path.name}: {n}" for n in names if n.split(".")[0] not in known}
    assert missing == set()


def test_the_citation_file_and_the_package_state_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert Version(cxrtut.__version__) == Version(str(citation["version"]))
    assert PROJECT["dynamic"] == ["version"]


def test_make_help_names_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)
    assert targets is not None
    command = ["make", "--no-print-directory", "help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in targets[1].split() if f"make {name}" not in told] == ["help"]


def test_an_old_python_is_refused_with_words(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    # An interpreter that runs make's check as if it were 3.9.
    old.write_text(f"""#!{sys.executable}
import collections, sys
Info = collections.namedtuple("Info", "major minor micro")
sys.version_info = Info(3, 9, 0)
exec(sys.argv[2])
""")
    old.chmod(0o755)
    command = ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "test"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert not (tmp_path / "venv").exists()
