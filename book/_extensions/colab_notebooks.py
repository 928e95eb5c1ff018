"""Point the Colab button of every page at the published notebook.

Colab opens .ipynb files only, while the pages of this book are Markdown on the main branch. A
workflow converts them and publishes them, not executed, on the branch `notebooks`; this extension
rewrites the link of the theme's Colab button, and no other link, to that branch.
"""

from typing import Any

from addresses import notebook_on_colab
from sphinx.application import Sphinx


def _buttons(buttons: list[dict[str, Any]]) -> Any:
    """Every button of a header, those inside groups included."""
    for button in buttons:
        yield button
        yield from _buttons(button.get("buttons", []))


def rewrite_colab_link(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    for button in _buttons(context.get("header_buttons", [])):
        if button.get("text") == "Colab":
            button["url"] = notebook_on_colab(pagename)


def setup(app: Sphinx) -> dict[str, bool]:
    # The theme adds its buttons at priority 501.
    app.connect("html-page-context", rewrite_colab_link, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
