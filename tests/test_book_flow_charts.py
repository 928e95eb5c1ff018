"""The flow charts of the papers: text that a telephone shows, inside its box, on any ground."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from viz.sight import contrast, luminance

FOLDER = Path(__file__).parents[1] / "book" / "_static"
PHONE = 358  # pixels of a figure on a page of 390
WIDER = FontProperties(family="DejaVu Sans")  # than the usual sans-serif
every_chart = pytest.mark.parametrize(
    "name", ["biomarker", "disease_masks", "pillet_gan", "pix2pix"]
)
Box = tuple[float, float, float, float]


def chart(name: str) -> tuple[list[tuple[str, float, str, Box]], list[tuple[Box, str]], Box]:
    """Texts (words, size, colour, box), filled shapes (box, colour) and the view of a chart."""
    root = ElementTree.parse(FOLDER / f"{name}.svg").getroot()
    parents = {child: parent for parent in root.iter() for child in parent}

    def of(element: ElementTree.Element, key: str) -> str:
        found = element
        while key not in found.attrib:
            found = parents[found]
        return found.attrib[key]

    texts, shapes = [], []
    for element in root.iter():
        tag = element.tag.split("}")[1]
        if tag == "text":
            size, words = float(of(element, "font-size")), element.text or ""
            x, y = float(element.attrib["x"]), float(element.attrib["y"])
            width = TextPath((0, 0), words, size=size, prop=WIDER).get_extents().x1
            middle = any("text-anchor" in e.attrib for e in (element, parents[element]))
            left = x - width / 2 if middle else x
            box = (left, y - 0.8 * size, left + width, y + 0.25 * size)
            texts.append((words, size, of(element, "fill"), box))
        elif tag == "rect":
            x, y, w, h = (float(element.attrib[k]) for k in ("x", "y", "width", "height"))
            shapes.append(((x, y, x + w, y + h), element.attrib["fill"]))
        elif tag == "circle":
            x, y, r = (float(element.attrib[k]) for k in ("cx", "cy", "r"))
            shapes.append(((x - r, y - r, x + r, y + r), element.attrib["fill"]))
    view = [float(number) for number in root.attrib["viewBox"].split()]
    return texts, shapes, (view[0], view[1], view[2], view[3])


def light(colour: str) -> float:
    return float(luminance(np.array(to_rgb(colour))))


def meets(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def within(one: Box, other: Box) -> bool:
    return other[0] <= one[0] and one[2] <= other[2] and other[1] <= one[1] and one[3] <= other[3]


@every_chart
def test_text_has_ten_pixels_on_a_telephone(name: str) -> None:
    texts, _, view = chart(name)
    assert texts
    for words, size, _, box in texts:
        assert size * PHONE / view[2] >= 10, words
        assert within(box, (0, 0, view[2], view[3])), f"cut: {words}"


@every_chart
def test_no_text_meets_another_or_crosses_the_edge_of_a_box(name: str) -> None:
    texts, shapes, _ = chart(name)
    for i, (words, _, _, box) in enumerate(texts):
        for other, _, _, there in texts[:i]:
            assert not meets(box, there), f"{words} on {other}"
        for shape, _ in shapes:
            assert within(box, shape) or not meets(box, shape), words


@every_chart
def test_text_is_read_on_white_and_on_black_pages_and_on_its_box(name: str) -> None:
    texts, shapes, _ = chart(name)
    for words, _, colour, box in texts:
        under = [fill for shape, fill in shapes if within(box, shape)]
        if not under and words == "G":  # on the hourglass, which is a path
            under = ["#fbe3b5"]
        grounds = [light(fill) for fill in under[-1:]] or [0.0, 1.0]
        assert min(contrast(light(colour), ground) for ground in grounds) >= 4.5, words


@every_chart
def test_lines_show_on_white_and_on_black_pages(name: str) -> None:
    strokes = set(re.findall(r'stroke="(#\w+)"', (FOLDER / f"{name}.svg").read_text()))
    assert strokes
    for stroke in strokes:
        assert min(contrast(light(stroke), 0.0), contrast(light(stroke), 1.0)) >= 3
