import io
import json
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from cxrtut.data import prepare
from cxrtut.data.decode import ImageError
from cxrtut.data.prepare import DecodedImage, ImageSource, Preparation, StoreSpec, prepare_store
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import ArrayStore, StoreError

SPEC = StoreSpec(source="test", licence="none", classes=("Mass",), size=4)


def sources(n, decode):
    lines = [{"name": str(i), "patient": str(i), "split": "train"} for i in range(n)]
    return [ImageSource(lambda i=i: decode(i), [i % 2], lines[i]) for i in range(n)]


def picture(i):
    return DecodedImage(np.full((1, 4, 4), i % 256, np.uint8), boxes=[(0, 0.0, 0.0, 1.0, 1.0, "x")])


def test_images_stay_in_order_however_long_each_takes(tmp_path):
    def slow_at_first(i):
        time.sleep(0.02 if i % 7 == 0 else 0)
        return picture(i)

    report = prepare_store(sources(300, slow_at_first), SPEC, tmp_path / "s", threads=4)
    store = ArrayStore.open(tmp_path / "s", verify="full")
    assert report.images == 300
    assert store.images[:, 0, 0, 0].tolist() == [i % 256 for i in range(300)]
    assert store.boxes.row.tolist() == list(range(300))


def test_the_unreadable_are_left_out_across_blocks(tmp_path):
    def sometimes(i):
        if i % 10 == 3:
            raise ImageError(f"{i}.png: torn\nin two")
        return picture(i)

    report = prepare_store(sources(300, sometimes), SPEC, tmp_path / "s", threads=2)
    store = ArrayStore.open(tmp_path / "s", verify="full")
    expected = [i for i in range(300) if i % 10 != 3]
    assert store.table["name"].tolist() == [str(i) for i in expected]
    assert store.images[:, 0, 0, 0].tolist() == [i % 256 for i in expected]
    assert store.labels[:, 0].tolist() == [i % 2 for i in expected]
    assert len(report.broken) == 30 and report.broken[0] == "3.png: torn in two"


@pytest.mark.parametrize("watched", [True, False])
def test_progress_counts_the_unreadable_too_and_is_shown_on_a_terminal_only(
    tmp_path, monkeypatch, watched
):
    def torn(i):
        if i == 3:
            raise ImageError("3.png: torn")
        return picture(i)

    terminal = io.StringIO()
    terminal.isatty = lambda: watched
    monkeypatch.setattr("sys.stderr", terminal)
    prepare_store(sources(50, torn), SPEC, tmp_path / "s", threads=1)
    told = terminal.getvalue()
    assert ("decoding: 100%" in told and "50/50" in told) if watched else told == ""


def test_any_other_error_stops_the_preparation_and_leaves_nothing(tmp_path):
    def fails(i):
        if i == 5:
            raise MemoryError
        return picture(i)

    with pytest.raises(MemoryError):
        prepare_store(sources(50, fails), SPEC, tmp_path / "s", threads=2)
    assert list(tmp_path.iterdir()) == []
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name]


def test_nothing_found_and_nothing_readable_are_errors(tmp_path):
    def fails(i):
        raise ImageError(f"{i}.png: torn")

    with pytest.raises(SourceError, match="test: no image was found"):
        prepare_store([], SPEC, tmp_path / "s")
    with pytest.raises(SourceError, match=r"none of 2 images can be read: 0\.png: torn"):
        prepare_store(sources(2, fails), SPEC, tmp_path / "s")


def test_a_damaged_store_is_made_anew_and_a_foreign_folder_is_left_alone(tmp_path):
    prepare_store(sources(3, picture), SPEC, tmp_path / "s")
    with open(tmp_path / "s" / "images.npy", "r+b") as file:
        file.truncate(20)
    assert not prepare_store(sources(3, picture), SPEC, tmp_path / "s").already_prepared
    assert prepare_store(sources(3, picture), SPEC, tmp_path / "s").already_prepared
    (tmp_path / "other").mkdir()
    with pytest.raises(StoreError, match="not overwritten, remove it or choose another folder"):
        prepare_store(sources(3, picture), SPEC, tmp_path / "other")


def test_a_changed_date_size_name_or_setting_of_the_inputs_prepares_anew(tmp_path):
    file = tmp_path / "input.png"
    file.write_bytes(b"12")
    os.utime(file, (1, 1))

    def again(**changes):
        spec = replace(SPEC, **({"inputs": [file]} | changes))
        report = prepare_store(sources(2, picture), spec, tmp_path / "s", overwrite=True)
        return report.already_prepared

    assert [again(), again()] == [False, True]
    os.utime(file, (2, 2))
    assert [again(), again()] == [False, True]
    file.write_bytes(b"123")
    os.utime(file, (2, 2))
    assert [again(), again()] == [False, True]
    assert not again(inputs=[file.rename(tmp_path / "other.png")])
    file = tmp_path / "other.png"
    assert not again(settings={"limit": 2})


def test_a_store_made_otherwise_is_replaced_only_when_asked_and_the_error_says_what_differs(
    tmp_path,
):
    file = tmp_path / "input.png"
    file.write_bytes(b"12")

    def made(overwrite=False, **changes):
        spec = replace(SPEC, inputs=[file], settings={"limit": None, **changes})
        return prepare_store(sources(2, picture), spec, tmp_path / "s", overwrite=overwrite)

    made()
    before = (tmp_path / "s" / "store.json").read_bytes()
    with pytest.raises(StoreError, match=r"but limit was None, now is 2; pass --overwrite"):
        made(limit=2)
    file.write_bytes(b"123")
    with pytest.raises(StoreError, match=r"dates of the input files differ; pass --overwrite"):
        made()
    with pytest.raises(StoreError, match=r"but size was 4, now is 8; pass --overwrite"):
        prepare_store(sources(2, picture), replace(SPEC, size=8), tmp_path / "s")
    assert (tmp_path / "s" / "store.json").read_bytes() == before
    assert not made(overwrite=True, limit=2).already_prepared


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "another"}, "expected a store of 'test', got one of 'another'"),
        ({"format": "thesis"}, "does not describe a cxrtut array store"),
        ({"version": 99}, "expected store format 1, got 99"),
        (None, "store.json cannot be read"),
        ({}, "expected only the files of a store, got notes.txt"),
    ],
)
def test_what_is_no_store_of_this_source_is_never_replaced(tmp_path, change, words, overwrite):
    prepare_store(sources(2, picture), SPEC, tmp_path / "s")
    manifest = tmp_path / "s" / "store.json"
    if change is None:
        manifest.write_text("{")
    elif change:
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    else:
        (tmp_path / "s" / "notes.txt").write_text("precious")
        assert prepare_store(sources(2, picture), SPEC, tmp_path / "s").already_prepared
        (tmp_path / "s" / "images.npy").write_bytes(b"")
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    with pytest.raises(StoreError, match=words):
        prepare_store(sources(2, picture), SPEC, tmp_path / "s", overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before


def test_a_store_of_an_older_decoder_is_not_called_prepared_and_the_error_says_why(
    tmp_path, monkeypatch
):
    prepare_store(sources(2, picture), SPEC, tmp_path / "s")
    monkeypatch.setattr(prepare, "DECODER_VERSION", prepare.DECODER_VERSION + 1)
    now, then = prepare.DECODER_VERSION, prepare.DECODER_VERSION - 1
    words = f"the version of the decoder was {then}, now is {now}; pass --overwrite"
    with pytest.raises(StoreError, match=words):
        prepare_store(sources(2, picture), SPEC, tmp_path / "s")
    again = prepare_store(sources(2, picture), SPEC, tmp_path / "s", overwrite=True)
    assert not again.already_prepared
    assert prepare_store(sources(2, picture), SPEC, tmp_path / "s").already_prepared


def test_a_store_that_remembers_no_decoder_is_of_the_first(tmp_path):
    prepare_store(sources(2, picture), SPEC, tmp_path / "s")
    manifest = tmp_path / "s" / "store.json"
    about = json.loads(manifest.read_text())
    about["notes"] |= {"inputs": "0" * 64, "settings": json.dumps({"size": 4})}
    manifest.write_text(json.dumps(about))
    with pytest.raises(StoreError, match="the version of the decoder was 1, now is "):
        prepare_store(sources(2, picture), SPEC, tmp_path / "s")


def test_what_was_left_out_is_counted_and_named_also_when_prepared_before(tmp_path):
    left_out = [r"L\xe4sion.jpg: expected a path in UTF-8"]
    for before in (False, True):
        report = prepare_store(sources(2, picture), SPEC, tmp_path / "s", left_out=left_out)
        assert report.already_prepared is before and not report.whole
        assert str(report).splitlines()[4] == f"  left out       1  {left_out[0]}"
    with pytest.raises(SourceError, match="no image was found; left out L"):
        prepare_store([], replace(SPEC, source="x"), tmp_path / "other", left_out=left_out)


def test_two_preparations_of_one_store_at_once_leave_one_store(tmp_path):
    barrier, ends = threading.Barrier(2, timeout=30), []

    def together(i):
        if i == 0:
            barrier.wait()
        return picture(i)

    def prepare_one():
        try:
            ends.append(prepare_store(sources(3, together), SPEC, tmp_path / "s", threads=1))
        except StoreError as error:
            ends.append(error)

    threads = [threading.Thread(target=prepare_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [refused] = [end for end in ends if isinstance(end, StoreError)]
    assert len(ends) == 2 and "exists already" in str(refused)
    assert len(ArrayStore.open(tmp_path / "s", verify="full")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_labels_that_only_the_pixels_tell_come_with_the_picture(tmp_path):
    def labelled(i):
        return picture(i)._replace(labels=[1])

    prepare_store(sources(2, labelled), SPEC, tmp_path / "s")
    assert ArrayStore.open(tmp_path / "s").labels.tolist() == [[1], [1]]


def test_what_was_not_counted_is_not_said_to_be_none(tmp_path):
    report = prepare_store(sources(2, picture), SPEC, tmp_path / "s", missing=None)
    assert "missing  not counted with --limit" in str(report)
    assert report.missing is None


def test_the_report_names_the_first_few_and_counts_the_rest(tmp_path):
    report = Preparation(tmp_path, 7, tuple("abcdefg"), ("x.png: torn",), warnings=("a warning",))
    lines = str(report).splitlines()
    assert lines[0] == f"prepared: {tmp_path}"
    assert lines[2].split(maxsplit=2) == ["missing", "7", "a, b, c, d, e ... and 2 more"]
    assert lines[3].split(maxsplit=2) == ["broken", "1", "x.png: torn"]
    assert lines[4] == "  a warning"
