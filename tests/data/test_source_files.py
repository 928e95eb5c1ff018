"""Finding the files of a data source."""

import os
import sys
import unicodedata

import pytest

from cxrtut.data.decode import IMAGE_SUFFIXES
from cxrtut.data.source_files import (
    by_name,
    by_stem,
    find_files,
    one_file,
    one_file_each,
    printable,
)
from cxrtut.data.source_tables import SourceError

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")


def make(folder, *names, content=b""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def names_below(*folders):
    """What is found, as paths below the first folder or its parent."""
    return [os.path.relpath(path, folders[0]) for path in find_files(folders).files]


# What is searched


def test_files_come_by_path_and_those_of_the_first_folder_first(tmp_path):
    make(tmp_path / "b", "2.png", "deep/er/1.png", "deep/0.txt")
    make(tmp_path / "a", "1.png")
    assert names_below(tmp_path / "b", tmp_path / "a") == [
        "2.png", "deep/0.txt", "deep/er/1.png", "../a/1.png"
    ]  # fmt: skip


def test_a_mistyped_folder_is_named(tmp_path):
    make(tmp_path, "file")
    with pytest.raises(SourceError, match="nowhere: expected a folder, got nothing"):
        find_files([tmp_path, tmp_path / "nowhere"])
    with pytest.raises(SourceError, match="file: expected a folder, got a file"):
        find_files([tmp_path / "file"])


def test_links_to_folders_and_files_are_followed(tmp_path):
    make(tmp_path / "disk", "images/1.png", "2.png")
    make(tmp_path / "in", "0.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "disk" / "images")
    (tmp_path / "in" / "3.png").symlink_to(tmp_path / "disk" / "2.png")
    assert names_below(tmp_path / "in") == ["0.png", "3.png", "more/1.png"]
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert names_below(tmp_path / "link") == ["0.png", "3.png", "more/1.png"]


def test_links_in_a_circle_end(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "itself").symlink_to(tmp_path / "b" / "itself")
    (tmp_path / "b" / "itself.png").symlink_to(tmp_path / "b" / "itself.png")
    assert names_below(tmp_path) == ["a/1.png", "b/2.png"]


def test_a_folder_that_is_met_twice_counts_once_by_its_own_path(tmp_path):
    make(tmp_path, "train/1.png")
    (tmp_path / "a_link").symlink_to(tmp_path / "train")
    assert names_below(tmp_path) == ["train/1.png"]
    assert names_below(tmp_path, tmp_path / "train", tmp_path / "a_link") == ["train/1.png"]
    assert names_below(tmp_path / "train", tmp_path) == ["1.png"]


def test_what_is_hidden_is_passed_over_and_a_hidden_folder_can_be_named(tmp_path):
    make(
        tmp_path, "a.png", "._a.png", ".DS_Store", ".ipynb_checkpoints/a.png", "__MACOSX/a.png",
        "deep/__MACOSX/a.png", "deep/.cache/a.png", "@eaDir/a.png", "$RECYCLE.BIN/a.png",
    )  # fmt: skip
    found = find_files([tmp_path])
    assert [path.name for path in found.files] == ["a.png"] and not found.left_out
    assert names_below(tmp_path / "deep" / ".cache") == ["a.png"]


def test_a_link_to_nothing_is_no_file_and_one_named_as_an_image_is_told(tmp_path):
    for name in ("a.png", "labels.csv", "folder"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    found = find_files([tmp_path])
    assert found.files == () and found.dangling == (tmp_path / "a.png",)
    assert found.table("labels.csv") is None


@only_linux
def test_images_whose_path_is_not_utf_8_are_left_out_and_named_in_printable_words(tmp_path):
    make(tmp_path, "a.png")
    top = os.fsencode(tmp_path)
    os.mkdir(top + b"/M\xfcller")
    for name in (b"/M\xfcller/b.png", b"/M\xfcller/notes.txt", b"/L\xe4sion.png"):
        with open(top + name, "wb"):
            pass
    found = find_files([tmp_path])
    assert found.files == (tmp_path / "a.png",)
    assert found.left_out == (
        rf"{tmp_path}/L\xe4sion.png: expected a path in UTF-8",
        rf"{tmp_path}/M\xfcller/b.png: expected a path in UTF-8",
    )
    with pytest.raises(SourceError, match=r"M\\xfcller: expected a folder whose path is UTF-8"):
        find_files([os.fsdecode(top + b"/M\xfcller")])


def test_a_name_in_utf_8_is_printed_as_it_is():
    assert printable("L\u00e4sion \u0141.png") == "L\u00e4sion \u0141.png"


def test_a_folder_that_cannot_be_opened_is_named_and_the_rest_is_searched(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "lost+found/b.png")
    scandir = os.scandir

    def refused(path):
        if "lost" in str(path):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = find_files([tmp_path])
    assert found.files == (tmp_path / "a.png",)
    [line] = found.left_out
    assert line.endswith("lost+found: the folder cannot be opened (Permission denied)")
    with pytest.raises(PermissionError):
        find_files([tmp_path / "lost+found"])


def test_images_are_known_by_their_ending_in_upper_and_lower_case(tmp_path):
    make(tmp_path, "a.PNG", "b.Jpeg", "c.dcm", "d.tif", "e.txt", "png")
    assert [path.name for path in find_files([tmp_path]).images] == [
        "a.PNG", "b.Jpeg", "c.dcm", "d.tif"
    ]  # fmt: skip
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


# Tables


def test_the_first_name_wins_and_the_plain_file_over_the_gzipped(tmp_path):
    make(tmp_path / "deep", "new.csv.gz", "old.csv", "old.csv.gz")
    found = find_files([tmp_path])
    assert found.table("new.csv", "old.csv") == tmp_path / "deep" / "new.csv.gz"
    assert found.table("old.csv") == tmp_path / "deep" / "old.csv"
    assert found.table("other.csv") is None


def test_of_tables_of_one_name_the_one_in_the_first_folder_wins_and_there_the_first_by_path(
    tmp_path,
):
    make(tmp_path, "b/list.txt", "a/z/list.txt", "a/y/list.txt")
    assert find_files([tmp_path / "b", tmp_path / "a"]).table("list.txt") == (
        tmp_path / "b" / "list.txt"
    )
    assert find_files([tmp_path / "a"]).table("list.txt") == tmp_path / "a" / "y" / "list.txt"


# Names


def test_files_are_grouped_by_their_names_with_and_without_ending(tmp_path):
    a, b, c = tmp_path / "a.png", tmp_path / "deep" / "a.png", tmp_path / "1.2.dcm"
    assert by_stem([a, b, c]) == {"a": (a, b), "1.2": (c,)}
    assert by_name([a, b, c]) == {"a.png": (a, b), "1.2.dcm": (c,)}


def test_both_ways_to_write_an_accent_are_one_name(tmp_path):
    composed = tmp_path / "Z\u00fcrich.png"
    decomposed = tmp_path / unicodedata.normalize("NFD", composed.name)
    assert composed != decomposed
    assert by_stem([composed, decomposed]) == {"Z\u00fcrich": (composed, decomposed)}


def test_of_equal_copies_the_first_is_taken_and_the_names_are_counted(tmp_path):
    make(tmp_path, "a/x.png", "b/x.png", "c/x.jpg", "a/y.png", content=b"same")
    files = by_stem(find_files([tmp_path]).images)
    chosen, warnings = one_file_each(["x", "y"], files)
    assert chosen == {"x": tmp_path / "a" / "x.png", "y": tmp_path / "a" / "y.png"}
    assert warnings == ["1 images are there more than once, as equal copies; the first is taken"]
    assert one_file_each(["y"], files)[1] == []


@pytest.mark.parametrize("other", [b"longer", b"samE"])
def test_two_files_of_one_name_that_differ_are_both_named(tmp_path, other):
    make(tmp_path, "a/x.png", content=b"same")
    make(tmp_path, "b/x.jpg", content=other)
    words = r"x: expected one file of that name, .*a/x\.png and .*b/x\.jpg, which differ"
    with pytest.raises(SourceError, match=words):
        one_file("x", by_stem(find_files([tmp_path]).images)["x"])
