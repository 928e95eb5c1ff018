"""The library as people install it: from a built wheel, in an empty folder, without a checkout and
without a network.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cxrtut.records.recorded import CHECKOUT_WEIGHTS, read_record

ROOT = Path(__file__).resolve().parents[1]
ALONE = """
import socket
class Refused(socket.socket):
    def connect(self, *_): raise OSError("no network here")
socket.socket = Refused
"""
FIVE_LINES = """
import cxrtut

system = cxrtut.load("biomarker/G-D-C")
out = system.predict("film.png")
out.heatmap, out.boxes, out.image, out.scores
data = cxrtut.ArrayStore.from_folder("films/", "labels.csv", size=64)
numbers = cxrtut.evaluate(system, data, ["auroc_mean_heat"])
"""
AFTER = """
assert "site-of-wheel" in cxrtut.__file__, cxrtut.__file__
assert out.heatmap.shape == out.image.shape == (1, 1, 90, 70) and len(out.boxes) == 1
assert set(numbers) == {"auroc_mean_heat"} and 0 <= numbers["auroc_mean_heat"] <= 1
from cxrtut.records.published import published
from cxrtut.records.recorded import claims_file, read_record
for paper in ("biomarker", "disease_masks", "pillet_gan"):
    assert read_record(paper).paper == paper and claims_file(paper).is_file() and published(paper)
print("all is there")
"""
FILMS = """
import cv2, numpy
from pathlib import Path
rng = numpy.random.default_rng(0)
Path("films").mkdir()
for i in range(8):
    cv2.imwrite(f"films/{i}.png", rng.integers(0, 255, (80, 80), numpy.uint8))
cv2.imwrite("film.png", rng.integers(0, 255, (90, 70), numpy.uint8))
lines = ["name,Pneumonia", *(f"{i},{i % 2}" for i in range(8))]
Path("labels.csv").write_text("\\n".join(lines))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    shutil.copytree(
        ROOT / "cxrtut", source / "cxrtut", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, *command, "--wheel-dir", folder, source], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed") / "site-of-wheel"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(code, installed, folder, cache):
    """The code, in an empty folder with the wheel's files; the cache is the user's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    own = {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:cxrtut", "-c", code],
        cwd=folder, env=kept | own, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path, installed):
    made = tmp_path / "empty"
    made.mkdir()
    subprocess.run([sys.executable, "-c", FILMS], cwd=made, check=True)
    return made


@pytest.mark.skipif(sys.platform == "win32", reason="the cache is elsewhere there")
def test_the_five_lines_of_the_readme_run_with_weights_that_were_fetched_before(
    installed, folder, tmp_path
):
    weights = read_record("biomarker").weights["G-D-C"]
    cache = tmp_path / "cache" / "cxrtut"
    cache.mkdir(parents=True)
    shutil.copy(CHECKOUT_WEIGHTS / weights.file, cache / f"{weights.sha256[:12]}-{weights.file}")
    done = run(ALONE + FIVE_LINES + AFTER, installed, folder, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "all is there" in done.stdout


def test_the_five_lines_are_those_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in FIVE_LINES.strip().splitlines():
        assert line.removeprefix("numbers = ") in text


def test_without_network_and_weights_an_error_names_what_is_missing(installed, folder, tmp_path):
    done = run(ALONE + FIVE_LINES, installed, folder, tmp_path / "cache")
    weights = read_record("biomarker").weights["G-D-C"]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"FileNotFoundError: {weights.file} is neither here nor online")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_system_that_was_trained_there_answers_on_the_command_line(installed, folder, tmp_path):
    code = """
import sys
from cxrtut.__main__ import main
training = ["train", "biomarker", "--out", "run", "--preset", "smoke", "--set", "steps=2",
            "--set", "warm_up_steps=1", "--images", "24"]
sys.exit(main(training) or main(["predict", "run", "film.png", "--out", "answers"]))
"""
    done = run(ALONE + code, installed, folder, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "answers").iterdir()) == [
        "film-Pneumonia-heat.png", "film-Pneumonia.png", "film-image.png", "film.json"
    ]  # fmt: skip


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops == {"cxrtut", next(top for top in tops if top.endswith(".dist-info"))}
