"""Settings of the whole test run.

Shapes and types of every annotated function of the library are checked on every call: the import
hook below has to be in place before the first import of cxrtut.
"""

import importlib.util
import os

# Before numpy and torch are imported: tests of small arrays are fastest on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("cxrtut", "typecheck.with_numeric_tower")

# An old or a nightly torch is tested without the extra `book`, whose packages these import.
WITHOUT_BOOK = importlib.util.find_spec("jupyter_book") is None
collect_ignore_glob = [
    name
    for name in (
        "test_api_reference.py", "test_book*.py", "test_captions.py",
        "test_equations.py", "test_notebooks.py", "test_plain_markdown.py",
        "test_shown_notebook.py",
    )
    if WITHOUT_BOOK
]  # fmt: skip


def pytest_report_header() -> list[str]:
    import numpy
    import torch
    import torchvision

    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, torchvision, numpy))
    return [versions, *(["the book's tests are left out"] if WITHOUT_BOOK else [])]
