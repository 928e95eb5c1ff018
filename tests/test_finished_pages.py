"""What every built page gets: it is lighter to load, stays in its place, and is read aloud well."""

import base64
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_book_extensions import load

pages = load("finished_pages")
ARTICLE = '<article class="bd-article">{}</article>'


def write_png(path: Path, width: int, height: int, dots_per_inch: int = 0) -> None:
    """A black PNG, with its resolution in the chunk pHYs if one is given."""
    import zlib

    done, data = cv2.imencode(".png", np.zeros((height, width), np.uint8))
    assert done
    file = data.tobytes()
    if dots_per_inch:
        metre = round(dots_per_inch / 0.0254).to_bytes(4, "big")
        body = b"pHYs" + metre + metre + b"\x01"
        chunk = (9).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        file = file[:33] + chunk + file[33:]  # behind the signature and IHDR
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file)


def test_pictures_inside_the_text_become_files_named_by_their_content(tmp_path: Path) -> None:
    data = b"a picture"
    text = f'<img src="data:image/webp;base64,{base64.b64encode(data).decode()}" alt="x">'
    name = f"{hashlib.sha256(data).hexdigest()}.webp"
    found = pages.with_files(text + text, tmp_path / "_images", "../")
    assert found == f'<img loading="lazy" src="../_images/{name}" alt="x">' * 2
    assert (tmp_path / "_images" / name).read_bytes() == data
    assert [file.name for file in (tmp_path / "_images").iterdir()] == [name]


@pytest.mark.parametrize(("dots", "shown"), [(0, (300, 150)), (192, (150, 75)), (72, (300, 150))])
def test_a_png_is_as_large_as_its_resolution_says_and_never_enlarged(
    tmp_path: Path, dots: int, shown: tuple[int, int]
) -> None:
    write_png(tmp_path / "a.png", 300, 150, dots)
    assert pages.size(tmp_path / "a.png") == shown


def test_a_drawing_has_the_size_of_its_view_and_others_none(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text('<svg xmlns="x" viewBox="0 0 560 470.4"><path/></svg>')
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    assert pages.size(tmp_path / "a.svg") == (560, 470)
    assert pages.size(tmp_path / "a.gif") is pages.size(tmp_path / "b.png") is None


def test_a_webp_of_either_kind_has_its_size(tmp_path: Path) -> None:
    for quality in (80, 101):  # with loss, without
        path = tmp_path / f"{quality}.webp"
        cv2.imwrite(str(path), np.zeros((30, 50, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, quality])
        assert pages.size(path) == (50, 30)


def test_pictures_keep_their_place_come_late_and_open_in_full_size(tmp_path: Path) -> None:
    write_png(tmp_path / "_images" / "a.png", 20, 10)
    page = tmp_path / "page.html"
    text = '<img alt="a" src="_images/a.png" />'
    first, second = pages.with_sizes_and_links(f"{text}<p>{text}", page).split("<p>")
    link = f'<a class="enlarge" href="_images/a.png" {pages.ENLARGE}>'
    rest = 'width="20" height="10" alt="a" src="_images/a.png" /></a>'
    assert first == f'{link}<img decoding="async" {rest}'
    assert second == f'{link}<img decoding="async" loading="lazy" {rest}'


@pytest.mark.parametrize(
    "text",
    [
        '<a href="x.html"><img src="_images/a.png"></a>',
        '<figure class="image-slider"><img src="_images/a.png" hidden></figure>',
        '<img class="sd-card-img-top" src="_images/a.png">',
    ],
)
def test_pictures_in_links_sliders_and_cards_get_no_link(tmp_path: Path, text: str) -> None:
    write_png(tmp_path / "_images" / "a.png", 20, 10)
    found = pages.with_sizes_and_links(text, tmp_path / "page.html")
    assert "enlarge" not in found
    assert 'width="20" height="10"' in found


def test_a_picture_behind_a_slider_gets_its_link_again(tmp_path: Path) -> None:
    text = '<figure class="image-slider"></figure><figure class="a"><img src="a.png"></figure>'
    assert 'class="enlarge" href="a.png"' in pages.with_sizes_and_links(text, tmp_path / "p.html")


def test_a_picture_that_sphinx_has_linked_says_what_the_link_does(tmp_path: Path) -> None:
    text = '<a class="reference internal image-reference" href="a.svg"><img src="a.svg"></a>'
    found = pages.with_sizes_and_links(text, tmp_path / "p.html")
    assert found.startswith(f'<a {pages.ENLARGE} class="reference internal image-reference"')
    assert found.count("<a ") == 1


def test_scripts_of_the_head_wait_in_their_order_but_not_what_others_build_on() -> None:
    head = (
        '<script src="_static/documentation_options.js?v=1"></script><script src="a.js"></script>'
        '<script async src="b.js"></script><script defer="defer" src="c.js"></script>'
        "<script>one = 1</script>"
    )
    rest = '</head><body><script src="d.js"></script></body>'
    expected = head.replace('<script src="a.js">', '<script defer src="a.js">')
    assert pages.with_late_scripts(head + rest) == expected + rest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '<summary aria-label="Toggle hidden content"><p>Show code cell source</p></summary>',
            "<summary><p>Show code cell source</p></summary>",
        ),
        (
            '<div role="list" class="citation-list"><div id="a" role="doc-biblioentry">',
            '<div class="citation-list"><div id="a">',
        ),
        (
            '<dt>f(\n\n<dl>\n<dd><em class="sig-param">a: int</em>,</dd>\n'
            '<dd><em class="sig-param">b</em>,</dd>\n</dl>\n)</dt><dl><dt>x</dt><dd>y</dd></dl>',
            '<dt>f(\n\n<span class="lines"><span><em class="sig-param">a: int</em>,</span>\n'
            '<span><em class="sig-param">b</em>,</span>\n</span>\n)</dt>'
            "<dl><dt>x</dt><dd>y</dd></dl>",
        ),
        (
            '<head> <script defer src="../_static/scripts/fontawesome.js?v=5"></script></head>',
            "<head></head>",
        ),
    ],
)
def test_names_and_roles_are_mended(before: str, after: str) -> None:
    assert pages.repaired(before) == after


def test_a_page_below_a_folder_finds_the_files_of_its_sliders(tmp_path: Path) -> None:
    page = tmp_path / "papers" / "a.html"
    page.parent.mkdir()
    picture = base64.b64encode(b"x").decode()
    page.write_text(ARTICLE.format(f'<img src="data:image/png;base64,{picture}">'))
    pages.finish(page, tmp_path)
    (file,) = (tmp_path / "_images").iterdir()
    assert f'src="../_images/{file.name}"' in page.read_text()
