"""A book of small pages with the builder of this one, in a folder of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
FRONT = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
  language: python
---
"""
PARAMETERS = ':tags: [parameters]\npreset = "paper"\nseed = 0'


def page(*cells: str, title: str = "A page") -> str:
    """Markdown of a page with these cells of code; options such as tags are lines at their top."""
    code = "\n".join(f"```{{code-cell}} python\n{cell}\n```\n" for cell in cells)
    return f"{FRONT}# {title}\n\n{code}"


def make_book(root: Path, pages: dict[str, str]) -> Path:
    """Makes the builder, these pages, and a library of one constant; returns the root."""
    (root / "book").mkdir(parents=True)
    for path in [*BOOK.glob("*.py"), *BOOK.glob("_extensions/*.py"), BOOK / "references.bib"]:
        (root / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, root / path.relative_to(ROOT))
    (root / "cxrtut" / "experiments").mkdir(parents=True)
    (root / "cxrtut" / "__init__.py").write_text('ANSWER, __version__ = 42, "1.2.3"\n')
    for name in ("console.py", "experiments/__init__.py", "experiments/runtime.py"):
        shutil.copy(ROOT / "cxrtut" / name, root / "cxrtut" / name)
    for name, text in pages.items():
        path = root / "book" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


def command(root: Path, *arguments: str) -> list[str]:
    """The words that start the builder of a book."""
    return [sys.executable, str(root / "book" / "build.py"), *arguments]


def build(
    root: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What the builder says and returns."""
    return subprocess.run(
        command(root, *arguments), cwd=root, env=env, capture_output=True, text=True, timeout=200
    )
