"""What every page gets after it was built: less to load before the first word, and small repairs.

- Pictures that a cell shows as part of its HTML (the frames of a slider) become files.
- A picture has its size, so that nothing jumps when it arrives, is loaded when it comes near, and
  is a link to its file, where it can be enlarged.
- Scripts wait until the page was read, and the icons come as a font (the theme brings both forms).
- Names and roles that screen readers stumble over, from the theme, docutils and MyST-NB.

All of it works on the text of a page, so each step can be tested by itself.
"""

import base64
import hashlib
import os
import re
import struct
from pathlib import Path

from sphinx.application import Sphinx

INCH = 96  # CSS pixels
ARTICLE = re.compile(r'<article class="bd-article".*?</article>', re.DOTALL)
DATA = re.compile(r'src="data:image/(png|webp);base64,([^"]+)"')
TOKEN = re.compile(r'<a\b[^>]*>|</a>|<figure class="image-slider"|</figure>|<img\b[^>]*>')
ENLARGE = 'title="Open the picture in its full size"'
# What is replaced in the whole page, and why.
REPAIRS = (
    # A signature on several lines is written as a list of definitions that define nothing.
    (r'<dl>\s*((?:<dd><em class="sig-param">.*</dd>\s*)+)</dl>', r'<span class="lines">\1</span>'),
    (r'<dd>(<em class="sig-param">.*)</dd>', r"<span>\1</span>"),
    # Speech that says "Toggle hidden content" where everybody else reads "Show code cell source".
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # An entry of a list may not have the role of an entry of a bibliography, which is deprecated.
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
    (r' role="doc-biblioentry"', ""),
    # The button reads "Search Ctrl+K", and its name has to begin as what is read.
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    # The name of the book and the search field stand in no landmark.
    (
        r'<div id="pst-primary-sidebar" class="',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" class="',
    ),
    # The arrow that unfolds the pages below one of the contents has no name.
    (
        r'<summary><span class="toctree-toggle"',
        '<summary aria-label="Pages below this one"><span class="toctree-toggle"',
    ),
    # 1.5 MB of pictures of icons, of which the style sheet has a font of 0.3 MB.
    (r'\s*<script defer src="[^"]*/fontawesome\.js[^"]*"></script>', ""),
)
# Scripts that others build on while the page is read.
AT_ONCE = ("documentation_options.js",)


def with_files(text: str, folder: Path, root: str) -> str:
    """Every picture that is part of the text as a file in the folder, named by its content.

    Args:
        text: HTML.
        folder: where pictures are.
        root: how the page calls the folder above it, such as `../`.
    """

    def file(match: re.Match[str]) -> str:
        data = base64.b64decode(match[2])
        name = f"{hashlib.sha256(data).hexdigest()}.{match[1]}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return f'loading="lazy" src="{root}{folder.name}/{name}"'

    return DATA.sub(file, text)


def size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture in CSS pixels; None where the file does not say.

    A PNG that states its resolution, as those of matplotlib do, has its size in inches.
    """
    data = path.read_bytes() if path.is_file() else b""
    if data.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", data[16:24])
        at = data.partition(b"IDAT")[0].find(b"pHYs")
        per_metre = struct.unpack(">I", data[at + 4 : at + 8])[0] if at >= 0 else 0
        scale = INCH / (per_metre * 0.0254) if per_metre > INCH / 0.0254 else 1
        return round(width * scale), round(height * scale)
    if data[:4] == b"RIFF" and data[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width, height
    if data[:4] == b"RIFF" and data[12:16] == b"VP8L":  # 14 bits each, less one
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    box = re.search(rb'<svg[^>]*viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', data[:2000])
    return (round(float(box[1])), round(float(box[2]))) if box else None


def with_sizes_and_links(article: str, page: Path) -> str:
    """The pictures of an article, each with its size and as a link to its file.

    Those of sliders and cards, and those that lie in a link already, get no link. The first picture
    is loaded at once, the others when they come near.
    """
    inside: list[str] = []  # links and sliders that are open here
    seen = 0

    def one(match: re.Match[str]) -> str:
        nonlocal seen
        token = match[0]
        if token.startswith(("</a", "</figure")):
            kind = "a" if token.startswith("</a") else "figure"
            if inside and inside[-1] == kind:
                inside.pop()
            return token
        if not token.startswith("<img"):
            inside.append("a" if token.startswith("<a") else "figure")
            own = "image-reference" in token and "title=" not in token
            return token.replace("<a ", f"<a {ENLARGE} ", 1) if own else token
        seen += 1
        address = re.search(r'src="([^"#?]+)', token)
        local = bool(address) and not re.match(r"[a-z]+:|//", address[1] if address else "")
        if not address or not local:
            return token
        more = ['decoding="async"']
        if seen > 1 and "loading=" not in token:
            more.append('loading="lazy"')
        known = size(page.parent / address[1])
        if known and "width=" not in token:
            more.append(f'width="{known[0]}" height="{known[1]}"')
        image = token.replace("<img", f"<img {' '.join(more)}", 1)
        link = f'<a class="enlarge" href="{address[1]}" {ENLARGE}>'
        return image if inside or "sd-card-img" in token else f"{link}{image}</a>"

    return TOKEN.sub(one, article)


def with_late_scripts(text: str) -> str:
    """The page with the scripts of its head put off until it was read, in their order."""
    head, end, rest = text.partition("</head>")

    def late(match: re.Match[str]) -> str:
        if re.search(r"\b(defer|async)\b", match[1]) or any(name in match[1] for name in AT_ONCE):
            return match[0]
        return f"<script defer {match[1]}>"

    return re.sub(r'<script ([^>]*\bsrc="[^>]*)>', late, head) + end + rest


def repaired(text: str) -> str:
    for pattern, replacement in REPAIRS:
        text = re.sub(pattern, replacement, text)
    return text


def finish(page: Path, site: Path) -> None:
    """Rewrite one page of the built site."""
    root = os.path.relpath(site, page.parent).replace(os.sep, "/")
    prefix = "" if root == "." else f"{root}/"
    text = with_files(page.read_text(encoding="utf-8"), site / "_images", prefix)
    text = ARTICLE.sub(lambda article: with_sizes_and_links(article[0], page), text)
    page.write_text(with_late_scripts(repaired(text)), encoding="utf-8")


def finish_all(app: Sphinx, failure: Exception | None) -> None:
    if failure is None and app.builder.format == "html":
        # Those of Sphinx itself, such as the search page, are no documents.
        own = ("genindex", "py-modindex", "search")
        pages = [Path(app.outdir, f"{name}.html") for name in (*app.env.found_docs, *own)]
        for page in filter(Path.is_file, sorted(pages)):
            finish(page, Path(app.outdir))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", finish_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
