"""Simulated chest radiographs as files: in the layout of ChestX-ray14 (nih), of the RSNA Pneumonia
Detection Challenge (rsna), or as an array store with healthy twins and masks (store).

    python data_scripts/make_phantom.py --layout nih --out data/phantom_nih --n 1000
    python data_scripts/prepare_nih.py --from data/phantom_nih --out data/p_256 --accept-licence

The two official layouts are for trying out everything that reads the real releases; patients, names
and images are the same in all three. As in the releases, boxes are in pixels of a 1024 x 1024
image, whatever --size the files have. The same arguments give the same bytes (with the same
versions of torch, OpenCV and pydicom). The images are simulated and are no clinical evidence.
"""

import argparse
import csv
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path

import cv2
import numpy as np
import torch

from cxrtut.console import run_program
from cxrtut.data import nih, rsna
from cxrtut.data.phantom import CLASSES, PRESETS, ChestPhantom, PhantomSample
from cxrtut.data.phantom.storage import sample_blocks, table_rows, write_store
from cxrtut.data.sample import to_uint8
from cxrtut.data.store import StoreError
from cxrtut.files import atomic_write, flush_folder, flush_to_disk

IMAGES_PER_FOLDER = 5000
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NIH_BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
NIH_BOX_SPELLING = {"Infiltration": "Infiltrate"}
DEFAULT_SIZE = {"nih": nih.ORIGINAL_SIZE, "rsna": rsna.ORIGINAL_SIZE, "store": 256}
MARK = "Simulated chest radiographs"
README = """{mark}, made by cxrtut's make_phantom; no patients.

These images are computed from a drawing of the chest. They are for teaching and for testing
programs. They are not clinical evidence, nor is any result that is obtained on them.

layout {layout}, {n} images of {size} x {size} pixels, preset {preset}, seed {seed}, prevalence \
{prevalence}, severity {shown:g}
{remarks}"""
REMARKS = {
    "nih": "Boxes are in pixels of a 1024 x 1024 image, as in ChestX-ray14, whatever the size.\n",
    "rsna": (
        "Boxes are in pixels of a 1024 x 1024 image, as in the challenge, whatever the size.\n"
        "Lung Opacity (Target 1) is simulated pneumonia; any other finding is No Lung Opacity / "
        "Not Normal.\nrsna_nih_match.csv names the image of the layout nih with the same arguments "
        "that shows the same picture.\n"
    ),
    "store": "Open it with cxrtut.data.store.ArrayStore.open; boxes are in pixels of the images.\n",
}
Progress = Callable[[int, int], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns its exit code: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    parser = script_parser()
    options = parser.parse_args(arguments)
    if options.size is None:
        options.size = DEFAULT_SIZE[options.layout]
    try:
        make(options)
    except BrokenPipeError:  # nobody reads on: see `console`
        raise
    except (StoreError, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted; nothing half-made was left", file=sys.stderr)
        return 130
    print(f"made: {options.out}\n  {options.n} simulated images, layout {options.layout}")
    return 0


def script_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make_phantom",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--layout", required=True, choices=sorted(DEFAULT_SIZE))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--n", type=int, required=True, help="number of images")
    parser.add_argument(
        "--size", type=int, help="pixels (default: 1024, the official size; store: 256)"
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="default")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other patients")
    parser.add_argument(
        "--prevalence", type=float, default=0.5, help="share with findings (default: %(default)s)"
    )
    parser.add_argument("--severity", type=float, help="of the findings (default: the preset's)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="their bytes may differ"
    )
    parser.add_argument("--jpeg", action="store_true", help="rsna: compress as JPEG baseline")
    parser.add_argument(
        "--monochrome1",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="rsna: share of files in which low is white (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what was made before")
    return parser


def make(options: argparse.Namespace) -> None:
    """Make the folder: all of it, or nothing.

    Raises:
        ValueError: an argument out of range.
        StoreError: the folder exists and may not be replaced.
        ModuleNotFoundError: the layout rsna without pydicom.
    """
    if options.n < 1:
        raise ValueError(f"--n: expected a number >= 1, got {options.n}")
    if not 0 <= options.monochrome1 <= 1:
        raise ValueError(f"--monochrome1: expected a share in [0, 1], got {options.monochrome1}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: expected a GPU for cuda, found none")
    phantom = ChestPhantom(
        options.size,
        options.preset,
        seed=options.seed,
        prevalence=options.prevalence,
        severity=options.severity,
        device=options.device,
    )
    if options.out.exists() and not options.overwrite:
        raise StoreError(f"{options.out}: exists already; remove it or pass --overwrite")
    about = README.format(
        **vars(options), mark=MARK, shown=phantom.preset.severity, remarks=REMARKS[options.layout]
    )
    show = progress_lines()
    if options.layout == "store":
        write_store(phantom, options.out, options.n, overwrite=options.overwrite, progress=show)
        _write_readme(options.out, about)
        return
    with whole_folder(options.out) as folder:
        if options.layout == "nih":
            write_nih(phantom, folder, options.n, show)
        else:
            write_rsna(phantom, folder, options.n, show, options.jpeg, options.monochrome1)
        _write_readme(folder, about)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder under another name that becomes `path` when all went well, and vanishes otherwise.

    Raises:
        StoreError: `path` exists and was not made by this script.
    """
    if path.exists() and not _made_here(path):
        raise StoreError(f"{path}: exists and was not made by make_phantom; not overwritten")
    path = path.resolve() if path.is_symlink() else path  # never rename or remove the link itself
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    former = path.with_name(f"{path.name}.former-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        _flush(partial)
        if path.exists():
            path.rename(former)
        partial.rename(path)
        flush_folder(path.parent)
    finally:
        if former.exists() and not path.exists():
            former.rename(path)
        shutil.rmtree(former, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def write_nih(phantom: ChestPhantom, folder: Path, n: int, progress: Progress) -> None:
    """The files of ChestX-ray14 in `folder`: PNG images, label and box tables, the lists of the
    split. The simulated `val` patients are part of train_val, as the official ones are.
    """
    names = (
        "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"
    )  # fmt: skip
    with _opened(folder, names) as (entries, boxes, train_val, test):
        entries.write(NIH_HEADER + "\n")
        boxes.write(NIH_BOX_HEADER + "\n")
        done = 0
        for sample in sample_blocks(phantom, n):
            spacing = _spacing_mm(sample)
            for i, (line, pixels) in enumerate(_lines_and_pixels(phantom, sample)):
                name = f"{line['name']}.png"
                archive = folder / f"images_{done // IMAGES_PER_FOLDER + 1:03d}" / "images"
                archive.mkdir(parents=True, exist_ok=True)
                (archive / name).write_bytes(_encoded(".png", pixels))
                present = [CLASSES[k] for k in sample.label_vector[i].nonzero()[:, 0].tolist()]
                fields = (
                    name, "|".join(present) or "No Finding", line["visit"], line["patient"],
                    line["age"], line["sex"], line["view"], *pixels.shape[::-1],
                    *[f"{spacing[i]:.3f}"] * 2,
                )  # fmt: skip
                csv.writer(entries, lineterminator="\n").writerow(fields)
                for disease, xywh in _official_boxes(sample, i, nih.ORIGINAL_SIZE):
                    spelling = NIH_BOX_SPELLING.get(disease, disease)
                    boxes.write(",".join([name, spelling, *xywh]) + "\n")
                (test if line["split"] == "test" else train_val).write(name + "\n")
                done += 1
            progress(done, n)


def write_rsna(
    phantom: ChestPhantom,
    folder: Path,
    n: int,
    progress: Progress,
    jpeg: bool,
    monochrome1: float,
) -> None:
    """The files of the challenge in `folder`: DICOM images, labels, detailed classes, and the
    table from patientId to the image name of `write_nih`.

    Args:
        phantom, folder, n, progress: as in `write_nih`.
        jpeg: compress as JPEG baseline, as the challenge did, instead of not at all.
        monochrome1: share of images stored as MONOCHROME1 (low is white).
    """
    names = ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "rsna_nih_match.csv")
    (folder / "stage_2_train_images").mkdir()
    with _opened(folder, names) as (labels, detailed, match):
        labels.write("patientId,x,y,width,height,Target\n")
        detailed.write("patientId,class\n")
        match.write("patientId,nih_image_index,mse\n")
        done = 0
        for sample in sample_blocks(phantom, n):
            spacing = _spacing_mm(sample)
            for i, (line, pixels) in enumerate(_lines_and_pixels(phantom, sample)):
                digest = hashlib.sha256(f"{phantom.seed} {line['name']}".encode()).digest()
                patient = str(uuid.UUID(bytes=digest[:16], version=4))
                inverted = int.from_bytes(digest[16:24], "big") / 2**64 < monochrome1
                path = folder / "stage_2_train_images" / f"{patient}.dcm"
                _write_dicom(path, patient, line, pixels, spacing[i], jpeg, inverted)
                opacities = [
                    xywh
                    for disease, xywh in _official_boxes(sample, i, rsna.ORIGINAL_SIZE)
                    if disease == "Pneumonia"
                ]
                normal, other, opacity = rsna.DETAILED_CLASSES
                ill = bool(sample.label_vector[i].any())
                reading = opacity if opacities else other if ill else normal
                for xywh in opacities or [["", "", "", ""]]:
                    labels.write(",".join([patient, *xywh, str(int(bool(opacities)))]) + "\n")
                    detailed.write(f"{patient},{reading}\n")
                match.write(f"{patient},{line['name']}.png,0.0\n")
                done += 1
            progress(done, n)


def progress_lines() -> Progress:
    """On a terminal one line that counts; elsewhere a line for every further tenth."""
    told = 0

    def show(done: int, total: int) -> None:
        nonlocal told
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r  rendering {done} / {total}", end=end, file=sys.stderr, flush=True)
        elif done * 10 // total > told:
            told = done * 10 // total
            print(f"  rendering {done} / {total}", file=sys.stderr, flush=True)

    return show


def _lines_and_pixels(
    phantom: ChestPhantom, sample: PhantomSample
) -> Iterator[tuple[dict[str, object], np.ndarray]]:
    pixels = to_uint8(sample.image[:, 0]).cpu().numpy()
    return zip(table_rows(phantom, sample), pixels, strict=True)


def _official_boxes(sample: PhantomSample, i: int, frame: int) -> Iterator[tuple[str, list[str]]]:
    """Disease, and (x, y, width, height) in pixels of the official frame, of every box of image
    i.
    """
    factor = frame / sample.image.shape[-1]
    boxes, labels = sample.batch().boxes_of(i)
    for label, (x0, y0, x1, y1) in zip(labels.tolist(), boxes.tolist(), strict=True):
        yield CLASSES[label], [f"{factor * v:.9g}" for v in (x0, y0, x1 - x0, y1 - y0)]


def _spacing_mm(sample: PhantomSample) -> list[float]:
    """Millimetres of the patient per pixel: the pose maps an image of width 2 to centimetres."""
    area = torch.linalg.det(sample.pose[:, :, :2].double().cpu())
    return (area.abs().sqrt() * (20.0 / sample.image.shape[-1])).tolist()


def _write_dicom(
    path: Path,
    patient: str,
    line: dict[str, object],
    pixels: np.ndarray,
    spacing: float,
    jpeg: bool,
    inverted: bool,
) -> None:
    try:
        from pydicom import uid
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the layout rsna needs pydicom >= 3 (pip install 'cxrtut[dicom]')"
        ) from error
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = (
        uid.JPEGBaseline8Bit if jpeg else uid.ExplicitVRLittleEndian
    )
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    for level in ("SOP", "Series", "Study"):
        setattr(dataset, f"{level}InstanceUID", uid.UID(_uid(level, patient)))
    dataset.StudyDate = dataset.StudyTime = dataset.PatientBirthDate = ""
    dataset.StudyID = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Modality, dataset.ConversionType, dataset.BodyPartExamined = "CR", "WSD", "CHEST"
    dataset.ImageComments = "simulated by cxrtut; no patient, no clinical evidence"
    dataset.PatientName = dataset.PatientID = patient
    dataset.PatientAge, dataset.PatientSex = f"{line['age']:03}Y", line["sex"]
    dataset.ViewPosition, dataset.SeriesDescription = line["view"], f"view: {line['view']}"
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [f"{spacing:.4f}"] * 2
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.LossyImageCompression = "01" if jpeg else "00"
    stored = 255 - pixels if inverted else pixels
    if jpeg:
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.PixelData = encapsulate([_encoded(".jpg", stored)])
    else:
        dataset.PixelData = stored.tobytes() + b"\0" * (stored.size % 2)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def _uid(level: str, patient: str) -> str:
    """A UID of the form 2.25.<number of a UUID> (DICOM PS3.5 B.2), the same for the same image."""
    digest = hashlib.sha256(f"{level} {patient}".encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def _encoded(suffix: str, pixels: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, pixels)
    if not done:
        raise OSError(f"an image of shape {pixels.shape} could not be encoded as {suffix}")
    return data.tobytes()


@contextmanager
def _opened(folder: Path, names: Sequence[str]) -> Iterator[list[TextIOWrapper]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(open(folder / name, "w", newline="", encoding="utf-8"))
            for name in names
        ]


def _made_here(path: Path) -> bool:
    readme = path / "README.txt"
    return readme.is_file() and readme.read_text(encoding="utf-8").startswith(MARK)


def _write_readme(folder: Path, text: str) -> None:
    with atomic_write(folder / "README.txt") as file:
        file.write(text.encode())


def _flush(path: Path) -> None:
    """Wait until a file, or a folder and everything below it, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            _flush(inside)
        flush_folder(path)
        return
    with open(path, "rb+") as file:
        flush_to_disk(file.fileno())


if __name__ == "__main__":
    sys.exit(run_program(main))
