import csv
import gzip
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cxrtut.data import nih
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import ArrayStore

ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
ENTRIES = [
    "00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,Cardiomegaly|Infiltration,1,1,58,M,PA,2682,2749,0.143,0.143",
    "00000002_000.png,No Finding,0,2,81,F,AP,2682,2749,0.143,0.143",
    "00000003_000.png,Pneumonia,0,3,30,F,AP,2682,2749,0.143,0.143",
]


def write(path, lines):
    text = "\n".join(lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def release(tmp_path):
    """Three of four images, one of them a JPEG of 128 pixels, as the NIH lays them out."""
    folder = tmp_path / "nih"
    write(folder / "Data_Entry_2017.csv", [ENTRY_HEADER, *ENTRIES])
    write(folder / "train_val_list.txt", ["00000001_000.png", "00000001_001.png"])
    write(folder / "test_list.txt", ["00000002_000.png", "00000003_000.png"])
    write(
        folder / "BBox_List_2017.csv",
        [
            BOX_HEADER,
            "00000001_001.png,Infiltrate,256.0,512.0,128.5,64.0,,,",
            "00000001_001.png,Cardiomegaly,0,0,1024,1030,,,",
        ],
    )
    for folder_name, name, size, level in (
        ("images_001", "00000001_000.png", 1024, 10),
        ("images_001", "00000001_001.png", 1024, 20),
        ("images_002", "00000002_000.jpg", 128, 30),
    ):
        path = folder / folder_name / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size, size), level, np.uint8)).save(path)
    return folder


def test_the_release_becomes_a_store(release, tmp_path):
    report = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=64)
    assert (report.images, report.missing, report.broken) == (3, ("00000003_000.png",), ())
    store = ArrayStore.open(tmp_path / "store", verify="full")
    assert store.classes == nih.DISEASES and len(nih.DISEASES) == 14
    assert store.images.mean(axis=(1, 2, 3)).round().tolist() == [10, 20, 30]
    assert store.table["name"].tolist()[2] == "00000002_000.png"  # the official name, of a .jpg too
    assert store.table["patient"].tolist() == ["1", "1", "2"]
    assert store.table["split"].tolist() == ["train_val", "train_val", "test"]
    assert store.table["view"].tolist() == ["PA", "PA", "AP"]
    assert store.rows(label="Infiltration").tolist() == [1]
    assert store.rows(label="Cardiomegaly").tolist() == [0, 1]
    assert store.rows(label="No Finding").tolist() == [2]
    assert "cite Wang et al." in store.licence


def test_boxes_are_in_the_original_frame_and_clipped_to_it(release, tmp_path):
    nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=64)
    store = ArrayStore.open(tmp_path / "store")
    boxes, labels = store.boxes.of(1)
    assert boxes.tolist() == [[16, 32, 24.03125, 36], [0, 0, 64, 64]]
    assert [store.classes[k] for k in labels] == ["Infiltration", "Cardiomegaly"]
    assert set(store.boxes.origin) == {"nih_bbox_2017"}


def test_a_second_run_finds_the_store_prepared_and_a_changed_input_prepares_it_anew(
    release, tmp_path
):
    def prepare(**options):
        files = nih.NihFiles.find([release])
        options = {"size": 32, "overwrite": True} | options
        return nih.prepare(files, tmp_path / "store", **options)

    assert not prepare().already_prepared
    again = prepare()
    assert again.already_prepared and again.images == 3 and len(again.missing) == 1
    assert "already prepared" in str(again) and "00000003_000.png" in str(again)
    assert not prepare(size=16).already_prepared
    assert ArrayStore.open(tmp_path / "store").size == 16
    image = release / "images_001" / "images" / "00000001_000.png"
    Image.fromarray(np.full((1024, 1024), 99, np.uint8)).save(image)
    assert not prepare(size=16).already_prepared
    assert ArrayStore.open(tmp_path / "store").images[0].max() == 99


def test_a_broken_image_is_left_out_and_named(release, tmp_path):
    (release / "images_001" / "images" / "00000001_000.png").write_bytes(b"\x89PNG nothing")
    report = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=32)
    assert report.images == 2 and len(report.broken) == 1
    assert "00000001_000.png" in report.broken[0] and "00000001_000.png" in str(report)
    store = ArrayStore.open(tmp_path / "store", verify="full")
    assert store.table["name"].tolist() == ["00000001_001.png", "00000002_000.png"]
    assert store.boxes.row.tolist() == [0, 0]
    again = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=32)
    assert again.already_prepared and again.broken == report.broken


def test_when_no_image_can_be_read_there_is_no_store(release, tmp_path):
    for path in release.rglob("images/*"):
        path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"none of 3 images can be read.*the file is empty"):
        nih.prepare(nih.NihFiles.find([release]), tmp_path / "store")
    assert not (tmp_path / "store").exists()
    for path in release.rglob("images/*"):
        path.unlink()
    with pytest.raises(SourceError, match="no image was found"):
        nih.prepare(nih.NihFiles.find([release]), tmp_path / "store")


def test_a_limit_takes_the_first_by_name_and_counts_none_as_missing(release, tmp_path):
    files = nih.NihFiles.find([release])
    report = nih.prepare(files, tmp_path / "store", size=16, limit=1)
    assert (report.images, report.missing) == (1, None)


def test_gzipped_tables_and_an_absent_test_list_do(release, tmp_path):
    write(release / "Data_Entry_2017_v2020.csv.gz", [ENTRY_HEADER, *ENTRIES])
    write(release / "train_val_list.txt.gz", ["00000001_000.png", "00000001_001.png"])
    for name in ("Data_Entry_2017.csv", "train_val_list.txt", "test_list.txt"):
        (release / name).unlink()
    report = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=16)
    assert "test_list.txt is absent" in report.warnings[0]
    assert ArrayStore.open(tmp_path / "store").table["split"].tolist()[2] == "test"


def test_a_patient_on_both_sides_of_the_split_is_named(release):
    write(release / "train_val_list.txt", ["00000001_000.png"])
    entries = nih.read_entries(release / "Data_Entry_2017.csv")
    with pytest.raises(SourceError, match=r"1 patients are on both sides of the split: \['1'\]"):
        nih.read_split(entries, release / "train_val_list.txt")


def test_contradicting_lists_are_named(release):
    entries = nih.read_entries(release / "Data_Entry_2017.csv")
    write(release / "both.txt", ["00000001_000.png", *(e.split(",")[0] for e in ENTRIES[2:])])
    with pytest.raises(SourceError, match="1 images are in both lists"):
        nih.read_split(entries, release / "train_val_list.txt", release / "both.txt")
    write(release / "short.txt", ["00000002_000.png"])
    with pytest.raises(SourceError, match=r"1 images are in no list.*00000003_000"):
        nih.read_split(entries, release / "train_val_list.txt", release / "short.txt")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.png,Influenza,0,9,57,M,PA,1,1,1,1", r"line 6: expected diseases .*Influenza"),
        (ENTRIES[0], r"line 6: 00000001_000.png is listed twice"),
        ("a.png", r"line 6: expected"),
    ],
)
def test_a_wrong_line_of_the_label_table_is_named(release, line, words):
    write(release / "Data_Entry_2017.csv", [ENTRY_HEADER, *ENTRIES, line])
    with pytest.raises(SourceError, match=words):
        nih.read_entries(release / "Data_Entry_2017.csv")


def test_wrong_headers_boxes_and_missing_tables_are_named(release, tmp_path):
    write(tmp_path / "entries.csv", ["name,labels"])
    with pytest.raises(SourceError, match=r"entries\.csv: expected columns .*Image Index"):
        nih.read_entries(tmp_path / "entries.csv")
    with pytest.raises(SourceError, match="header that starts with"):
        nih.read_boxes(tmp_path / "entries.csv")
    for line, words in (
        ("a.png,Mass,1,2,3", "no box"),
        ("a.png,Mass,1,2,x,4", "expected a number as width, got 'x'"),
        ("a.png,Mass,1,nan,3,4", "expected a number as y, got 'nan'"),
        ("a.png,Mass,1,2,-3,4", "expected a box with width and height > 0, got -3 x 4 for a.png"),
        ("a.png,Mass,1,2,3,0", "expected a box with width and height > 0, got 3 x 0 for a.png"),
        ("a.png,Mass,1024,2,3,4", r"expected a box inside 1024 x 1024 pixels, got .* for a.png"),
        ("a.png,Mass,1,-9,3,4", r"expected a box inside 1024 x 1024 pixels, got .* for a.png"),
        ("a.png,Flu,1,2,3,4", "unknown disease"),
    ):
        write(tmp_path / "boxes.csv", [BOX_HEADER, line])
        with pytest.raises(SourceError, match=rf"line 2: {words}"):
            nih.read_boxes(tmp_path / "boxes.csv")
    (release / "train_val_list.txt").unlink()
    with pytest.raises(SourceError, match=r"expected train_val_list\.txt, found none"):
        nih.NihFiles.find([release])
    with pytest.raises(SourceError, match="no such file"):
        nih.read_entries(tmp_path / "nowhere.csv")


def test_rsna_boxes_reach_their_nih_images_through_the_match_table(tmp_path):
    labels = write(
        tmp_path / "labels.csv",
        ["patientId,x,y,width,height,Target", "p,10,20,30,40,1", "q,,,,,0", "r,1,2,3,4,1"],
    )
    match = write(
        tmp_path / "match.csv",
        ["patientId,nih_image_index,mse", "p,a.png,1.5", "q,b.png,1", "r,c.png,10.5"],
    )
    boxes = nih.read_rsna_boxes(labels, match)
    assert boxes == [nih.NihBox("a.png", "Pneumonia", (10.0, 20.0, 40.0, 60.0), "rsna_2018")]


def test_rsna_boxes_are_added_only_on_request_and_what_contradicts_is_counted(release, tmp_path):
    write(
        release / "stage_2_train_labels.csv",
        ["patientId,x,y,width,height,Target", "p,10,20,30,40,1", "q,1,2,3,4,1", "r,1,2,3,4,1"],
    )
    write(
        release / "rsna_nih_match.csv",
        ["patientId,nih_image_index", "p,00000002_000.png", "q,00000003_000.png", "r,9_9.png"],
    )
    files = nih.NihFiles.find([release])
    plain = nih.prepare(files, tmp_path / "plain", size=64)
    assert set(ArrayStore.open(tmp_path / "plain").boxes.origin) == {"nih_bbox_2017"}
    assert plain.warnings == ()
    report = nih.prepare(files, tmp_path / "both", size=64, rsna_boxes=True)
    store = ArrayStore.open(tmp_path / "both")
    assert Counter(store.boxes.origin.tolist()) == {"nih_bbox_2017": 2, "rsna_2018": 1}
    assert store.labels[2].sum() == 0
    assert report.warnings == (
        "1 of 1 boxes rsna_2018: the image is not labelled with the disease of its box",
        "1 of 3 boxes rsna_2018: the image is not in the label table",
    )
    (release / "rsna_nih_match.csv").unlink()
    with pytest.raises(SourceError, match=r"expected .* and rsna_nih_match\.csv, found .* None"):
        nih.prepare(nih.NihFiles.find([release]), tmp_path / "none", rsna_boxes=True)
    without = nih.NihFiles.find([release])
    assert nih.prepare(without, tmp_path / "plain", size=64).already_prepared


@pytest.mark.parametrize(
    ("label", "match", "words"),
    [
        ("p,10,20,30,wide,1", "p,a.png,1", r"labels\.csv, line 2: expected a number as height"),
        ("p,10,20,30,-4,1", "p,a.png,1", r"labels\.csv, line 2: expected a box with .* for p"),
        ("p,10,20,30,40,1", "p,a.png,small", r"match\.csv, line 2: expected a number as mse"),
    ],
)
def test_garbage_in_the_rsna_tables_is_named(tmp_path, label, match, words):
    labels = write(tmp_path / "labels.csv", ["patientId,x,y,width,height,Target", label])
    matches = write(tmp_path / "match.csv", ["patientId,nih_image_index,mse", match])
    with pytest.raises(SourceError, match=words):
        nih.read_rsna_boxes(labels, matches)


def test_a_mask_or_a_small_copy_is_never_taken_for_the_image(release, tmp_path):
    for name in ("masks/00000001_000.png", "small/00000002_000.png"):
        (release / name).parent.mkdir()
        Image.fromarray(np.full((64, 64), 1, np.uint8)).save(release / name)
        words = r"0_000: expected one file of that name, or copies of it, got .*, which differ"
        with pytest.raises(SourceError, match=words.replace("0_000", name[-9:-4])):
            nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=16)
        (release / name).unlink()
    assert not (tmp_path / "store").exists()


def test_copies_of_an_image_are_counted_and_the_first_is_taken(release, tmp_path):
    image = release / "images_001" / "images" / "00000001_000.png"
    (release / "copy").mkdir()
    (release / "copy" / "00000001_000.png").write_bytes(image.read_bytes())
    report = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=16)
    assert report.images == 3
    assert report.warnings[0].startswith("1 images are there more than once, as equal copies")


def test_a_picture_that_no_table_names_may_be_there_in_several_versions(release, tmp_path):
    for i, name in enumerate(("a/preview.png", "b/preview.png")):
        (release / name).parent.mkdir()
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(release / name)
    assert nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=16).warnings == ()


def test_a_link_to_an_image_that_is_not_there_is_a_missing_image(release, tmp_path):
    (release / "images_002" / "00000003_000.png").symlink_to(tmp_path / "unmounted.png")
    report = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=16)
    assert report.images == 3 and report.missing == ("00000003_000.png",) and report.whole


def test_an_image_that_vanishes_after_the_search_is_broken(release, tmp_path):
    files = nih.NihFiles.find([release])
    (release / "images_001" / "images" / "00000001_000.png").unlink()
    report = nih.prepare(files, tmp_path / "store", size=16)
    assert report.images == 2
    assert len(report.broken) == 1 and "00000001_000.png: no such file" in report.broken[0]


def test_of_several_label_tables_the_newer_is_read_and_the_report_says_so(release, tmp_path):
    older = ENTRIES[0].replace("Cardiomegaly", "Hernia")
    (release / "Data_Entry_2017.csv").rename(release / "Data_Entry_2017_v2020.csv")
    write(release / "Data_Entry_2017.csv", [ENTRY_HEADER, older, *ENTRIES[1:]])
    write(release / "old" / "Data_Entry_2017_v2020.csv", [ENTRY_HEADER, older, *ENTRIES[1:]])
    report = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=16)
    assert not ArrayStore.open(tmp_path / "store").rows(label="Hernia").size
    assert [path.name for path in report.tables] == [
        "Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"
    ]  # fmt: skip
    for table in report.tables:
        assert table.parent == release and f"\n  table    {table}" in str(report)
    again = nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=16)
    assert again.already_prepared and again.tables == report.tables


def test_an_image_with_boxes_must_be_square_and_one_without_is_framed_in_black(release, tmp_path):
    image = release / "images_001" / "images" / "00000001_001.png"
    Image.fromarray(np.full((224, 256), 20, np.uint8)).save(image)
    with pytest.raises(SourceError, match=r"001\.png: .*expected a square file, got 224 x 256"):
        nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=64)
    assert not (tmp_path / "store").exists()
    (release / "BBox_List_2017.csv").unlink()
    nih.prepare(nih.NihFiles.find([release]), tmp_path / "store", size=64)
    shown = ArrayStore.open(tmp_path / "store").images[1, 0]
    assert (shown[4:60] == 20).all() and not shown[:4].any() and not shown[60:].any()


def test_a_box_lies_on_what_it_encloses_at_every_size_of_a_square_file(release, tmp_path):
    """The object fills the box, so that its pixels are the store's pixels inside the box."""
    whole = np.zeros((1024, 1024), np.uint8)
    whole[512:768, 128:384] = 255
    box = "00000001_001.png,Infiltrate,128,512,256,256,,,"
    write(release / "BBox_List_2017.csv", [BOX_HEADER, box])
    for size in (1024, 512, 256):
        image = release / "images_001" / "images" / "00000001_001.png"
        step = 1024 // size
        Image.fromarray(np.ascontiguousarray(whole[::step, ::step])).save(image)
        files = nih.NihFiles.find([release])
        nih.prepare(files, tmp_path / "store", size=64, overwrite=True)
        store = ArrayStore.open(tmp_path / "store")
        x0, y0, x1, y1 = store.boxes.of(1)[0][0].astype(int)
        expected = np.zeros((64, 64), np.uint8)
        expected[y0:y1, x0:x1] = 255
        assert np.array_equal(store.images[1, 0], expected)


def test_the_official_tables_are_whole(real_data):
    folder = real_data / "nih_rsna_metadata"
    entries = nih.read_entries(folder / "Data_Entry_2017_v2020.csv.gz")
    assert len(entries) == 112_120
    split = nih.read_split(entries, folder / "train_val_list.txt.gz")
    assert Counter(split.values()) == {"train_val": 86_524, "test": 112_120 - 86_524}
    boxes = nih.read_boxes(folder / "BBox_List_2017.csv")
    assert len(boxes) == 984 and len({box.name for box in boxes}) == 880
    assert {split[box.name] for box in boxes} == {"test"}
    assert sum(box.disease == "Infiltration" for box in boxes) == 123


def test_the_real_images_become_a_store(real_data, tmp_path):
    files = nih.NihFiles.find([real_data / "nih_cxr", real_data / "nih_rsna_metadata"])
    start = time.perf_counter()
    report = nih.prepare(files, tmp_path / "store", size=256, rsna_boxes=True)
    print(f"{report.images / (time.perf_counter() - start):.0f} images/s, tables included")
    assert report.images == 1186 and not report.broken
    assert any(warning.startswith("29 of 182 boxes rsna_2018") for warning in report.warnings)
    store = ArrayStore.open(tmp_path / "store", verify="full")
    assert len(set(store.table["patient"])) == 924
    assert len(store.rows(label="No Finding")) == 442
    assert Counter(store.boxes.origin.tolist()) == {"nih_bbox_2017": 42, "rsna_2018": 182}
    with open(real_data / "nih_cxr" / "labels.csv", newline="") as file:
        official = {row["image_index"]: row["official_split"] for row in csv.DictReader(file)}
    assert dict(zip(store.table["name"], store.table["split"], strict=True)) == official
    with open(real_data / "nih_cxr" / "boxes.csv", newline="") as file:
        expected = sorted(
            (row["image_index"], *(round(float(row[k]), 1) for k in ("x_256", "y_256")))
            for row in csv.DictReader(file)
        )
    names = store.table["name"][store.boxes.row]
    corners = store.boxes.xyxy[:, :2].tolist()
    ours = sorted(
        (str(name), round(x, 1), round(y, 1)) for name, (x, y) in zip(names, corners, strict=True)
    )
    assert [name for name, *_ in ours] == [name for name, *_ in expected]
    assert (
        np.abs(np.array([o[1:] for o in ours]) - np.array([e[1:] for e in expected])).max() < 0.15
    )
    again = nih.prepare(files, tmp_path / "store", size=256, rsna_boxes=True)
    assert again.already_prepared
