"""Fundus photographs: IDRiD with pixel masks of its lesions, and the Kaggle diabetic retinopathy
images with grades.

IDRiD (Porwal et al., 2018) looks like `A. Segmentation/1. Original Images/a. Training
Set/IDRiD_01.jpg` and `2. All Segmentation Groundtruths/a. Training Set/1.
Microaneurysms/IDRiD_01_MA.tif`; folders `MA/IDRiD_01.png` and so on do as well. A lesion without a
mask file is absent from the image. Kaggle's set is `trainLabels.csv` (image, level) with
`train/10_left.jpeg`.

The dark border around the eye is cropped (Zhang et al., MICCAI 2019, do the same), the rest is
padded to a square.
"""

import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cxrtut.data.decode import (
    channels_first,
    decode_image,
    decode_mask,
    fit_mask,
    fit_square,
)
from cxrtut.data.device_store import pack_masks
from cxrtut.data.prepare import DecodedImage, ImageSource, Preparation, StoreSpec, prepare_store
from cxrtut.data.source_tables import (
    SourceError,
    check_folders,
    find_files,
    find_table,
    read_csv,
)
from cxrtut.data.splits import patient_hash_split

LESIONS = {
    "MA": "Microaneurysms",
    "HE": "Haemorrhages",
    "EX": "Hard Exudates",
    "SE": "Soft Exudates",
}
IDRID_LICENCE = "IDRiD, Porwal et al. 2018, CC BY 4.0, doi:10.21227/H25W98"
KAGGLE_CLASSES = ("Retinopathy",)
KAGGLE_LICENCE = "Kaggle Diabetic Retinopathy Detection 2015 (EyePACS): rules of the competition"
_BORDER_LEVEL = 20
_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def field_of_view(image: UInt8[np.ndarray, "H W 3"]) -> tuple[slice, slice]:
    """Rows and columns of the eye: those where at least 1 % of the pixels are brighter than level
    20 of 255.

    An image that is dark throughout is returned whole.
    """
    bright = image.max(axis=2) > _BORDER_LEVEL
    rows = np.flatnonzero(bright.mean(axis=1) > 0.01)
    columns = np.flatnonzero(bright.mean(axis=0) > 0.01)
    if not len(rows) or not len(columns):
        return slice(0, image.shape[0]), slice(0, image.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def find_idrid(
    folders: Iterable[str | os.PathLike[str]],
) -> dict[str, tuple[Path, dict[str, Path]]]:
    """Image stem -> (image, {lesion code: mask}). Of several sizes of one image the largest is
    taken.

    A file whose size cannot be read is taken too, before all others: decoding it will say so, and
    the image counts as broken.

    Raises:
        SourceError: no image, or masks of which none has the size of its image.
    """
    folders = check_folders(folders)
    images: dict[str, list[Path]] = {}
    masks: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("IDRiD_*")):
        match = re.fullmatch(r"(IDRiD_\d+)(?:_(MA|HE|EX|SE|OD))?", path.stem)
        if match is None or path.suffix.lower() not in _SUFFIXES:
            continue
        code = match[2] or (path.parent.name if path.parent.name in (*LESIONS, "OD") else None)
        if code is None:
            images.setdefault(match[1], []).append(path)
        else:
            masks.setdefault((match[1], code), []).append(path)
    if not images:
        raise SourceError(
            f"{', '.join(map(str, folders))}: expected IDRiD_<number>.jpg, found none"
        )
    found = {}
    for stem, candidates in images.items():
        sizes = {path: _size_of(path) for path in candidates}
        image = max(candidates, key=lambda path: sizes[path] or (math.inf,))
        fitting = {}
        for code in LESIONS:
            files = masks.get((stem, code), [])
            same = [path for path in files if _size_of(path) in (sizes[image], None)]
            if files and not same and sizes[image] is not None:
                raise SourceError(
                    f"{files[0]}: expected a mask of {sizes[image]} pixels, as {image}"
                )
            if same:
                fitting[code] = same[0]
        found[stem] = (image, fitting)
    return found


def prepare_idrid(
    folders: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    limit: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> Preparation:
    """Images, lesion masks and the official split (`Testing Set` in the path is the test split)
    into a store.

    Raises:
        SourceError: no images, or masks that do not fit.
    """
    found = dict(sorted(find_idrid([Path(f) for f in folders]).items())[:limit])
    sources = []
    for stem, (image, masks) in found.items():
        split = "test" if any("testing set" in part.lower() for part in image.parts) else "train"
        line = {"name": stem, "patient": stem, "split": split}
        sources.append(ImageSource(_idrid_decoder(image, masks, size), (), line))
    inputs = [path for image, masks in found.values() for path in (image, *masks.values())]
    return prepare_store(
        sources,
        StoreSpec(
            source="IDRiD",
            licence=IDRID_LICENCE,
            classes=tuple(LESIONS.values()),
            size=size,
            channels=3,
            with_masks=True,
            inputs=inputs,
            settings={"limit": limit},
        ),
        out,
        missing=None if limit else (),
        warnings=[]
        if any(line.line["split"] == "test" for line in sources)
        else ["no test images"],
        threads=threads,
        overwrite=overwrite,
    )


def prepare_kaggle(
    folders: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    limit: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> Preparation:
    """Images with their grade: level 1 to 4 is Retinopathy; the table keeps `level`. Split by
    patient hash.

    Raises:
        SourceError: no table, a level outside 0 ... 4, or no images.
    """
    folders = [Path(folder) for folder in folders]
    table = find_table(folders, "trainLabels.csv")
    if table is None:
        raise SourceError(f"{', '.join(map(str, folders))}: expected trainLabels.csv, found none")
    levels = {}
    for number, row in read_csv(table, ("image", "level")):
        if row["level"] not in ("0", "1", "2", "3", "4"):
            raise SourceError(f"{table}, line {number}: expected level 0 ... 4, got {row['level']}")
        levels[row["image"]] = int(row["level"])
    images = find_files(folders, _SUFFIXES)
    names = [name for name in sorted(levels) if name in images][:limit]
    sources = []
    for name in names:
        patient = name.split("_")[0]
        split = patient_hash_split(patient)
        line = {"name": name, "patient": patient, "split": split, "level": levels[name]}
        sources.append(
            ImageSource(_fundus_decoder(images[name], size), [int(levels[name] > 0)], line)
        )
    return prepare_store(
        sources,
        StoreSpec(
            source="Kaggle Diabetic Retinopathy Detection",
            licence=KAGGLE_LICENCE,
            classes=KAGGLE_CLASSES,
            size=size,
            channels=3,
            inputs=[table, *(images[name] for name in names)],
            settings={"limit": limit},
        ),
        out,
        missing=None if limit else sorted(set(levels) - set(images)),
        warnings=["no official split: by SHA-256 of the patient, one fifth for testing"],
        threads=threads,
        overwrite=overwrite,
    )


def _idrid_decoder(image: Path, masks: dict[str, Path], size: int) -> Callable[[], DecodedImage]:
    def decode() -> DecodedImage:
        pixels = decode_image(image, channels=3)
        eye = field_of_view(pixels)
        square, _ = fit_square(pixels[eye], size)
        per_class = np.zeros((1, len(LESIONS), size, size), dtype=bool)
        present = [0] * len(LESIONS)
        for k, code in enumerate(LESIONS):
            if code in masks:
                mask = decode_mask(masks[code])
                present[k] = int(mask.any())
                per_class[0, k] = fit_mask(mask[eye], size)
        return DecodedImage(channels_first(square), mask=pack_masks(per_class)[0], labels=present)

    return decode


def _fundus_decoder(image: Path, size: int) -> Callable[[], DecodedImage]:
    def decode() -> DecodedImage:
        pixels = decode_image(image, channels=3)
        square, _ = fit_square(pixels[field_of_view(pixels)], size)
        return DecodedImage(channels_first(square))

    return decode


def _size_of(path: Path) -> tuple[int, int] | None:
    """(width, height) from the header; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # Pillow raises nearly every kind there is
        return None
