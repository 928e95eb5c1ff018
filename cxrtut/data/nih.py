"""ChestX-ray14 (Wang et al., CVPR 2017): the tables, the boxes, the split and the images, into an
array store.

What the release looks like: `images_001/images/*.png` to `images_012` (or any folder that holds the
files, also re-compressed as .jpg: they are matched by their stem), `Data_Entry_2017.csv` or
`Data_Entry_2017_v2020.csv`, `BBox_List_2017.csv`, `train_val_list.txt` and `test_list.txt`; tables
may be gzipped. Of several label tables `Data_Entry_2017_v2020.csv` is read, of several tables of
one name that in the first folder, and the report names what was read. Box coordinates are pixels of
the original 1024 x 1024 image, whatever the size of the files at hand, which must be square.

Reading (data, boxes of the RSNA challenge): The challenge drew boxes of lung opacity on some of
    these images, and a table matches the names.
    Here: They become Pneumonia boxes only on request (`rsna_boxes`, --rsna-boxes). Labels stay as
        they are. The report counts boxes whose image is not labelled with their disease, or not in
        the label table.
    Why: Boxes and labels are by different readers: some boxes lie on images labelled without
        Pneumonia.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cxrtut.data.decode import channels_first, decode_image, fit_square
from cxrtut.data.prepare import DecodedImage, ImageSource, Preparation, StoreSpec, prepare_store
from cxrtut.data.source_files import by_stem, find_files, one_file_each
from cxrtut.data.source_tables import (
    Corners,
    SourceError,
    box_corners,
    boxes_in_store,
    number,
    read_csv,
    read_names,
    read_rows,
)
from cxrtut.data.splits import check_patients

DISEASES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
LICENCE = (
    "NIH Clinical Center: unrestricted use; link to https://nihcc.app.box.com/v/ChestXray-NIHCC, "
    "acknowledge the NIH Clinical Center, cite Wang et al., ChestX-ray8, CVPR 2017"
)
ORIGINAL_SIZE = 1024
NIH_BOX, RSNA_BOX = "nih_bbox_2017", "rsna_2018"
_BOX_TABLE_SPELLING = {"Infiltrate": "Infiltration"}
_BOX_COLUMNS = ("name", "disease", "x", "y", "width", "height")
_ENTRY_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_ENTRY_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


@dataclass(frozen=True)
class NihEntry:
    """One row of the label table. `findings` are names of `DISEASES`; none of them means No
    Finding.
    """

    name: str
    patient: str
    findings: tuple[str, ...]
    follow_up: str
    age: str
    sex: str
    view: str


@dataclass(frozen=True)
class NihBox:
    """One box, xyxy in pixels of the 1024 x 1024 original."""

    name: str
    disease: str
    xyxy: Corners
    origin: str


def read_entries(path: str | os.PathLike[str]) -> dict[str, NihEntry]:
    """The label table, by image name.

    Raises:
        SourceError: a column is missing, a disease unknown, or an image listed twice.
    """
    entries: dict[str, NihEntry] = {}
    for line, row in read_csv(path, _ENTRY_COLUMNS):
        name = row["Image Index"]
        findings = tuple(f for f in row["Finding Labels"].split("|") if f != "No Finding")
        unknown = sorted(set(findings) - set(DISEASES))
        if unknown:
            raise SourceError(
                f"{path}, line {line}: expected diseases of the NIH table, got {unknown}"
            )
        if name in entries:
            raise SourceError(f"{path}, line {line}: {name} is listed twice")
        entries[name] = NihEntry(
            name=name,
            patient=row["Patient ID"],
            findings=findings,
            follow_up=row.get("Follow-up #") or "",
            age=row.get("Patient Age") or "",
            sex=row.get("Patient Gender") or row.get("Patient Sex") or "",
            view=row.get("View Position") or "",
        )
    return entries


def read_boxes(path: str | os.PathLike[str]) -> list[NihBox]:
    """The box table, whose header names one column for four; `Infiltrate` becomes `Infiltration`
    here.

    Raises:
        SourceError: a line that is no box, a box that is empty or beside the image, or an unknown
            disease.
    """
    boxes = []
    rows = read_rows(path)
    if next(rows, (0, [""]))[1][0] != "Image Index":
        raise SourceError(f"{path}: expected a header that starts with 'Image Index'")
    for line, fields in rows:
        if len(fields) < len(_BOX_COLUMNS):
            raise SourceError(f"{path}, line {line}: no box in {fields}")
        row = dict(zip(_BOX_COLUMNS, fields, strict=False))
        disease = _BOX_TABLE_SPELLING.get(row["disease"], row["disease"])
        if disease not in DISEASES:
            raise SourceError(f"{path}, line {line}: unknown disease {disease!r}")
        corners = box_corners(row, row["name"], ORIGINAL_SIZE, path, line)
        boxes.append(NihBox(row["name"], disease, corners, NIH_BOX))
    return boxes


def read_rsna_boxes(
    labels_path: str | os.PathLike[str],
    match_path: str | os.PathLike[str],
    largest_mse: float = 10.0,
) -> list[NihBox]:
    """Boxes of the RSNA challenge (lung opacity, drawn on NIH images) as Pneumonia boxes of the NIH
    images.

    Args:
        labels_path: `stage_2_train_labels.csv`.
        match_path: columns patientId, nih_image_index and, if the match was made by comparing
            pixels, mse.
        largest_mse: matches whose pixels differ more are not used (10: the advice of the match's
            author).

    Raises:
        SourceError: an mse that is no number, or a box that is none, empty or beside the image.
    """
    names: dict[str, str] = {}
    for line, row in read_csv(match_path, ("patientId", "nih_image_index")):
        mse = number(row, "mse", match_path, line) if row.get("mse") else 0.0
        if row["nih_image_index"] and mse <= largest_mse:
            names[row["patientId"]] = row["nih_image_index"]
    boxes = []
    for line, row in read_csv(labels_path, ("patientId", "x", "y", "width", "height", "Target")):
        patient = row["patientId"]
        if row["Target"] == "1":
            corners = box_corners(row, patient, ORIGINAL_SIZE, labels_path, line)
            if patient in names:
                boxes.append(NihBox(names[patient], "Pneumonia", corners, RSNA_BOX))
    return boxes


def read_split(
    entries: Mapping[str, NihEntry],
    train_val_path: str | os.PathLike[str],
    test_path: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Image name -> `train_val` or `test`, the official split, checked: no patient is on both
    sides.

    Args:
        entries: the label table.
        train_val_path: the official list.
        test_path: the official list; None for the complement in the label table.

    Raises:
        SourceError: a patient, or an image, is on both sides, or an image on none.
    """
    train_val = read_names(train_val_path)
    test = set(entries) - train_val if test_path is None else read_names(test_path)
    both = sorted(train_val & test)
    if both:
        raise SourceError(f"{train_val_path}: {len(both)} images are in both lists: {both[:5]}")
    split = {name: "train_val" if name in train_val else "test" for name in train_val | test}
    neither = sorted(set(entries) - set(split))
    if neither:
        raise SourceError(f"{train_val_path}: {len(neither)} images are in no list: {neither[:5]}")
    check_patients({name: entry.patient for name, entry in entries.items()}, split)
    return split


@dataclass(frozen=True)
class NihFiles:
    """The files of a release, wherever they lie. `find` looks below some folders.

    Attributes:
        images: the files of each name without its ending; more than one only if they are equal.
        left_out: what `find` could not use, in words.
    """

    entries: Path
    train_val: Path
    images: dict[str, tuple[Path, ...]]
    test: Path | None = None
    boxes: Path | None = None
    rsna_labels: Path | None = None
    rsna_match: Path | None = None
    left_out: tuple[str, ...] = ()

    @classmethod
    def find(cls, folders: Iterable[str | os.PathLike[str]]) -> "NihFiles":
        """Search `folders` and everything below them.

        Raises:
            SourceError: no label table, or no official list of the training images.
        """
        folders = [Path(folder) for folder in folders]
        found = find_files(folders)
        entries = found.table(*_ENTRY_TABLES)
        train_val = found.table("train_val_list.txt")
        if entries is None or train_val is None:
            absent = _ENTRY_TABLES[0] if entries is None else "train_val_list.txt"
            raise SourceError(f"{', '.join(map(str, folders))}: expected {absent}, found none")
        return cls(
            entries=entries,
            train_val=train_val,
            images=by_stem(found.images),
            test=found.table("test_list.txt"),
            boxes=found.table("BBox_List_2017.csv"),
            rsna_labels=found.table("stage_2_train_labels.csv"),
            rsna_match=found.table("rsna_nih_match.csv"),
            left_out=found.left_out,
        )

    def tables(self) -> list[Path]:
        """The tables that are there."""
        tables = (
            self.entries, self.train_val, self.test, self.boxes, self.rsna_labels, self.rsna_match
        )  # fmt: skip
        return [path for path in tables if path is not None]


def prepare(
    files: NihFiles,
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    limit: int | None = None,
    threads: int | None = None,
    rsna_boxes: bool = False,
    overwrite: bool = False,
) -> Preparation:
    """Decode the images that are there into the store `out`, with labels, boxes and the official
    split.

    Args:
        files: see `NihFiles.find`.
        out: folder of the store.
        size: height and width of the store's images.
        limit: at most so many images, the first by name.
        threads: decoding threads; None for the number of cores.
        rsna_boxes: add the boxes of the RSNA challenge as Pneumonia boxes; see `Reading`.
        overwrite: replace a store that was made from other files or with other settings.

    Raises:
        SourceError: the tables contradict each other, there are no images, two different files
            have the name of one, or one with boxes is not square.
    """
    if not rsna_boxes:
        files = replace(files, rsna_labels=None, rsna_match=None)
    entries = read_entries(files.entries)
    split = read_split(entries, files.train_val, files.test)
    boxes: dict[str, list[NihBox]] = {}
    all_boxes = [] if files.boxes is None else read_boxes(files.boxes)
    if rsna_boxes:
        if files.rsna_labels is None or files.rsna_match is None:
            raise SourceError(
                "RSNA boxes: expected stage_2_train_labels.csv and rsna_nih_match.csv, found "
                f"{files.rsna_labels} and {files.rsna_match}"
            )
        all_boxes += read_rsna_boxes(files.rsna_labels, files.rsna_match)
    for box in all_boxes:
        boxes.setdefault(box.name, []).append(box)
    names = [name for name in sorted(entries) if Path(name).stem in files.images][:limit]
    path_of, warnings = one_file_each([Path(name).stem for name in names], files.images)
    if files.test is None:
        warnings.append(
            "test_list.txt is absent: the test images are those not in train_val_list.txt"
        )
    warnings += _box_warnings(all_boxes, entries, set(names))
    missing = None if limit else sorted(n for n in entries if Path(n).stem not in files.images)
    return prepare_store(
        [
            ImageSource(
                _decoder(path_of[Path(name).stem], size, boxes.get(name, [])),
                [int(disease in entries[name].findings) for disease in DISEASES],
                _line(entries[name], split[name]),
            )
            for name in names
        ],
        StoreSpec(
            source="NIH ChestX-ray14",
            licence=LICENCE,
            classes=DISEASES,
            size=size,
            tables=files.tables(),
            inputs=list(path_of.values()),
            settings={"limit": limit, "rsna_boxes": rsna_boxes},
        ),
        out,
        missing=missing,
        left_out=files.left_out,
        warnings=warnings,
        threads=threads,
        overwrite=overwrite,
    )


def _box_warnings(
    boxes: list[NihBox], entries: Mapping[str, NihEntry], names: set[str]
) -> list[str]:
    """What does not go together: boxes with the labels of their images, and with the label table.

    Args:
        boxes: all boxes of the tables.
        entries: the label table.
        names: the images that go into the store.
    """
    warnings = []
    for origin in (NIH_BOX, RSNA_BOX):
        mine = [box for box in boxes if box.origin == origin]
        here = [box for box in mine if box.name in names and box.name in entries]
        unlabelled = sum(box.disease not in entries[box.name].findings for box in here)
        unknown = sum(box.name not in entries for box in mine)
        if unlabelled:
            warnings.append(
                f"{unlabelled} of {len(here)} boxes {origin}: the image is not labelled with the "
                "disease of its box"
            )
        if unknown:
            warnings.append(
                f"{unknown} of {len(mine)} boxes {origin}: the image is not in the label table"
            )
    return warnings


def _decoder(path: Path, size: int, boxes: list[NihBox]) -> Callable[[], DecodedImage]:
    def decode() -> DecodedImage:
        square, frame = fit_square(decode_image(path), size)
        corners = boxes_in_store([box.xyxy for box in boxes], ORIGINAL_SIZE, frame, path)
        rows = [
            (DISEASES.index(box.disease), x0, y0, x1, y1, box.origin)
            for box, (x0, y0, x1, y1) in zip(boxes, corners.tolist(), strict=True)
        ]
        return DecodedImage(channels_first(square), boxes=rows)

    return decode


def _line(entry: NihEntry, split: str) -> dict[str, object]:
    return {
        "name": entry.name,
        "patient": entry.patient,
        "split": split,
        "view": entry.view,
        "age": entry.age,
        "sex": entry.sex,
        "follow_up": entry.follow_up,
    }
