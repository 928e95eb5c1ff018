"""Links inside the built book that lead nowhere; addresses on the network are left alone."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Anchors(HTMLParser):
    """The targets that a page offers, and the links that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value for key, value in attrs if value is not None}
        self.names |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])


def broken_links(folder: Path) -> list[str]:
    """Every link of a page below the folder to a file or an anchor that is not there."""
    pages = {
        path.resolve(): Anchors(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")
    }
    broken = []
    for page, anchors in pages.items():
        for link in anchors.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            # An empty fragment, and #top, lead to the beginning of any page.
            name = "" if parts.fragment == "top" else unquote(parts.fragment)
            if not target.exists() or (
                name and target in pages and name not in pages[target].names
            ):
                broken.append(f"{page.relative_to(folder.resolve()).as_posix()}: {link}")
    return sorted(broken)
