"""A browser, the built book on a local port, and axe-core; without one of them, these tests skip.

They are asked for by naming the folder of the built book: CXRTUT_BUILT_BOOK=build/html (make
test-book). Scrollbars are shown: headless browsers hide them, and with them what they cover.
"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.serving import served

ROOT = Path(__file__).resolve().parents[2]
SEEN = {"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"}


def built_book() -> Path:
    """The folder that was named, relative to the repository; skips where none was."""
    named = os.environ.get("CXRTUT_BUILT_BOOK")
    if not named:
        pytest.skip(
            "CXRTUT_BUILT_BOOK names no built book (make test-book)", allow_module_level=True
        )
    folder = ROOT / named
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"CXRTUT_BUILT_BOOK: expected a built book, got {folder}")
    return folder


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with served(built_book()) as where:
        yield where


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: the one of the system, or the one that playwright has installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, sorted(SEEN))), None)
    with playwright.sync_playwright() as started:
        own = started.chromium.executable_path
        if not found and not Path(own).is_file():
            pytest.skip("there is no Chromium (python -m playwright install chromium)")
        chromium = started.chromium.launch(
            executable_path=found or own,
            args=["--no-sandbox"],
            ignore_default_args=["--hide-scrollbars"],
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from npm as book/offline.py fetches it, kept in build/."""
    spec = importlib.util.spec_from_file_location("offline", ROOT / "book" / "offline.py")
    assert spec is not None and spec.loader is not None
    offline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(offline)
    folder = ROOT / "build" / "checkers" / offline.AXE["axe-core"][0]
    script = folder / "axe-core" / "axe.min.js"
    if not script.is_file():
        try:
            offline.fetch(offline.AXE, folder)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"npm brought no axe-core: {error}")
    return script.read_text(encoding="utf-8")
