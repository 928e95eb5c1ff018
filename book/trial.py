"""Runs notebooks as their readers do: each from an empty folder, with the library's wheel, without
a checkout and without a network, at preset smoke.

    python book/trial.py FOLDER [--without-weights] [--here]

FOLDER holds what `book/build.py notebooks` wrote. The wheel is installed into a fresh environment,
with whatever pip finds for what it requires; `--here` takes the packages of this interpreter and
puts the unpacked wheel before them. The recorded networks are in the reader's cache, as if they had
been fetched before, or, `--without-weights`, nowhere.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNNER = ("papermill>=2.6", "ipykernel>=6.29")
# Read by every Python that starts, the kernels too; their own sockets are local.
NO_NETWORK = """
import socket
HERE = (None, "", "localhost", "127.0.0.1", "::1")
_connect, _resolve = socket.socket.connect, socket.getaddrinfo
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in HERE:
        raise OSError(f"no network here: {address}")
    return _connect(self, address)
def resolve(host, *arguments, **named):
    if host not in HERE:
        raise socket.gaierror(f"no network here: {host}")
    return _resolve(host, *arguments, **named)
socket.socket.connect, socket.getaddrinfo = connect, resolve
"""


def build_wheel(folder: Path) -> Path:
    """The library's wheel, from a copy, so that no build folder is left in the checkout."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cxrtut", source / "cxrtut", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """The interpreter of a new environment with the wheel, what it requires, and papermill."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [str(python), "-m", "pip", "install", "--quiet", str(wheel), *RUNNER]
    subprocess.run(install, check=True)
    return python


def fill_cache(folder: Path) -> None:
    """Puts the recorded networks where the library keeps what it has fetched."""
    sys.path.insert(0, str(ROOT))
    from cxrtut.experiments.pretrained import published
    from cxrtut.records.recorded import CHECKOUT_WEIGHTS

    folder.mkdir(parents=True)
    for weights in published().values():
        kept = folder / f"{weights.sha256[:12]}-{weights.file}"
        shutil.copy(CHECKOUT_WEIGHTS / weights.file, kept)


def failures(
    notebooks: list[Path], python: Path, paths: list[Path], scratch: Path
) -> Iterator[str]:
    """Runs each notebook, says how long it took, and gives the names of those that fail."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    for number, notebook in enumerate(notebooks):
        empty = scratch / f"reader-{number}"
        empty.mkdir()
        result = scratch / f"{number}.ipynb"
        command = [str(python), "-m", "papermill", str(notebook), str(result)]
        command += ["-p", "preset", "smoke", "-k", "python3", "--no-progress-bar"]
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=empty, env=kept | own, capture_output=True, text=True, errors="replace"
        )
        seconds = time.perf_counter() - started
        left = sorted(path.name for path in empty.iterdir())
        good = done.returncode == 0 and not left
        print(f"{notebook}: {'done' if good else 'FAILED'} in {seconds:.0f} s", flush=True)
        if done.returncode:
            print(done.stderr[-4000:], file=sys.stderr)
        if left:
            print(f"{notebook} left in the reader's folder: {', '.join(left)}", file=sys.stderr)
        if not good:
            yield str(notebook)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run notebooks as their readers do.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-weights", action="store_true", help="no recorded networks")
    parser.add_argument("--here", action="store_true", help="this interpreter's packages")
    asked = parser.parse_args()
    notebooks = sorted(asked.folder.resolve().rglob("*.ipynb"))
    if not notebooks:
        print(f"expected notebooks in {asked.folder}, found none", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        wheel = build_wheel(scratch)
        alone = scratch / "alone"
        alone.mkdir()
        (alone / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
        paths = [alone]
        if asked.here:
            python = Path(sys.executable)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch / "site-of-wheel")
            paths.append(scratch / "site-of-wheel")
        else:
            python = fresh_environment(scratch / "environment", wheel)
        if not asked.without_weights:
            fill_cache(scratch / "cache" / "cxrtut")
        failed = list(failures(notebooks, python, paths, scratch))
    if failed:
        print(f"{len(failed)} of {len(notebooks)} notebooks failed.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
