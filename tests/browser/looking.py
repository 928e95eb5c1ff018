"""What is seen of a page of the built book in a browser: four views, paper, and slow networks."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

WIDTHS, HEIGHT = (1280, 390), 900
NARROWEST = 320  # WCAG 1.4.10
THEMES = ("light", "dark")
VIEWS = tuple((width, theme) for width in WIDTHS for theme in THEMES)
PAPER = 718  # CSS pixels between the margins of A4

# Elements of the article that are wider inside than outside, and so are scrolled or cut.
CUT = """selector => [...document.querySelectorAll('.bd-article ' + selector)]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
    .map(e => e.textContent.trim().slice(0, 60))"""
# Inline boxes have no client width: those that can be scrolled have one.
INLINE_FORMULAS = """() => [...document.querySelectorAll(
        '.bd-article span.math, .bd-article span.math mjx-container')]
    .filter(e => { const box = getComputedStyle(e);
        return (/auto|scroll/.test(box.overflowX + box.overflowY) && box.display !== 'inline')
            || e.offsetHeight - e.clientHeight > 5 && e.clientHeight > 0; })
    .map(e => e.textContent.slice(0, 40))"""
SIDEWAYS = """() => document.documentElement.scrollWidth > document.documentElement.clientWidth
    ? [...document.querySelectorAll('.bd-main *')]
        .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .slice(0, 4).map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`)
        .concat(document.documentElement.scrollWidth + ' px wide')
    : []"""
# Tables whose second column is not seen beside the first, or whose first column scrolls away.
TABLES = """() => [...document.querySelectorAll('.bd-article .table-box')].flatMap(box => {
    const row = box.querySelector('tbody tr');
    if (!row || row.cells.length < 2 || !box.checkVisibility()) return [];
    const edge = box.getBoundingClientRect(), name = box.getAttribute('aria-label');
    const second = row.cells[1].getBoundingClientRect();
    const wrong = [];
    if (Math.min(second.right, edge.right) - second.left < Math.min(second.width, 56))
        wrong.push(name + ': second column at ' + second.left);
    box.scrollLeft = 10000;
    if (row.cells[0].getBoundingClientRect().left < edge.left - 1)
        wrong.push(name + ': first column scrolls away');
    box.scrollLeft = 0;
    return wrong;
})"""
FOLDED = """() => [...document.querySelectorAll('.bd-article details pre:not(.docstring)')]
    .filter(e => !e.checkVisibility()).map(e => e.textContent.trim().slice(0, 60))"""
# The rule that is named here is an experiment of axe's, and off by itself.
AXE = """() => axe.run(document, {rules: {'label-content-name-mismatch': {enabled: true}}}).then(
    found => found.violations.flatMap(v => v.nodes.map(n => v.id + ' | ' + n.target.join(' '))))"""


@dataclass
class Seen:
    """Of one page: what is wrong, by view."""

    errors: list[str] = field(default_factory=list)  # of the console, and of scripts
    outside: list[str] = field(default_factory=list)  # requests that leave the book
    failed: list[str] = field(default_factory=list)  # addresses inside the book without an answer
    formulas: dict[str, list[str]] = field(default_factory=dict)
    sideways: dict[str, list[str]] = field(default_factory=dict)
    code: dict[str, list[str]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    axe: dict[str, list[str]] = field(default_factory=dict)
    print_cut: list[str] = field(default_factory=list)
    print_folded: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Any, url: str, seen: Seen, **options: Any) -> Iterator[Any]:
    """The page in a context of its own, loaded and typeset."""
    size = {"width": WIDTHS[0], "height": HEIGHT}
    # Without transitions: axe would see a colour on its way from one theme to the other
    context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
    page = context.new_page()
    home = "/".join(url.split("/")[:3])
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: None if inside(r.url, home) else seen.outside.append(r.url))
    page.on("response", lambda r: seen.failed.append(r.url) if r.status >= 400 else None)
    page.goto(url)
    page.evaluate("() => window.MathJax?.startup?.promise")
    yield page
    context.close()


def inside(url: str, home: str) -> bool:
    return url.startswith((home + "/", "data:", "blob:"))


def look(browser: Any, url: str, axe: str, views: Sequence[tuple[int, str]] = VIEWS) -> Seen:
    """Everything about the page that needs one load of it; axe looks at these views."""
    seen = Seen()
    with opened(browser, url, seen) as page:
        page.evaluate(axe)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            page.wait_for_timeout(50)
            view = f"{width} px"
            seen.formulas[view] = page.evaluate(INLINE_FORMULAS)
            seen.sideways[view] = page.evaluate(SIDEWAYS)
            seen.code[view] = page.evaluate(CUT, ":is(.cell_input, [class*=highlight-]) pre")
            for theme in (theme for of, theme in views if of == width):
                page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
                seen.axe[f"{view}, {theme}"] = page.evaluate(AXE)
        seen.tables = page.evaluate(TABLES)
        page.set_viewport_size({"width": NARROWEST, "height": HEIGHT})
        seen.sideways[f"{NARROWEST} px"] = page.evaluate(SIDEWAYS)
        page.set_viewport_size({"width": PAPER, "height": HEIGHT})
        page.emulate_media(media="print")
        seen.print_cut = page.evaluate(CUT, ":is(pre, .table-box, div.math, .cell_output)")
        seen.print_folded = page.evaluate(FOLDED)
    return seen


def first_paint(browser: Any, url: str, megabits: float, latency: float) -> float:
    """Seconds until something of the page is seen, with an empty cache; infinite where nothing ever
    is. A headless browser that is short of time draws no frame of one page in thousands, however
    long one waits: such a page is opened once more.

    Args:
        megabits: of the network, per second.
        latency: of each request, in milliseconds.
    """
    seconds = _painted(browser, url, megabits, latency)
    return _painted(browser, url, megabits, latency) if seconds == math.inf else seconds


def _painted(browser: Any, url: str, megabits: float, latency: float) -> float:
    from playwright.sync_api import TimeoutError as NotInTime

    context = browser.new_context(viewport={"width": WIDTHS[0], "height": HEIGHT})
    page = context.new_page()
    network = context.new_cdp_session(page)
    rate = megabits * 1e6 / 8
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": latency,
            "downloadThroughput": rate,
            "uploadThroughput": rate,
        },
    )
    page.goto(url, wait_until="commit")
    entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    # Asked by the clock: no frame is drawn, and nothing asked with it, before something is painted.
    try:
        return page.wait_for_function(entry, timeout=30_000, polling=50).json_value() / 1000
    except NotInTime:
        return math.inf
    finally:
        context.close()
