"""Tables: HTML that a screen reader can follow, and text that fits a terminal."""

import xml.etree.ElementTree as ElementTree

import pytest

from cxrtut.viz.tables import WIDTH, Table

ROWS = [{"class": "Mass", "auroc": 0.7555, "n": 71}, {"class": "Nodule", "auroc": 0.5, "n": 9}]


def html(rows, caption="Table 2. Held out: 40 patients. More."):
    return ElementTree.fromstring(Table(rows, caption=caption)._repr_html_())


def test_numbers_are_rounded_and_aligned_right():
    number, text = html(ROWS).findall(".//tbody/tr[1]/td")[0], html(ROWS).find(".//tbody/tr/th")
    assert number.text == "0.76" and number.get("style") == "text-align: right"
    assert text.text == "Mass" and text.get("style") == "text-align: left"
    assert repr(Table(ROWS, caption="c")).splitlines()[1:] == [
        "class   auroc   n",
        "Mass     0.76  71",
        "Nodule   0.50   9",
    ]
    assert "0.8" in repr(Table(ROWS, caption="c", digits=1))


@pytest.mark.parametrize(
    "cell", ["0.500\u00a0±\u00a00.010", "+0.2 ± 0.1 (3 seeds)", ".5", "–", None]
)
def test_text_that_is_a_number_is_aligned_like_one_and_words_are_not(cell):
    assert html([{"a": "x", "b": cell}]).find(".//td").get("style") == "text-align: right"
    mixed = html([{"a": "x", "b": cell}, {"a": "x", "b": "3 modes"}])
    assert {td.get("style") for td in mixed.findall(".//td")} == {"text-align: left"}


def test_every_cell_has_a_head_for_its_column_and_one_for_its_row():
    table = html(ROWS).find("table")
    assert table.get("class") == "table"
    assert table.find("caption").text == "Table 2. Held out: 40 patients. More."
    heads = table.findall("thead/tr/th")
    assert [(h.text, h.get("scope")) for h in heads] == [
        ("class", "col"), ("auroc", "col"), ("n", "col")
    ]  # fmt: skip
    for row in table.findall("tbody/tr"):
        assert [(cell.tag, cell.get("scope")) for cell in row] == [
            ("th", "row"), ("td", None), ("td", None)
        ]  # fmt: skip


def test_the_keyboard_reaches_a_box_that_scrolls_and_has_a_short_name():
    box = html(ROWS)
    assert (box.tag, box.get("class"), box.get("tabindex")) == ("div", "table-box", "0")
    assert box.get("role") == "region" and "overflow-x: auto" in box.get("style")
    assert box.get("aria-label") == "Table 2. Held out"
    assert html(ROWS, "At T = .5 it is 0.25").get("aria-label") == "At T = .5 it is 0.25"


@pytest.mark.parametrize("caption", ["", "  \n"])
def test_a_table_without_caption_is_refused(caption):
    with pytest.raises(ValueError, match="expected a caption that says what is shown, got"):
        Table(ROWS, caption=caption)
    with pytest.raises(TypeError):
        Table(ROWS)


def test_an_undefined_number_is_a_dash():
    assert html([{"x": "y", "a": float("nan")}]).find(".//td").text == "–"
    assert html([{"x": "y", "a": None}]).find(".//td").text == "–"


def test_text_cannot_break_the_table():
    made = html([{"<i>": "<b>", "c": '"&'}], '<u> "a" & b')
    assert [e.text for e in made.iter() if e.text] == ['<u> "a" & b', "<i>", "c", "<b>", '"&']
    assert made.get("aria-label") == '<u> "a" & b'


def test_no_line_of_a_page_ends_inside_a_size():
    table = Table([{"layer": "Conv2d 1 -> 4, 3 x 3", "x": "y x z"}], caption="Layers")
    html = table._repr_html_()
    assert "Conv2d 1 -&gt; 4, 3\xa0x\xa03<" in html and ">y x z<" in html
    assert "3 x 3" in repr(table)


def test_rows_with_other_columns_are_named():
    with pytest.raises(ValueError, match=r"\['a'\], got \['b'\]"):
        Table([{"a": 1}, {"b": 2}], caption="c")


def test_without_rows_the_caption_stands_alone():
    assert repr(Table([], caption="Nothing yet")).strip() == "Nothing yet"
    assert html([]).find("table/caption") is not None


def test_long_text_is_wrapped_inside_its_column_and_numbers_stay_whole():
    long = "one two three four five six seven eight nine ten " * 4
    table = Table(
        [{"claim": long.strip(), "n": 3, "why": long.strip()}, {"claim": "b", "n": 10, "why": "c"}],
        caption="Said at length: " + long,
    )
    lines = repr(table).splitlines()
    assert max(map(len, lines)) <= WIDTH < len(long)
    body = lines[lines.index(next(line for line in lines if line.startswith("claim"))) + 1 :]
    place = lines[-1].index("10")
    assert body[0][place : place + 2] == " 3" and body[-1].split() == ["b", "10", "c"]
    assert all(line[place : place + 2].strip() == "" for line in body[1:-1])
    assert " ".join(line[: place - 2].strip() for line in body[:-1]).split() == long.split()


def test_a_word_is_never_cut():
    word = "x" * (WIDTH + 20)
    assert word in repr(Table([{"a": word, "b": "y"}], caption="c"))
