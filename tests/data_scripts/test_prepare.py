"""The preparation scripts from end to end: exit codes, words, and nothing half-done."""

import gzip
import importlib.util
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrtut.data.download import DownloadError
from cxrtut.data.store import ArrayStore

ROOT = Path(__file__).parents[2]
ENTRIES = """Image Index,Finding Labels,Patient ID
a.png,Mass|Nodule,1
b.png,No Finding,2
c.png,No Finding,3
"""


def script(name):
    """The script as a module."""
    path = ROOT / "data_scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nih(tmp_path):
    """A folder with two of three images and the tables."""
    folder = tmp_path / "nih"
    (folder / "images").mkdir(parents=True)
    (folder / "Data_Entry_2017.csv").write_text(ENTRIES)
    (folder / "train_val_list.txt").write_text("a.png\n")
    for name in "ab":
        Image.fromarray(np.full((40, 40), 77, np.uint8)).save(folder / "images" / f"{name}.png")
    return folder


def run(name, *arguments):
    return script(name).main([str(argument) for argument in arguments])


def test_nih_is_prepared_once_and_the_table_names_what_is_missing(nih, tmp_path, capsys):
    arguments = ("--from", nih, "--out", tmp_path / "s", "--size", 32, "--accept-licence")
    assert run("prepare_nih", *arguments) == 0
    told = capsys.readouterr().out
    assert told.startswith("prepared: ")
    assert [line.split() for line in told.splitlines()[1:4]] == [
        ["found", "2"],
        ["missing", "1", "c.png"],
        ["broken", "0"],
    ]
    assert len(ArrayStore.open(tmp_path / "s", verify="full")) == 2
    before = (tmp_path / "s" / "store.json").stat().st_mtime_ns
    assert run("prepare_nih", *arguments) == 0
    assert capsys.readouterr().out.startswith("already prepared: ")
    assert (tmp_path / "s" / "store.json").stat().st_mtime_ns == before


def test_the_terms_have_to_be_accepted(nih, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    assert run("prepare_nih", "--from", nih, "--out", tmp_path / "s") == 2
    sys.stdin.close()
    told = capsys.readouterr().err
    assert "cite Wang et al." in told and "pass --accept-licence" in told
    assert not (tmp_path / "s").exists()


def test_typing_yes_on_a_terminal_accepts_the_terms(nih, tmp_path, monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert run("prepare_nih", "--from", nih, "--out", tmp_path / "s") == 2

    def ctrl_d(_):
        raise EOFError

    monkeypatch.setattr("builtins.input", ctrl_d)
    assert run("prepare_nih", "--from", nih, "--out", tmp_path / "s") == 2
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    assert run("prepare_nih", "--from", nih, "--out", tmp_path / "s", "--size", 16) == 0


def test_a_broken_image_is_named_and_the_exit_code_says_so(nih, tmp_path, capsys):
    (nih / "images" / "b.png").write_bytes(b"")
    arguments = ("--from", nih, "--out", tmp_path / "s", "--size", 16, "--accept-licence")
    assert run("prepare_nih", *arguments) == 3
    assert "b.png: the file is empty" in capsys.readouterr().out
    assert run("prepare_nih", *arguments) == 3
    assert len(ArrayStore.open(tmp_path / "s")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_an_image_whose_name_is_not_utf_8_is_named_and_the_exit_code_says_so(tmp_path, capsys):
    folder = tmp_path / "skin"
    folder.mkdir()
    for name in (b"ISIC_1.png", b"L\xe4sion.png"):
        Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(folder / "new.png")
        os.rename(folder / "new.png", os.fsencode(folder) + b"/" + name)
    arguments = ("--from", folder, "--out", tmp_path / "s", "--size", 16, "--accept-licence")
    for _ in range(2):
        assert run("prepare_skin", *arguments) == 3
        told = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
        [line] = [line for line in told if line[:2] == ["left", "out"]]
        assert line[2] == "1" and line[3].endswith(r"L\xe4sion.png: expected a path in UTF-8")
    assert ArrayStore.open(tmp_path / "s").table["name"].tolist() == ["ISIC_1"]


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_a_console_that_is_not_utf_8_gets_the_report_too(nih, tmp_path, monkeypatch, encoding):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", console)
    out = tmp_path / "\u0141ukasz"
    assert run("prepare_nih", "--from", nih, "--out", out, "--size", 16, "--accept-licence") == 0
    console.flush()
    assert b"\\u0141ukasz" in console.buffer.getvalue()


def test_another_size_is_made_only_with_overwrite(nih, tmp_path, capsys):
    arguments = ("--from", nih, "--out", tmp_path / "s", "--accept-licence", "--size")
    assert run("prepare_nih", *arguments, 16) == 0
    capsys.readouterr()
    assert run("prepare_nih", *arguments, 32) == 1
    told = capsys.readouterr().err
    assert "size was 16, now is 32; pass --overwrite" in told and told.count("\n") == 1
    assert ArrayStore.open(tmp_path / "s").size == 16
    assert run("prepare_nih", *arguments, 32, "--overwrite", "--limit", 1) == 0
    assert "missing  not counted with --limit" in capsys.readouterr().out
    assert ArrayStore.open(tmp_path / "s").size == 32


@pytest.mark.parametrize("source", ["rsna", "retina", "skin"])
def test_every_script_overwrites_when_asked(source, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("p1.png", "IDRiD_01.jpg", "IDRiD_01_MA.png", "ISIC_1.jpg"):
        Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(folder / name)
    (folder / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\np1,,,,,0\n"
    )
    arguments = ("--from", folder, "--out", tmp_path / "s", "--accept-licence", "--size")
    assert run(f"prepare_{source}", *arguments, 16) == 0
    assert run(f"prepare_{source}", *arguments, 8) == 1
    assert run(f"prepare_{source}", *arguments, 8, "--overwrite") == 0
    assert ArrayStore.open(tmp_path / "s").size == 8


def test_rsna_boxes_are_added_on_request(nih, tmp_path):
    (nih / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\np,1,2,512,512,1\n"
    )
    (nih / "rsna_nih_match.csv").write_text("patientId,nih_image_index\np,a.png\n")
    arguments = ("--from", nih, "--accept-licence", "--size", 16, "--out")
    assert run("prepare_nih", *arguments, tmp_path / "plain") == 0
    assert len(ArrayStore.open(tmp_path / "plain").boxes) == 0
    assert run("prepare_nih", *arguments, tmp_path / "both", "--rsna-boxes") == 0
    assert ArrayStore.open(tmp_path / "both").boxes.origin.tolist() == ["rsna_2018"]


def test_the_retina_script_has_the_size_of_the_library(tmp_path):
    for name in ("IDRiD_01.jpg", "IDRiD_01_OD.png"):
        Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(tmp_path / name)
    assert (
        run("prepare_retina", "--from", tmp_path, "--out", tmp_path / "s", "--accept-licence") == 0
    )
    assert ArrayStore.open(tmp_path / "s").size == 256


@pytest.mark.parametrize("case", ["no folder", "no table", "patient on both sides", "no store"])
def test_what_the_user_can_mend_is_one_line_without_traceback(nih, tmp_path, capsys, case):
    out = tmp_path / "s"
    if case == "no folder":
        nih = tmp_path / "nowhere"
    elif case == "no table":
        (nih / "train_val_list.txt").unlink()
    elif case == "patient on both sides":
        (nih / "Data_Entry_2017.csv").write_text(ENTRIES.replace("b.png,No Finding,2", "b.png,,1"))
    else:
        out.mkdir()
        (out / "thesis.txt").touch()
    assert run("prepare_nih", "--from", nih, "--out", out, "--accept-licence") == 1
    told = capsys.readouterr().err
    assert told.startswith("prepare_nih: error: ") and told.count("\n") == 1
    assert not (out / "store.json").exists()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("prepare_rsna", "kaggle.com/c/rsna-pneumonia-detection-challenge"),
        ("prepare_retina", "ieee-dataport.org"),
        ("prepare_skin", "10.7910/DVN/DBW86T"),
    ],
)
def test_sources_that_need_an_account_are_explained_and_not_downloaded(
    name, place, tmp_path, capsys
):
    assert run(name, "--out", tmp_path / "s", "--accept-licence") == 2
    told = capsys.readouterr().err
    assert place in told and "expected --from DIR" in told and "downloads nothing" in told


def test_rsna_retina_and_skin_are_prepared_from_files_at_hand(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    colour = np.full((40, 50, 3), 99, np.uint8)
    for name in ("p1.png", "IDRiD_01.jpg", "IDRiD_01_MA.png", "7_left.jpeg", "ISIC_1.jpg"):
        Image.fromarray(colour).save(folder / name)
    Image.fromarray(colour[:, :40]).save(folder / "p1.png")
    (folder / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\np1,1,2,512,512,1\n"
    )
    (folder / "trainLabels.csv").write_text("image,level\n7_left,2\n")
    for name, extra, channels in (
        ("prepare_rsna", (), 1),
        ("prepare_retina", (), 3),
        ("prepare_retina", ("--set", "kaggle"), 3),
        ("prepare_skin", (), 3),
    ):
        out = tmp_path / f"{name}{len(extra)}"
        assert (
            run(name, "--from", folder, "--out", out, "--size", 16, "--accept-licence", *extra) == 0
        )
        assert ArrayStore.open(out).images.shape[1:] == (channels, 16, 16)


def archive(path, names, damage=0):
    """A .tar.gz with images of these names, as the NIH packs them."""
    folder = path.parent / "packed"
    folder.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as packed:
        for name in names:
            noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name)
            packed.add(folder / name, arcname=f"images/{name}")
    if damage:
        path.write_bytes(path.read_bytes()[:-damage])


def test_a_release_is_downloaded_unpacked_and_prepared_and_kept(nih, tmp_path, monkeypatch, capsys):
    module = script("prepare_nih")
    for path in (nih / "images").iterdir():
        path.unlink()
    fetched = []

    def fake_download(url, path, begins_with):
        fetched.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        archive(path, ["a.png"] if len(fetched) == 1 else ["c.png"])
        return path

    monkeypatch.setattr(module, "download", fake_download)
    monkeypatch.setattr(module, "ARCHIVE_BYTES", 1000)
    arguments = ["--tables", str(nih), "--archives", "1", "12", "--out", str(tmp_path / "s")]
    assert module.main([*arguments, "--size", "32", "--accept-licence"]) == 0
    assert fetched == [module.ARCHIVES[1], module.ARCHIVES[12]]
    assert ArrayStore.open(tmp_path / "s").table["name"].tolist() == ["a.png", "c.png"]
    kept = sorted(
        path.name for path in (tmp_path / "s.downloads").iterdir() if path.name != "packed"
    )
    assert kept == ["images_001", "images_012"]
    assert module.main([*arguments, "--size", "32", "--accept-licence"]) == 0
    assert len(fetched) == 2 and "already prepared" in capsys.readouterr().out


def test_a_download_without_tables_or_room_is_refused_before_it_starts(
    nih, tmp_path, monkeypatch, capsys
):
    module = script("prepare_nih")
    monkeypatch.setattr(module, "download", None)
    assert module.main(["--out", str(tmp_path / "s"), "--accept-licence"]) == 1
    assert "expected --from DIR, or --tables DIR" in capsys.readouterr().err
    monkeypatch.setattr(module, "ARCHIVE_BYTES", 10**17)
    arguments = ["--tables", str(nih), "--out", str(tmp_path / "s"), "--accept-licence"]
    assert module.main(arguments) == 1
    assert "of free space" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [20, 2000])
def test_a_damaged_archive_is_removed_and_leaves_no_folder(tmp_path, damage):
    module = script("prepare_nih")
    path = tmp_path / "images_001.tar.gz"
    archive(path, ["a.png", "b.png"], damage=damage)
    with pytest.raises(DownloadError, match=r"images_001\.tar\.gz: damaged .*run again"):
        module.unpack(path, tmp_path / "images_001")
    assert [p.name for p in tmp_path.iterdir()] == ["packed"]


def test_an_archive_that_is_no_gzip_file_is_damaged_too(tmp_path):
    path = tmp_path / "images_001.tar.gz"
    path.write_text("<html>sign in</html>")
    with pytest.raises(DownloadError, match="damaged"):
        script("prepare_nih").unpack(path, tmp_path / "images_001")
    path.write_bytes(gzip.compress(b"no tar"))
    with pytest.raises(DownloadError, match="damaged"):
        script("prepare_nih").unpack(path, tmp_path / "images_001")


def test_all_twelve_links_are_official_and_different():
    links = script("prepare_nih").ARCHIVES
    assert sorted(links) == list(range(1, 13)) and len(set(links.values())) == 12
    assert all(link.startswith("https://nihcc.box.com/shared/static/") for link in links.values())


@pytest.mark.skipif(os.name != "posix", reason="signals are sent the POSIX way")
def test_ctrl_c_leaves_nothing_half_done(tmp_path):
    folder = tmp_path / "nih"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    names = [f"{i}.png" for i in range(3000)]
    for name in names[1:]:
        os.link(folder / "0.png", folder / name)
    lines = [f"{name},No Finding,{i}" for i, name in enumerate(names)]
    (folder / "Data_Entry_2017.csv").write_text(
        "\n".join(["Image Index,Finding Labels,Patient ID", *lines])
    )
    (folder / "train_val_list.txt").write_text("0.png\n")
    command = [sys.executable, str(ROOT / "data_scripts" / "prepare_nih.py"), "--accept-licence"]
    process = subprocess.Popen(
        [*command, "--from", str(folder), "--out", str(tmp_path / "s"), "--threads", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("s.partial-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "interrupted" in told and "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["nih"]
