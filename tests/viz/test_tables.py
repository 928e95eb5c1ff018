import pytest

from cxrtut.viz.tables import Table


def test_numbers_are_rounded_and_aligned_right():
    table = Table([{"class": "Mass", "auroc": 0.7555, "n": 71}], digits=2)
    html = table._repr_html_()
    assert '<td style="text-align: left">Mass</td>' in html
    assert '<td style="text-align: right">0.76</td>' in html
    assert repr(table).splitlines()[1].split() == ["Mass", "0.76", "71"]


def test_an_undefined_number_is_a_dash():
    assert ">–</td>" in Table([{"a": float("nan")}])._repr_html_()


def test_text_cannot_break_the_table():
    assert "<b>" not in Table([{"a": "<b>"}])._repr_html_()


def test_rows_with_other_columns_are_named():
    with pytest.raises(ValueError, match=r"\['a'\], got \['b'\]"):
        Table([{"a": 1}, {"b": 2}])
