"""What the pages load besides the book: MathJax, require.js and the widget manager, made local.

No Python package of the requirements ships these files, so they come from npm, by name, version and
checksum. With them in place a built page needs no network.
"""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
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
    """Fetch the packages into a folder, once; without npm or network say so and return False."""
    stamp, wanted = target / "versions.txt", f"{json.dumps(VENDORED, indent=1)}\n{WIDGET_SETUP}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent.parent) as scratch:
        fresh = Path(scratch, "offline")
        try:
            for name, (version, integrity, kept) in VENDORED.items():
                command = ["npm", "pack", "--silent", f"{name}@{version}"]
                subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=120)
                archive = next(Path(scratch).glob(f"*{version}.tgz"))
                unpack(archive, integrity, kept, fresh / name.rpartition("/")[2])
                archive.unlink()
        except (OSError, subprocess.SubprocessError) as error:
            print(f"html   MathJax and widgets will come from a CDN, npm brought none: {error}")
            return False
        (fresh / "widget_setup.js").write_text(WIDGET_SETUP)
        (fresh / "versions.txt").write_text(wanted)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    print(f"html   vendored {', '.join(f'{name} {v[0]}' for name, v in VENDORED.items())}")
    return True


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


def external_loads(page: str) -> list[str]:
    """Addresses outside the book that a browser fetches when it opens this HTML text."""
    tags = re.findall(r"<(?:script|img|iframe|source|audio|video|embed|link)\b[^>]*>", page)
    tags = [tag for tag in tags if not re.search(r'rel="(?:canonical|next|prev|search)"', tag)]
    loads = [re.search(r'(?:src|href)="((?:https?:)?//[^"]+)"', tag) for tag in tags]
    styles = re.findall(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s]+)", page)
    return [html.unescape(match[1]) for match in loads if match] + styles
