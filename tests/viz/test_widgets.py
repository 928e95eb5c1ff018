import base64
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from cxrtut.viz import widgets

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (12, 20)).astype(np.uint8)
COLOUR = RANDOM.integers(0, 256, (12, 20, 3)).astype(np.uint8)
FRAMES = [np.full((4, 6), v, np.uint8) for v in (0, 9, 200)]
WORDS = {"caption": "Figure 3. Cuts.", "alt": "A square."}


class Tags(HTMLParser):
    """The tags of an HTML text with their attributes, and the text of each tag by its name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        name = self.found[-1][0]
        self.text[name] = self.text.get(name, "") + data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def shown(states: list[str], **options: object) -> Tags:
    slider = widgets.image_slider(FRAMES, states, "cut", **{**WORDS, **options})  # type: ignore
    return Tags(slider._repr_html_())


def decoded(data: bytes) -> np.ndarray:
    """Pixels of an image file; three equal channels as one, three others as RGB."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and (image == image[..., :1]).all():
        return image[..., 0]
    return image[..., ::-1] if image.ndim == 3 else image


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_files_keep_every_value_and_the_order_of_the_colours(image):
    assert np.array_equal(decoded(widgets.png(image)), image)
    form, data = widgets.smallest_file(image)
    assert np.array_equal(decoded(data), image)
    assert len(data) <= len(widgets.png(image))
    assert data[:4] == {"png": b"\x89PNG", "webp": b"RIFF"}[form]


def test_a_ramp_is_stored_as_webp_which_is_then_the_smaller_of_both_formats():
    ramp = np.add.outer(np.arange(128), np.arange(128)).astype(np.uint8)
    form, data = widgets.smallest_file(ramp)
    assert form == "webp"
    assert len(data) < len(widgets.png(ramp))


@pytest.mark.parametrize("colours", [(), (3,)])
def test_a_montage_fills_rows_from_the_left_and_pads_with_black(colours):
    images = np.stack([np.full((2, 3, *colours), v, np.uint8) for v in (1, 2, 3)])
    sheet = widgets.montage(images, columns=2)
    assert sheet.shape == (4, 6, *colours)
    corners = [sheet[0, 0], sheet[0, 3], sheet[2, 0], sheet[2, 3]]
    assert [np.unique(corner).tolist() for corner in corners] == [[1], [2], [3], [0]]


def test_one_image_is_visible_and_each_has_its_file_its_size_and_its_state_in_words():
    images = shown(["a", "b", "c"], start=1).of("img")
    assert ["hidden" in image for image in images] == [True, False, True]
    assert [image["alt"] for image in images] == ["A square: a", "A square: b", "A square: c"]
    assert [image["data-state"] for image in images] == ["a", "b", "c"]
    assert {(image["width"], image["height"]) for image in images} == {("6", "4")}
    files = [base64.b64decode((image["src"] or "").partition("base64,")[2]) for image in images]
    for file, frame in zip(files, FRAMES, strict=True):
        assert np.array_equal(decoded(file), frame)


def test_the_input_has_a_label_its_range_and_the_words_of_its_value():
    tags = shown(["none", "some", "all"], start=1)
    (control,) = tags.of("input")
    asked = ("type", "min", "max", "value", "aria-valuetext", "autocomplete")
    assert [control[name] for name in asked] == ["range", "0", "2", "1", "some", "off"]
    order = [tag for tag, _ in tags.found]
    assert order.index("label") == order.index("input") - 1
    assert tags.text["label"].strip() == "cut"
    assert tags.text["figcaption"] == "Figure 3. Cuts."
    assert tags.text["div"] == "some"


def test_a_slider_takes_no_name_that_another_one_on_the_page_could_take():
    tags = shown(["a", "b", "c"])
    assert not any({"id", "name", "for"} & attributes.keys() for _, attributes in tags.found)
    assert tags.of("script") == tags.of("style") == []


def test_words_with_signs_of_html_are_shown_as_they_are():
    tags = shown(["x < 1", 'say "b"', "c & d"], caption="Figure 1. <b>", alt="'<i>'")
    assert tags.of("b") == tags.of("i") == []
    assert tags.text["figcaption"] == "Figure 1. <b>"
    assert [image["data-state"] for image in tags.of("img")] == ["x < 1", 'say "b"', "c & d"]


def test_a_terminal_gets_one_line():
    slider = widgets.image_slider(FRAMES, ["0", "1", "2"], "cut", **WORDS)
    assert repr(slider) == "Figure 3. Cuts. [slider: cut, from '0' to '2']"


@pytest.mark.parametrize(
    ("frames", "states", "options", "told"),
    [
        ([], ["a"], {}, "got 1 states and 0 frames"),
        ([], [], {}, "got 0 states and 0 frames"),
        (FRAMES, ["a"], {}, "got 1 states and 3 frames"),
        (FRAMES, ["a", "b", "c"], {"start": 3}, "expected a start from 0 to 2, got 3"),
        (FRAMES, ["a", "b", "c"], {"start": -1}, "got -1"),
        (FRAMES, ["a", "b", "c"], {"caption": " "}, "expected a text for caption"),
        (FRAMES, ["a", "b", "c"], {"alt": ""}, "expected a text for alt"),
        ([FRAMES[0], GREY], ["a", "b"], {}, r"one size, got \[\(4, 6\), \(12, 20\)\]"),
    ],
)
def test_what_cannot_be_shown_is_an_error_that_says_why(frames, states, options, told):
    with pytest.raises(ValueError, match=told):
        widgets.image_slider(frames, states, "cut", **{**WORDS, **options})
