"""Captions and numbers of the pictures and tables of an executed page."""

import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

BOOK = Path(__file__).resolve().parents[1] / "book"
sys.path += [str(BOOK)]
from captions import complaints  # noqa: E402

WIDGET = "application/vnd.jupyter.widget-view+json"


def told(caption, alt="a lung"):
    return {"mystnb": {"image": {"alt": alt}, "figure": {"caption": caption}}}


def picture(caption="Figure 1. A lung", alt="a lung", times=1, kind="image/png"):
    shown = [new_output("display_data", {kind: "", "text/plain": "<Figure>"})] * times
    return new_code_cell("draw(x)\nmore()", outputs=shown, metadata=told(caption, alt))


def html(text, tags=()):
    shown = [new_output("execute_result", {"text/html": text, "text/plain": "x"})]
    return new_code_cell("show(y)", outputs=shown, metadata={"tags": list(tags)})


def table(caption):
    inner = "" if caption is None else f"<caption>{caption}</caption>"
    return html(f'<div class="table-box"><table class="table">{inner}<tr><td>1</table></div>')


def slider(caption, alt="a lung"):
    frames = f'<img alt="{alt}"><img hidden alt="{alt}">'
    caption = "" if caption is None else f"<figcaption>{caption}</figcaption>"
    return html(f'<figure class="image-slider">{frames}{caption}</figure>')


def figure(caption, alt="a chart"):
    return new_markdown_cell(f"Text\n\n```{{figure}} a.svg\n:alt: {alt}\n\n{caption}\n```")


def said(*cells):
    return complaints(new_notebook(cells=list(cells)))


def test_what_is_numbered_in_the_order_of_the_page_is_right():
    assert said(
        figure("Figure 1. A chart"), table("Table 1. <em>What</em> it is"), picture("Figure 2. A"),
        slider("Figure 3. Slide"), table("Table 2. B"), picture("Figure 4. C", kind="image/jpeg"),
        new_markdown_cell("```{table} Table 3. By hand\n| a |\n|---|\n| b |\n```"),
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    "caption", ["A lung", "Figure 2. A lung", "Fig. 1. A", "Figure 1 A", "Figure 1."]
)
def test_another_beginning_is_answered_with_the_number_and_the_cell(caption):
    assert said(picture(caption)) == [
        f"expected a caption that begins 'Figure 1.', got {caption!r}: draw(x)"
    ]


def test_numbers_go_on_after_one_that_is_wrong():
    found = said(picture("Figure 1. A"), slider("Figure 3. B"), picture("Figure 3. C"))
    assert found == ["expected a caption that begins 'Figure 2.', got 'Figure 3. B': show(y)"]


def test_a_caption_that_is_missing_is_named_with_the_number_expected():
    bare = new_code_cell("draw(z)", outputs=picture().outputs, metadata=told("", "a"))
    assert said(table("Table 1. A"), table(None), bare, slider(None)) == [
        "expected a caption that begins 'Table 2.', got none: show(y)",
        "expected a caption that begins 'Figure 1.', got none: draw(z)",
        "expected a caption that begins 'Figure 2.', got none: show(y)",
    ]


def test_a_picture_needs_an_alternative_text_wherever_it_is():
    wanted = "a picture without alternative text: "
    assert said(picture(alt="")) == [wanted + "draw(x)"]
    assert said(slider("Figure 1. A", alt="")) == [wanted + "show(y)"]
    silent = new_markdown_cell("```{figure} a.svg\n\nFigure 1. A\n```")
    assert said(silent) == [wanted + "{figure} a.svg"]


def test_pictures_in_text_are_figures():
    assert said(new_markdown_cell("see ![a lung](a.png)")) == [
        "expected a caption that begins 'Figure 1.', got none: ![a lung](a.png)"
    ]
    folded = new_markdown_cell("````{dropdown} More\n```{figure} a.svg\n:alt: a\n\nB\n```\n````")
    assert said(folded) == ["expected a caption that begins 'Figure 1.', got 'B': {figure} a.svg"]


def test_groups_of_readings_need_no_number_and_do_not_count():
    group = html('<table class="table readings"><caption>Data</caption></table>')
    assert said(group, table("Table 1. A")) == []


def test_what_is_not_shown_does_not_count():
    gone = html('<table class="table"></table>', tags=["remove-cell"])
    assert said(gone, html("<pre>code</pre>"), table("Table 1. A")) == []


def test_several_pictures_cannot_share_a_caption_and_a_widget_needs_a_kernel():
    assert said(picture(times=2)) == ["several pictures under one caption: draw(x)"]
    output = new_output("display_data", {WIDGET: {}, "text/plain": "bar"})
    assert said(new_code_cell("bar()", outputs=[output])) == [
        "a widget, which a page without a kernel cannot show: bar()"
    ]
