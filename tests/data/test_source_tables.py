import gzip

import pytest

from cxrtut.data.source_tables import SourceError, find_files, find_table, read_csv, read_names


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


def test_the_first_name_wins_and_the_plain_file_over_the_gzipped(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("new.csv.gz", "old.csv", "old.csv.gz"):
        (tmp_path / "deep" / name).touch()
    assert find_table([tmp_path], "new.csv", "old.csv").name == "new.csv.gz"
    assert find_table([tmp_path], "old.csv").name == "old.csv"
    assert find_table([tmp_path], "other.csv") is None


def test_an_earlier_suffix_wins_over_a_later(tmp_path):
    for name in ("x.jpg", "x.PNG", "y.jpg", "z.txt"):
        (tmp_path / name).touch()
    found = find_files([tmp_path], (".png", ".jpg"))
    assert found == {"x": tmp_path / "x.PNG", "y": tmp_path / "y.jpg"}
    with pytest.raises(SourceError, match="expected a folder"):
        find_files([tmp_path / "nowhere"], (".png",))
