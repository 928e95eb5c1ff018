"""Simulated radiographs in the official layouts and as a store: what is written is what was
simulated, twice the same, and never half of it.
"""

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtut.data import nih, rsna
from cxrtut.data.decode import decode_image
from cxrtut.data.phantom import CLASSES, ChestPhantom, Confounder, storage
from cxrtut.data.phantom.acquisition import CANONICAL_FOV
from cxrtut.data.phantom.patient import sample_patients
from cxrtut.data.sample import check_batch, to_uint8
from cxrtut.data.source_tables import read_lines
from cxrtut.data.splits import patient_hash_split
from cxrtut.data.store import ArrayStore, StoreError

ROOT = Path(__file__).parents[2]
N, SIZE, SEED = 20, 64, 24
NARROWEST = CANONICAL_FOV * (1 - 2.2 * 0.10)  # cm: the law of the field of view is cut there
SETTINGS = ("--n", N, "--size", SIZE, "--seed", SEED, "--prevalence", 0.8)


def script(name):
    """The script as a module."""
    path = ROOT / "data_scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *arguments):
    return script(name).main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def phantom():
    return ChestPhantom(SIZE, seed=SEED, prevalence=0.8)


@pytest.fixture(scope="module")
def sample(phantom):
    return phantom.sample(torch.arange(N))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The three layouts, made once."""
    folder = tmp_path_factory.mktemp("made")
    for layout in ("nih", "rsna", "store"):
        assert run("make_phantom", "--layout", layout, "--out", folder / layout, *SETTINGS) == 0
    return folder


def names_of(sample):
    visits = zip(sample.patient.tolist(), sample.visit.tolist(), strict=True)
    return [f"{patient:08d}_{visit:03d}" for patient, visit in visits]


def boxes_of(sample, i):
    """The boxes of an image as sorted (class name, x0, y0, x1, y1)."""
    boxes, labels = sample.batch().boxes_of(i)
    pairs = zip(labels.tolist(), boxes.tolist(), strict=True)
    return sorted((CLASSES[label], *box) for label, box in pairs)


def same_boxes(found, expected):
    """Equal classes, corners within a pixel."""
    assert [box[0] for box in found] == [box[0] for box in expected]
    corners = [np.array([box[1:] for box in boxes]).reshape(-1, 4) for boxes in (found, expected)]
    np.testing.assert_allclose(*corners, atol=1e-3)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_nih_tables_say_what_was_simulated(made, phantom, sample):
    files = nih.NihFiles.find([made / "nih"])
    entries = nih.read_entries(files.entries)
    assert list(entries) == [f"{name}.png" for name in names_of(sample)]
    people = sample_patients(SEED, sample.patient)
    for i, entry in enumerate(entries.values()):
        assert entry.findings == tuple(
            name for k, name in enumerate(CLASSES) if sample.label_vector[i, k]
        )
        assert (entry.patient, entry.follow_up) == (
            str(int(sample.patient[i])),
            str(int(sample.visit[i])),
        )
        assert entry.view == ("AP" if sample.ap[i] else "PA")
        assert entry.sex == ("F" if people.female[i] else "M")
        assert entry.age == str(int(people.age[i]))
    assert {entry.view for entry in entries.values()} == {"AP", "PA"}
    split = nih.read_split(entries, files.train_val, files.test)
    expected = ["test" if part == "test" else "train_val" for part in phantom.split(sample.index)]
    assert [split[name] for name in entries] == expected
    assert set(expected) == {"train_val", "test"}


def test_the_pixel_spacing_is_that_of_the_pose(made, sample):
    lines = (made / "nih" / "Data_Entry_2017_v2020.csv").read_text().splitlines()[1:]
    found = np.array([[float(v) for v in line.split(",")[-4:]] for line in lines])
    # where the image's horizontal axis of length 2 goes, in cm
    across = sample.pose[:, :, 0].norm(dim=1).numpy() * 2
    np.testing.assert_allclose(found[:, 2:], np.stack([across, across], 1) * 10 / SIZE, atol=6e-4)
    assert (found[:, :2] == SIZE).all() and (across > NARROWEST).all() and (across < 60).all()


def test_the_nih_boxes_are_in_the_official_frame_and_spelling(made, sample):
    path = nih.NihFiles.find([made / "nih"]).boxes
    found: dict[str, list] = {}
    for box in nih.read_boxes(path):
        corners = [v * SIZE / nih.ORIGINAL_SIZE for v in box.xyxy]
        found.setdefault(box.name, []).append((box.disease, *corners))
    for i, name in enumerate(names_of(sample)):
        same_boxes(sorted(found.get(f"{name}.png", [])), boxes_of(sample, i))
    lines = path.read_text().splitlines()
    assert lines[0] == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    assert any(",Infiltrate," in line for line in lines)
    assert not any("Infiltration" in line for line in lines)
    assert max(float(v) for line in lines[1:] for v in line.split(",")[2:4]) > SIZE


@pytest.mark.skipif("CXRTUT_REAL_DATA" not in os.environ, reason="CXRTUT_REAL_DATA is not set")
def test_the_headers_are_those_of_the_official_tables():
    module, folder = script("make_phantom"), Path(os.environ["CXRTUT_REAL_DATA"])
    names = ("Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv")
    tables = [folder / "nih_rsna_metadata" / name for name in names]
    for path, header in zip(tables, (module.NIH_HEADER, module.NIH_BOX_HEADER), strict=True):
        assert next(read_lines(path)).strip() == header


def test_the_prepared_nih_folder_equals_the_images(made, sample, tmp_path):
    arguments = ("--from", made / "nih", "--out", tmp_path / "s", "--size", SIZE)
    assert run("prepare_nih", *arguments, "--accept-licence") == 0
    store = ArrayStore.open(tmp_path / "s", verify="full")
    order = [store.table["name"].tolist().index(f"{name}.png") for name in names_of(sample)]
    assert np.array_equal(store.images[order], to_uint8(sample.image).numpy())
    for i, row in enumerate(order):
        boxes, labels = store.boxes.of(row)
        found = [(store.classes[k], *b) for k, b in zip(labels, boxes.tolist(), strict=True)]
        same_boxes(sorted(found), boxes_of(sample, i))


def test_images_are_spread_over_numbered_folders(tmp_path, monkeypatch):
    module = script("make_phantom")
    monkeypatch.setattr(module, "IMAGES_PER_FOLDER", 4)
    arguments = ["--layout", "nih", "--out", str(tmp_path / "x"), "--n", "10", "--size", "32"]
    assert module.main(arguments) == 0
    found = [len(list((tmp_path / "x" / f"images_00{k}" / "images").iterdir())) for k in (1, 2, 3)]
    assert found == [4, 4, 2] and not (tmp_path / "x" / "images_004").exists()


def test_the_rsna_tables_say_what_was_simulated(made, sample):
    files = rsna.RsnaFiles.find([made / "rsna"])
    boxes, readings = (
        rsna.read_labels(files.labels),
        rsna.read_detailed_classes(files.detailed_classes),
    )
    assert len(boxes) == N and set(boxes) == set(readings) == set(files.images)
    persons = {k: rsna.person_of(v) for k, v in rsna.read_nih_names(files.match).items()}
    pneumonia = CLASSES.index("Pneumonia")
    for i, (patient, found) in enumerate(boxes.items()):
        expected = [box for box in boxes_of(sample, i) if box[0] == "Pneumonia"]
        scaled = [("Pneumonia", *(v * SIZE / 1024 for v in box)) for box in found]
        same_boxes(sorted(scaled), expected)
        has = sample.label_vector[i]
        normal, other, opacity = rsna.DETAILED_CLASSES
        assert readings[patient] == (opacity if has[pneumonia] else other if has.any() else normal)
        assert persons[patient] == str(int(sample.patient[i]))
    assert set(readings.values()) == set(rsna.DETAILED_CLASSES)
    lines = files.labels.read_text().splitlines(), files.detailed_classes.read_text().splitlines()
    assert lines[0][0] == "patientId,x,y,width,height,Target" and lines[1][0] == "patientId,class"
    assert [line.split(",")[0] for line in lines[0]] == [line.split(",")[0] for line in lines[1]]


def prepared_rsna(folder, out):
    """The images of a folder in rsna layout, by patientId, and its store."""
    arguments = ("--from", folder, "--out", out, "--size", SIZE, "--accept-licence")
    assert run("prepare_rsna", *arguments) == 0
    store = ArrayStore.open(out, verify="full")
    return dict(zip(store.table["name"].tolist(), store.images, strict=True)), store


def test_the_prepared_rsna_folder_equals_the_images(made, sample, tmp_path):
    images, store = prepared_rsna(made / "rsna", tmp_path / "s")
    order = rsna.read_labels(made / "rsna" / "stage_2_train_labels.csv")
    expected = to_uint8(sample.image).numpy()
    for i, patient in enumerate(order):
        assert np.array_equal(images[patient], expected[i])
        row = store.table["name"].tolist().index(patient)
        person = str(int(sample.patient[i]))
        assert store.table["patient"][row] == person
        assert store.table["split"][row] == patient_hash_split(person)
        assert store.labels[row, 0] == sample.label_vector[i, CLASSES.index("Pneumonia")]


def test_dicom_files_may_be_inverted_or_jpeg_and_show_the_same(made, tmp_path):
    import pydicom

    out = tmp_path / "rsna"
    options = ("--monochrome1", 0.5, "--jpeg")
    assert run("make_phantom", "--layout", "rsna", "--out", out, *SETTINGS, *options) == 0
    interpretations = []
    for path in sorted((out / "stage_2_train_images").iterdir()):
        plain = made / "rsna" / "stage_2_train_images" / path.name
        dataset, uncompressed = pydicom.dcmread(path), pydicom.dcmread(plain)
        interpretations.append(dataset.PhotometricInterpretation)
        assert uncompressed.PhotometricInterpretation == "MONOCHROME2"
        assert uncompressed.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
        assert dataset.PatientID == path.stem and dataset.ViewPosition in ("PA", "AP")
        difference = decode_image(path).astype(int) - decode_image(plain)
        assert np.abs(difference).mean() < 2.5
    share = np.mean([name == "MONOCHROME1" for name in interpretations])
    assert 0.2 < share < 0.8


def test_the_view_in_a_dicom_file_is_that_of_the_exposure(made, sample):
    import pydicom

    order = rsna.read_labels(made / "rsna" / "stage_2_train_labels.csv")
    for i, patient in enumerate(order):
        path = made / "rsna" / "stage_2_train_images" / f"{patient}.dcm"
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert dataset.ViewPosition == ("AP" if sample.ap[i] else "PA")


def test_a_store_holds_the_sample(made, phantom, sample):
    store = ArrayStore.open(made / "store", verify="full")
    batch = store.batch(torch.arange(N))
    check_batch(batch)
    assert torch.equal(to_uint8(batch.image), to_uint8(sample.image))
    assert torch.equal(to_uint8(batch.healthy), to_uint8(sample.healthy))
    assert torch.equal(batch.mask, sample.mask) and batch.mask.any()
    assert torch.equal(batch.label_vector, sample.label_vector)
    assert store.classes == CLASSES and set(store.boxes.origin) == {"phantom"}
    table = store.table
    assert table["name"].tolist() == names_of(sample)
    assert table["split"].tolist() == phantom.split(sample.index)
    assert table["view"].tolist() == ["AP" if ap else "PA" for ap in sample.ap]
    np.testing.assert_allclose(table["ctr"].astype(float), sample.ctr, atol=1e-4)
    ill = sample.label_vector.any(1).numpy()
    assert np.array_equal(table["severity"].astype(float), np.where(ill, 1.3, 0.0))
    for i in range(N):
        found = [
            (CLASSES[k], *b)
            for b, k in zip(*map(np.ndarray.tolist, store.boxes.of(i)), strict=True)
        ]
        same_boxes(sorted(found), boxes_of(sample, i))


def test_a_store_in_memory_equals_the_folder(made, phantom):
    folder, memory = ArrayStore.open(made / "store"), storage.in_memory(phantom, N)
    for name in ("images", "healthy", "masks", "labels"):
        assert np.array_equal(getattr(folder, name), getattr(memory, name))
    assert {k: v.tolist() for k, v in folder.table.items()} == {
        k: v.tolist() for k, v in memory.table.items()
    }
    assert np.array_equal(folder.boxes.xyxy, memory.boxes.xyxy)
    assert folder.notes == memory.notes and folder.notes["seed"] == str(SEED)


def test_blocks_and_a_later_start_give_the_same_images(phantom, tmp_path, monkeypatch):
    whole = storage.in_memory(phantom, 12)
    told = []
    monkeypatch.setattr(storage, "_BLOCK_PIXELS", 3 * SIZE**2)
    late = storage.write_store(
        phantom, tmp_path / "s", 8, start=4, progress=lambda *counts: told.append(counts)
    )
    assert told == [(3, 8), (6, 8), (8, 8)]
    assert np.array_equal(late.images, whole.images[4:])
    assert late.table["index"].tolist() == [str(i) for i in range(4, 12)]
    expected = whole.boxes.row >= 4
    assert np.array_equal(late.boxes.row, whole.boxes.row[expected] - 4)
    assert np.array_equal(late.boxes.xyxy, whole.boxes.xyxy[expected])


def test_the_marker_of_a_confounder_is_in_the_table():
    phantom = ChestPhantom(32, confounder=Confounder(disease="Effusion", without=0.5))
    store = storage.in_memory(phantom, 20)
    expected = phantom.sample(torch.arange(20)).tag
    assert store.table["tag"].tolist() == [str(int(tag)) for tag in expected]
    assert 0 < expected.sum() < 20 and "Effusion" in store.notes["confounder"]


def test_no_images_at_all_are_refused(phantom, tmp_path):
    with pytest.raises(ValueError, match="expected n >= 1 images, got 0"):
        storage.in_memory(phantom, 0)
    with pytest.raises(StoreError, match="n, channels, size >= 1"):
        storage.write_store(phantom, tmp_path / "s", 0)


@pytest.mark.parametrize("layout", ["nih", "rsna", "store"])
def test_the_same_arguments_give_the_same_bytes(made, tmp_path, layout, monkeypatch):
    monkeypatch.setattr(storage, "_BLOCK_PIXELS", 7 * SIZE**2)
    assert run("make_phantom", "--layout", layout, "--out", tmp_path / "again", *SETTINGS) == 0
    again = contents(tmp_path / "again")
    assert again == contents(made / layout)
    assert "not clinical evidence" in again[Path("README.txt")].decode()
    other = ("--layout", layout, "--out", tmp_path / "other", *SETTINGS, "--seed", SEED + 1)
    assert run("make_phantom", *other) == 0
    assert contents(tmp_path / "other") != again


@pytest.mark.parametrize("layout", ["nih", "rsna", "store"])
def test_what_exists_is_replaced_only_when_asked_for_and_only_whole(
    tmp_path, capsys, layout, monkeypatch
):
    out = tmp_path / "x"
    arguments = ["--layout", layout, "--out", str(out), "--n", "4", "--size", "32"]
    assert run("make_phantom", *arguments) == 0
    before = contents(out)
    assert run("make_phantom", *arguments, "--seed", 1) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith(f"make_phantom: error: {out}: exists already")
    assert "pass --overwrite" in told[-1]
    assert contents(out) == before

    def interrupt(phantom, index):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ChestPhantom, "sample", interrupt)
        assert run("make_phantom", *arguments, "--seed", 1, "--overwrite") == 130
    assert contents(out) == before
    assert run("make_phantom", *arguments, "--seed", 1, "--overwrite") == 0
    assert contents(out) != before and [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("layout", ["nih", "rsna", "store"])
def test_a_foreign_folder_is_never_overwritten(tmp_path, capsys, layout):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "README.txt").write_text("chapter one")
    arguments = ("--layout", layout, "--out", out, "--n", 2, "--size", 32, "--overwrite")
    assert run("make_phantom", *arguments) == 1
    told = capsys.readouterr().err
    assert "not overwritten" in told and told.count("\n") == 1
    assert contents(tmp_path) == {Path("thesis/README.txt"): b"chapter one"}


@pytest.mark.parametrize("layout", ["nih", "rsna", "store"])
def test_an_interruption_in_the_middle_leaves_nothing(tmp_path, capsys, layout, monkeypatch):
    monkeypatch.setattr(storage, "_BLOCK_PIXELS", 4 * 32**2)
    whole, calls = ChestPhantom.sample, []

    def interrupted(phantom, index):
        calls.append(index)
        if len(calls) == 3:
            assert list(tmp_path.glob("x.partial-*"))
            raise KeyboardInterrupt
        return whole(phantom, index)

    monkeypatch.setattr(ChestPhantom, "sample", interrupted)
    arguments = ("--layout", layout, "--out", tmp_path / "x", "--n", 12, "--size", 32)
    assert run("make_phantom", *arguments) == 130
    assert "nothing half-made was left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="signals are sent the POSIX way")
def test_ctrl_c_leaves_nothing_half_done(tmp_path):
    command = [sys.executable, str(ROOT / "data_scripts" / "make_phantom.py"), "--layout", "nih"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "x"), "--n", "100000", "--size", "64"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("x.partial-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "interrupted" in told and "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size", 50), "multiple of 16"),
        (("--n", 0), "--n: expected a number >= 1, got 0"),
        (("--prevalence", 2), "prevalence must lie in [0, 1], got 2.0"),
        (("--severity", 9), "severity"),
        (("--monochrome1", -1), "expected a share in [0, 1], got -1.0"),
    ],
)
def test_what_the_user_can_mend_is_one_line_without_traceback(tmp_path, capsys, arguments, words):
    start = ("--layout", "rsna", "--out", tmp_path / "x", "--n", 2, "--size", 32)
    assert run("make_phantom", *start, *arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith("make_phantom: error: ") and words in told and told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_pydicom_the_rsna_layout_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert run("make_phantom", "--layout", "rsna", "--out", tmp_path / "x", *SETTINGS) == 1
    told = capsys.readouterr().err
    assert "pip install 'cxrtut[dicom]'" in told and told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_official_size_is_the_default_of_the_official_layouts(tmp_path, monkeypatch):
    module, sizes = script("make_phantom"), {}

    def stop(size, *_, **__):
        sizes[layout] = size
        raise ValueError("stop")

    monkeypatch.setattr(module, "ChestPhantom", stop)
    for layout in ("nih", "rsna", "store"):
        assert module.main(["--layout", layout, "--out", str(tmp_path / "x"), "--n", "1"]) == 1
    assert sizes == {"nih": 1024, "rsna": 1024, "store": 256}


def test_a_disk_that_is_full_at_the_last_file_leaves_no_part_of_it(tmp_path, monkeypatch):
    def refuses(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cxrtut.files.flush_to_disk", refuses)
    with pytest.raises(OSError, match="No space left"):
        script("make_phantom")._write_readme(tmp_path, "words")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_link_is_written_where_it_leads_to(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "disk" / "made")
    for words in ("once", "twice"):
        with script("make_phantom").whole_folder(tmp_path / "x") as folder:
            (folder / "README.txt").write_text(f"Simulated chest radiographs, {words}")
    assert (tmp_path / "x").is_symlink() and "twice" in (tmp_path / "x/README.txt").read_text()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["made"]
