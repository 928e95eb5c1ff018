"""Every page of the built book as readers meet it: desktop and phone, light and dark, on paper, by
keyboard, and over a slow network.
"""

from pathlib import Path
from typing import Any

import pytest
from browser.conftest import built_book
from browser.looking import VIEWS, Seen, first_paint, look, opened

BOOK = built_book()
OF_OTHERS = {"_static", "_sources", "_images", "offline"}
PAGES = sorted(
    path.relative_to(BOOK).as_posix()
    for path in BOOK.rglob("*.html")
    if path.relative_to(BOOK).parts[0] not in OF_OTHERS
)
SLIDERS = [name for name in PAGES if 'type="range"' in (BOOK / name).read_text("utf-8")]
# What axe finds in parts that are not ours and cannot be mended from here: a part of the finding,
# and why it stays.
THEIRS: dict[str, str] = {}


@pytest.fixture(scope="module", params=PAGES)
def seen(request: pytest.FixtureRequest, browser: Any, address: str, axe: str) -> Seen:
    # Pages of the library are long, and all alike: two views of each.
    views = VIEWS[::3] if request.param.startswith("appendix/api/") else VIEWS
    return look(browser, f"{address}/{request.param}", axe, views)


def wrong(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """The views in which something was found."""
    return {view: what for view, what in found.items() if what}


def test_a_page_reports_no_error_and_loads_nothing_from_outside(seen: Seen) -> None:
    assert seen.errors == seen.outside == seen.failed == []


def test_no_formula_within_a_line_has_a_scrollbar(seen: Seen) -> None:
    assert wrong(seen.formulas) == {}


def test_no_page_scrolls_sideways(seen: Seen) -> None:
    assert wrong(seen.sideways) == {}


def test_no_code_is_cut(seen: Seen) -> None:
    assert wrong(seen.code) == {}


def test_a_phone_shows_the_second_column_of_a_table_beside_the_first_which_stays(
    seen: Seen,
) -> None:
    assert seen.tables == []


def test_axe_finds_nothing_in_any_view(seen: Seen) -> None:
    ours = {
        view: sorted({what for what in found if not any(part in what for part in THEIRS)})
        for view, found in seen.axe.items()
    }
    assert wrong(ours) == {}


def test_on_paper_nothing_is_cut_or_folded(seen: Seen) -> None:
    assert seen.print_cut == seen.print_folded == []


@pytest.mark.parametrize("name", PAGES)
def test_the_first_words_are_there_within_four_seconds_at_4_megabits(
    name: str, browser: Any, address: str
) -> None:
    assert first_paint(browser, f"{address}/{name}", megabits=4, latency=20) < 4


@pytest.mark.parametrize("name", SLIDERS)
def test_sliders_are_moved_by_keys_say_their_state_and_show_its_image(
    name: str, browser: Any, address: str
) -> None:
    with opened(browser, f"{address}/{name}", Seen()) as page:
        for figure in page.locator("figure.image-slider").all():
            control, frames = figure.locator("input"), figure.locator("img")
            assert control.evaluate("e => e.labels.length && e.labels[0].innerText.trim()")
            assert control.bounding_box()["height"] >= 24
            control.focus()
            last = int(control.get_attribute("max"))
            for key, value in {"Home": 0, "ArrowRight": 1, "End": last}.items():
                control.press(key)
                assert int(control.input_value()) == value
                visible = [frame.is_visible() for frame in frames.all()]
                assert visible == [i == value for i in range(last + 1)]
                shown = frames.nth(value)
                state = control.get_attribute("aria-valuetext")
                assert state and shown.get_attribute("data-state") == state
                assert state in shown.get_attribute("alt")
                assert figure.locator(".state").inner_text() == state
                shown.evaluate("e => e.decode()")  # fails where the image cannot be loaded
            assert control.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_a_picture_opens_in_its_full_size_by_keyboard(browser: Any, address: str) -> None:
    marked = 'class="enlarge"'
    name = next(name for name in PAGES if marked in (BOOK / name).read_text("utf-8"))
    with opened(browser, f"{address}/{name}", Seen()) as page:
        link = page.locator("a.enlarge").first
        assert link.locator("img").get_attribute("alt")
        link.focus()
        assert link.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        link.press("Enter")
        page.wait_for_url("**/_images/**")


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_keeps_its_place_before_it_is_loaded(name: str) -> None:
    article = (BOOK / name).read_text("utf-8").partition('<article class="bd-article"')[2]
    pictures = [tag.partition(">")[0] for tag in article.partition("</article>")[0].split("<img")]
    jumping = [tag for tag in pictures[1:] if "width" not in tag]
    assert jumping == []


def test_the_book_has_the_pages_that_its_contents_name() -> None:
    """Or else the tests above would say nothing about them."""
    contents = (Path(__file__).parents[2] / "book" / "_toc.yml").read_text("utf-8")
    listed = [line.split("file: ")[1] for line in contents.splitlines() if "file: " in line]
    assert {f"{name.strip()}.html" for name in listed} <= set(PAGES)
