import pytest

from cxrtut.viz.tables import Table


def test_numbers_are_rounded_and_aligned_right():
    table = Table([{"class": "Mass", "auroc": 0.7555, "n": 71}], digits=2)
    assert table._repr_markdown_().splitlines() == [
        "| class | auroc | n |",
        "| --- | ---: | ---: |",
        "| Mass | 0.76 | 71 |",
    ]
    assert repr(table).splitlines()[1].split() == ["Mass", "0.76", "71"]


def test_an_undefined_number_is_a_dash():
    assert "| – |" in Table([{"a": float("nan")}])._repr_markdown_()


def test_rows_with_other_columns_are_named():
    with pytest.raises(ValueError, match=r"\['a'\], got \['b'\]"):
        Table([{"a": 1}, {"b": 2}])
