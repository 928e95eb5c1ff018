"""What the pages load besides the book: MathJax, require.js and the widget manager, made local.

No Python package of the requirements ships these files, so they come from npm, by name, version and
checksum. With them in place a built page needs no network. What the tests of the built pages need
comes the same way, and is not shipped.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from html.parser import HTMLParser
from pathlib import Path

# Per package: version, integrity as published by npm, files kept (group 1: their name here).
VENDORED = {
    "mathjax": (
        "3.2.2",
        "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        r"package/es5/(tex-mml-chtml\.js|output/chtml/fonts/.*|input/tex/extensions/.*\.js)",
    ),
    "requirejs": (
        "2.3.7",
        "sha512-DouTG8T1WanGok6Qjg2SXuCMzszOo0eHeH9hDZ5Y4x8Je+9JB38HdTLT4/VA8OaUhBa0JPVHJ0pyBkM1z+pDsw==",
        r"package/(require\.js)",
    ),
    "@jupyter-widgets/html-manager": (
        "1.0.15",
        "sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        r"package/dist/(embed-amd\.js|.*\.woff2)",
    ),
}

# Looks for what keeps people out of a page; for tests/browser alone.
AXE = {
    "axe-core": (
        "4.14.1",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        r"package/(axe\.min\.js)",
    ),
}

# The widget manager looks for fonts beside the page, and asks MathJax in the words of version 2.
WIDGET_SETUP = """\
{
  const manager = new URL("html-manager", document.currentScript.src).href;
  require.config({
    paths: {
      "@jupyter-widgets/html-manager": `${manager}/index`,
      "@jupyter-widgets/html-manager/dist": manager,
    },
  });
}
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax?.typesetPromise && !window.MathJax.Hub)
    window.MathJax.Hub = { Queue: (job) => window.MathJax.typesetPromise([job[2]]) };
});
"""


def vendor(target: Path) -> bool:
    """Fetch the packages into a folder, once; without npm or network say so and return False. A
    folder with other versions is then removed: the pages would load what is there.

    Raises:
        ValueError: a package is not the one that was published.
    """
    stamp, wanted = target / "versions.txt", f"{json.dumps(VENDORED, indent=1)}\n{WIDGET_SETUP}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent.parent) as scratch:
        fresh = Path(scratch, "offline")
        try:
            fetch(VENDORED, fresh)
        except (OSError, subprocess.SubprocessError) as error:
            removed = "; the files of other versions are removed" if target.exists() else ""
            shutil.rmtree(target, ignore_errors=True)
            told = "MathJax and widgets will come from a CDN, npm brought none"
            print(f"html   {told}: {error}{removed}")
            return False
        (fresh / "widget_setup.js").write_text(WIDGET_SETUP)
        (fresh / "versions.txt").write_text(wanted)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    print(f"html   vendored {', '.join(f'{name} {v[0]}' for name, v in VENDORED.items())}")
    return True


def fetch(packages: dict[str, tuple[str, str, str]], folder: Path) -> None:
    """Get packages from npm; each one's files into a folder of its name.

    Raises:
        ValueError: a package is not the one that was published.
        OSError, subprocess.SubprocessError: there is no npm, or it brings nothing.
    """
    for name, (version, integrity, kept) in packages.items():
        with tempfile.TemporaryDirectory() as scratch:
            command = ["npm", "pack", "--silent", f"{name}@{version}"]
            subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=120)
            archive = next(Path(scratch).glob(f"*{version}.tgz"))
            unpack(archive, integrity, kept, folder / name.rpartition("/")[2])


def unpack(archive: Path, integrity: str, kept: str, folder: Path) -> None:
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != integrity:
        raise ValueError(f"{archive.name}: expected {integrity}, npm brought {found}")
    with tarfile.open(archive) as files:
        for member in files.getmembers():
            match = re.fullmatch(kept, member.name)
            content = files.extractfile(member) if match else None
            if match and content:
                path = folder / match[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())


# Attributes that name what a browser fetches when it meets the tag.
LOADING = {
    **dict.fromkeys(("script", "iframe", "frame", "embed", "audio", "track", "input"), ("src",)),
    **dict.fromkeys(("img", "source"), ("src", "srcset")),
    "video": ("src", "poster"),
    "object": ("data",),
    "link": ("href", "imagesrcset"),
    "base": ("href",),
    **dict.fromkeys(("image", "use", "feimage"), ("href", "xlink:href")),
}
POINTING = {"canonical", "next", "prev", "search", "author", "license", "help", "alternate"}
OUTSIDE = r"(?:https?:)?//[^\"'`)\s]+"


def external_loads(page: str) -> list[str]:
    """Addresses outside the book that a browser fetches when it opens this HTML text."""
    reader = _Loads()
    reader.feed(page)
    reader.close()
    return reader.found


class _Loads(HTMLParser):
    """Reads a page as a browser does: quotes or none, comments and displayed text left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        kind = given.get("type", "").lower()
        is_code = tag != "script" or kind in ("", "module") or "javascript" in kind
        self._inside = tag if tag in ("script", "style") and is_code else ""
        self._styles(given.get("style", ""))
        if tag == "link" and set(given.get("rel", "").lower().split()) & POINTING:
            return
        for name in LOADING.get(tag, ()):
            several = "srcset" in name
            for part in given.get(name, "").split(",") if several else [given.get(name, "")]:
                address = part.strip().partition(" ")[0] if several else part.strip()
                if re.match(r"(?i)(https?:)?//", address):
                    self.found.append(address)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self._styles(data)
        if self._inside == "script":
            called = r"\b(?:import|importScripts|fetch|Worker)\s*\(\s*"
            imported = r"\bimport\b[^;\"'`()]*"
            self.found += re.findall(rf"(?:{called}|{imported})[\"'`]({OUTSIDE})", data)

    def _styles(self, text: str) -> None:
        self.found += re.findall(rf"(?:@import\s+|url\(\s*)[\"']?({OUTSIDE})", text)
