import gzip

import pytest

from cxrtut.data.decode import Frame
from cxrtut.data.source_tables import (
    SourceError,
    box_corners,
    boxes_in_store,
    number,
    read_csv,
    read_names,
)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_table_is_read_with_line_numbers_gzipped_or_not(tmp_path, name):
    text = '\ufeffname,labels\na,"x,\ny"\nb,z\n'.encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    rows = list(read_csv(tmp_path / name, ["name", "labels"]))
    assert rows == [(3, {"name": "a", "labels": "x,\ny"}), (4, {"name": "b", "labels": "z"})]


def test_missing_columns_short_rows_and_missing_files_are_named(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("name,labels\na\n")
    with pytest.raises(SourceError, match=r"table\.csv: expected columns \['age'\], got"):
        list(read_csv(path, ["name", "age"]))
    with pytest.raises(SourceError, match=r"table\.csv, line 2: expected"):
        list(read_csv(path, ["name", "labels"]))
    with pytest.raises(SourceError, match="no such file"):
        list(read_csv(tmp_path / "none.csv", []))


def test_names_are_read_without_blank_lines(tmp_path):
    (tmp_path / "list.txt").write_text("a.png\r\n\n b.png \n")
    assert read_names(tmp_path / "list.txt") == {"a.png", "b.png"}


def test_a_table_separated_by_tabs_is_read_whatever_its_name(tmp_path):
    (tmp_path / "table").write_text('"name"\t"labels"\n"a"\t"x, y"\n')
    assert list(read_csv(tmp_path / "table", ["name"])) == [(2, {"name": "a", "labels": "x, y"})]


def test_a_table_that_is_no_utf8_text_is_named_with_its_line(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"name\na\nM\xfcller\n")
    with pytest.raises(SourceError, match=r"table\.csv, line 3: expected UTF-8 text"):
        list(read_csv(tmp_path / "table.csv", ["name"]))
    with pytest.raises(SourceError, match=r"table\.csv, line 3: expected UTF-8 text"):
        read_names(tmp_path / "table.csv")


def test_a_damaged_gzip_file_is_named(tmp_path):
    path = tmp_path / "table.csv.gz"
    packed = gzip.compress(b"".join(b"name %d\n" % (i * i) for i in range(5000)))
    flipped = bytearray(packed)
    flipped[200:300] = bytes(100)
    for damaged in (packed[:-20], bytes(flipped), b"<html>sign in</html>"):
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"table\.csv\.gz, line \d+: expected a whole gzip"):
            read_names(path)


def test_what_the_csv_reader_refuses_is_named_with_its_line(tmp_path):
    (tmp_path / "table.csv").write_text("name\na\n" + "b" * 200_000 + "\n")
    with pytest.raises(SourceError, match=r"table\.csv, line 3: field larger than field limit"):
        list(read_csv(tmp_path / "table.csv", ["name"]))


@pytest.mark.parametrize("text", ["", "x", "nan", "-inf"])
def test_what_is_no_finite_number_is_named(text):
    assert number({"x": " 2.5"}, "x", "table.csv", 7) == 2.5
    with pytest.raises(
        SourceError, match=f"table.csv, line 7: expected a number as x, got {text!r}"
    ):
        number({"x": text}, "x", "table.csv", 7)


def test_a_box_may_hang_over_the_border_but_not_lie_beside_the_image():
    row = {"x": "-2", "y": "0", "width": "4", "height": "11"}
    assert box_corners(row, "a.png", 10, "t.csv", 3) == (-2, 0, 2, 11)
    with pytest.raises(SourceError, match=r"t\.csv, line 3: expected a box inside .*a\.png"):
        box_corners(row | {"width": "2"}, "a.png", 10, "t.csv", 3)


def test_boxes_of_a_square_original_fit_a_square_file_of_any_size():
    for size in (1024, 300, 256):
        boxes = boxes_in_store([(0, 256, 512, 1030)], 1024, Frame(size, size, 64), "a.png")
        assert boxes.tolist() == [[0, 16, 32, 64]]


def test_boxes_on_a_file_that_is_not_square_are_refused_and_no_boxes_do():
    frame = Frame(224, 256, 64)
    assert boxes_in_store([], 1024, frame, "a.png").shape == (0, 4)
    words = r"a\.png: .* of 1024 x 1024; expected a square file, got 224 x 256 pixels"
    with pytest.raises(SourceError, match=words):
        boxes_in_store([(0, 0, 9, 9)], 1024, frame, "a.png")
