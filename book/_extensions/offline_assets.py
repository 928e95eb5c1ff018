"""Serve MathJax, require.js and the widget manager from the book itself.

book/offline.py puts the files into build/vendor/offline. Where they are present, the pages load
them from the book, so that it can be read without a network; where they are not, the pages keep
loading them from a CDN. They go through html_extra_path, because every script in _static would be
loaded on every page.
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config


def use_local_files(app: Sphinx, config: Config) -> None:
    vendor = Path(app.srcdir).parent / "vendor"
    if not (vendor / "offline").is_dir():
        return
    config["html_extra_path"] = [*config.html_extra_path, vendor.as_posix()]
    # Sphinx resolves script names against _static; the extra files lie beside that folder.
    config["mathjax_path"] = "../offline/mathjax/tex-mml-chtml.js"
    # On pages with widgets alone, and 3.5 MB there: the words do not wait for them.
    late = {"defer": "defer"}
    config["nb_ipywidgets_js"] = {
        "../offline/requirejs/require.js": late,
        "../offline/widget_setup.js": late,
        "../offline/html-manager/embed-amd.js": late,
    }


def drop_live_code(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Leave out the scripts of sphinx-thebe: the book has no live cells, and they name a CDN."""
    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if not _belongs_to_thebe(script)]


def _belongs_to_thebe(script: Any) -> bool:
    body = getattr(script, "attributes", {}).get("body") or ""
    return "THEBE_JS_URL" in body or "sphinx-thebe.js" in str(getattr(script, "filename", script))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", drop_live_code, priority=900)
    app.connect("config-inited", use_local_files, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
