"""RSNA Pneumonia Detection Challenge 2018: boxes of lung opacities on frontal radiographs, into an
array store.

What the release looks like: `stage_2_train_images/*.dcm` (1024 x 1024), `stage_2_train_labels.csv`
(one line per box, an empty box for Target 0) and `stage_2_detailed_class_info.csv`. PNG or JPEG
files named by patientId do as well, and so do, with a match table, the files of ChestX-ray14 under
their own names, from which the challenge's were made. They must be square if they have boxes. The
full class table is read before a reconstructed one, of several tables of one name that in the first
folder, and the report names what was read.

Reading (data, the split): The published test images have no labels, so there is no official split.
    Here: `patient_hash_split` makes one, by person if there is a match table (patientId,
        nih_image_index), else by patientId.
    Why: A patientId stands for one image of ChestX-ray14, where a person may have several.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cxrtut.data.decode import channels_first, decode_image, fit_square
from cxrtut.data.prepare import DecodedImage, ImageSource, Preparation, StoreSpec, prepare_store
from cxrtut.data.source_files import by_stem, find_files, one_file_each
from cxrtut.data.source_tables import (
    Corners,
    SourceError,
    box_corners,
    boxes_in_store,
    read_csv,
)
from cxrtut.data.splits import patient_hash_split

CLASSES = ("Pneumonia",)
DETAILED_CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
LICENCE = (
    "RSNA Pneumonia Detection Challenge 2018: rules of the challenge, non-commercial "
    "research; cite Shih et al., Radiology: AI 2019, and Wang et al., CVPR 2017"
)
ORIGIN = "rsna_2018"
ORIGINAL_SIZE = 1024


def read_labels(path: str | os.PathLike[str]) -> dict[str, list[Corners]]:
    """patientId -> boxes, xyxy in pixels of the 1024 x 1024 original; no boxes for Target 0.

    Raises:
        SourceError: a target without a box, a box without a target, a box that is empty or beside
            the image, or a patient with both targets.
    """
    boxes: dict[str, list[Corners]] = {}
    targets: dict[str, str] = {}
    for line, row in read_csv(path, ("patientId", "x", "y", "width", "height", "Target")):
        patient, target = row["patientId"], row["Target"]
        if targets.setdefault(patient, target) != target or target not in ("0", "1"):
            raise SourceError(f"{path}, line {line}: expected one Target, 0 or 1, for {patient}")
        values = [row[column] for column in ("x", "y", "width", "height")]
        if (target == "1") != all(values) or (target == "0") != (not any(values)):
            raise SourceError(f"{path}, line {line}: Target {target} does not go with box {values}")
        found = boxes.setdefault(patient, [])
        if target == "1":
            found.append(box_corners(row, patient, ORIGINAL_SIZE, path, line))
    return boxes


def read_detailed_classes(path: str | os.PathLike[str]) -> dict[str, str]:
    """patientId -> the radiologists' reading, one of `DETAILED_CLASSES`."""
    readings: dict[str, str] = {}
    for line, row in read_csv(path, ("patientId", "class")):
        if row["class"] not in DETAILED_CLASSES:
            raise SourceError(
                f"{path}, line {line}: expected {DETAILED_CLASSES}, got {row['class']}"
            )
        if readings.setdefault(row["patientId"], row["class"]) != row["class"]:
            raise SourceError(f"{path}, line {line}: {row['patientId']} has two classes")
    return readings


def read_nih_names(path: str | os.PathLike[str]) -> dict[str, str]:
    """patientId -> the image of ChestX-ray14 that it is, without its ending, from the match table.

    Raises:
        SourceError: an image name that does not start with a number and an underscore.
    """
    names = {}
    for line, row in read_csv(path, ("patientId", "nih_image_index")):
        name = row["nih_image_index"]
        person, underscore, _ = name.partition("_")
        if name and not (underscore and person.isascii() and person.isdigit()):
            raise SourceError(f"{path}, line {line}: expected <patient>_<number>.png, got {name!r}")
        if name:
            names[row["patientId"]] = Path(name).stem
    return names


def person_of(nih_name: str) -> str:
    """The NIH patient of an image: `00019124_092` is of patient 19124."""
    return str(int(nih_name.partition("_")[0]))


@dataclass(frozen=True)
class RsnaFiles:
    """The files of a release, wherever they lie. `find` looks below some folders.

    Attributes:
        images: the files of each name without its ending; more than one only if they are equal.
        left_out: what `find` could not use, in words.
    """

    labels: Path
    images: dict[str, tuple[Path, ...]]
    detailed_classes: Path | None = None
    match: Path | None = None
    left_out: tuple[str, ...] = ()

    @classmethod
    def find(cls, folders: Iterable[str | os.PathLike[str]]) -> "RsnaFiles":
        """Search `folders` and everything below them.

        Raises:
            SourceError: no label table.
        """
        folders = [Path(folder) for folder in folders]
        found = find_files(folders)
        labels = found.table("stage_2_train_labels.csv")
        if labels is None:
            where = ", ".join(map(str, folders))
            raise SourceError(f"{where}: expected stage_2_train_labels.csv, found none")
        return cls(
            labels=labels,
            images=by_stem(found.images),
            detailed_classes=found.table(
                "stage_2_detailed_class_info.csv",
                "stage_2_detailed_class_info_reconstructed.csv",
            ),
            match=found.table("rsna_nih_match.csv"),
            left_out=found.left_out,
        )


def prepare(
    files: RsnaFiles,
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    limit: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> Preparation:
    """Decode the images that are there into the store `out`; the table keeps the detailed class as
    `reading`.

    Raises:
        SourceError: the tables contradict themselves, there are no images, two different files have
            the name of one, or one with boxes is not square.
    """
    boxes = read_labels(files.labels)
    readings = (
        {} if files.detailed_classes is None else read_detailed_classes(files.detailed_classes)
    )
    nih_names = {} if files.match is None else read_nih_names(files.match)
    images = files.images | {
        patient: files.images[name]
        for patient, name in nih_names.items()
        if patient not in files.images and name in files.images
    }
    patients = [patient for patient in sorted(boxes) if patient in images][:limit]
    path_of, warnings = one_file_each(patients, images)
    sources = []
    for patient in patients:
        person = person_of(nih_names[patient]) if patient in nih_names else patient
        line = {
            "name": patient,
            "patient": person,
            "split": patient_hash_split(person),
            "reading": readings.get(patient, ""),
        }
        decode = _decoder(path_of[patient], size, boxes[patient])
        sources.append(ImageSource(decode, [int(bool(boxes[patient]))], line))
    tables = [files.labels, files.detailed_classes, files.match]
    warnings.append("no official split: by SHA-256 of the patient, one fifth for testing")
    if files.match is None:
        warnings.append(
            "rsna_nih_match.csv is absent: one person may be on both sides of the split"
        )
    return prepare_store(
        sources,
        StoreSpec(
            source="RSNA Pneumonia Detection Challenge 2018",
            licence=LICENCE,
            classes=CLASSES,
            size=size,
            tables=list(filter(None, tables)),
            inputs=list(path_of.values()),
            settings={"limit": limit},
        ),
        out,
        missing=None if limit else sorted(set(boxes) - set(images)),
        left_out=files.left_out,
        warnings=warnings,
        threads=threads,
        overwrite=overwrite,
    )


def _decoder(path: Path, size: int, boxes: list[Corners]) -> Callable[[], DecodedImage]:
    def decode() -> DecodedImage:
        square, frame = fit_square(decode_image(path), size)
        corners = boxes_in_store(boxes, ORIGINAL_SIZE, frame, path).tolist()
        rows = [(0, x0, y0, x1, y1, ORIGIN) for x0, y0, x1, y1 in corners]
        return DecodedImage(channels_first(square), boxes=rows)

    return decode
