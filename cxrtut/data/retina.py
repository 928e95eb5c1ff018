"""Fundus photographs: IDRiD with pixel masks of its lesions, and the Kaggle diabetic retinopathy
images with grades.

IDRiD (Porwal et al., 2018) looks like `A. Segmentation/1. Original Images/a. Training
Set/IDRiD_01.jpg` and `2. All Segmentation Groundtruths/a. Training Set/1.
Microaneurysms/IDRiD_01_MA.tif`; folders `MA/IDRiD_01.png` and so on do as well. Kaggle's set is
`trainLabels.csv` (image, level) with `train/10_left.jpeg`.

Reading (data, lesions without a file): Segmented images have mask files only of the lesions they
    show. Parts B and C have none.
    Here: If an image has any mask file (the optic disc's will do), a lesion without one is absent.
        An image without any is left out and counted.
    Why: Nobody knows the lesions of such an image, so it must not pass for a healthy eye.

The dark border around the eye is cropped (Zhang et al., MICCAI 2019, do the same), the rest is
padded to a square.
"""

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cxrtut.data.decode import (
    ImageError,
    channels_first,
    decode_image,
    decode_mask,
    fit_mask,
    fit_square,
)
from cxrtut.data.device_store import pack_masks
from cxrtut.data.prepare import DecodedImage, ImageSource, Preparation, StoreSpec, prepare_store
from cxrtut.data.source_files import (
    by_stem,
    copies_warning,
    find_files,
    one_file,
    one_file_each,
)
from cxrtut.data.source_tables import SourceError, read_csv
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
_OPTIC_DISC = "OD"
_ORIENTATION = 0x0112  # of EXIF


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


@dataclass(frozen=True)
class IdridFiles:
    """The segmented images of IDRiD, wherever they lie. `find` looks below some folders.

    Attributes:
        eyes: stem -> (image, {lesion code: mask}).
        missing: images of which there are masks alone, or whose mask is a link to nothing.
        left_out: what `find` could not use, in words.
        warnings: images without masks, copies and smaller versions, counted.
    """

    eyes: dict[str, tuple[Path, dict[str, Path]]]
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def find(cls, folders: Iterable[str | os.PathLike[str]]) -> "IdridFiles":
        """Search `folders` and everything below them. Of several sizes of one image the largest is
        taken.

        A file whose size cannot be read is taken too, before all others: decoding it will say so,
        and the image counts as broken.

        Raises:
            SourceError: no image, no mask, masks of which none has the size of its image, or two
                different files that are one image, or one mask, in the same size.
        """
        folders = list(folders)
        found = find_files(folders)
        images: dict[str, list[Path]] = {}
        masks: dict[str, dict[str, list[Path]]] = {}
        for path in found.images:
            stem, code = _idrid_name(path)
            if code is not None:
                masks.setdefault(stem, {}).setdefault(code, []).append(path)
            elif stem:
                images.setdefault(stem, []).append(path)
        # a mask that is a link to nothing: its image was segmented, but its lesions are not known
        torn = {stem for stem, code in map(_idrid_name, found.dangling) if code in LESIONS}
        segmented = masks.keys() | torn
        for what, names in (("IDRiD_<number>.jpg", images), ("masks IDRiD_*_MA.tif", segmented)):
            if not names:
                where = ", ".join(map(str, folders))
                raise SourceError(f"{where}: expected {what}, found none")
        missing = torn | (segmented - images.keys())
        sizes = {path: _size_of(path) for paths in images.values() for path in paths}
        eyes, copied, smaller = {}, 0, 0
        for stem in sorted(images.keys() & masks.keys() - missing):
            largest = max(sizes[path] or (math.inf,) for path in images[stem])
            same = [path for path in images[stem] if (sizes[path] or (math.inf,)) == largest]
            image = one_file(stem, same)
            copied += len(same) > 1
            smaller += len(same) < len(images[stem])
            eyes[stem] = (image, _masks_of(stem, image, sizes[image], masks[stem]))
        warnings = copies_warning(copied)
        if smaller:
            warnings.append(f"{smaller} images are there in several sizes; the largest is taken")
        if without := sorted(images.keys() - segmented):
            warnings.append(
                f"{len(without)} images are left out, because they have no mask file "
                f"(first {without[0]})"
            )
        return cls(eyes, tuple(sorted(missing)), found.left_out, tuple(warnings))


def _idrid_name(path: Path) -> tuple[str, str | None]:
    """The image that a file belongs to, and of a mask the lesion; an empty name for other files."""
    codes = (*LESIONS, _OPTIC_DISC)
    match = re.fullmatch(rf"idrid_(\d+)(?:_({'|'.join(codes)}))?", path.stem, re.IGNORECASE)
    if match is None:
        return "", None
    stem = f"IDRiD_{match[1]}"
    if match[2]:
        return stem, match[2].upper()
    folder = re.sub(r"^\d+\W*", "", path.parent.name).lower()  # as "1. Microaneurysms"
    names = {code.lower(): code for code in codes} | {"optic disc": _OPTIC_DISC}
    names |= {lesion.lower(): code for code, lesion in LESIONS.items()}
    return stem, names.get(folder)


def _masks_of(
    stem: str, image: Path, size: tuple[int, int] | None, masks: dict[str, list[Path]]
) -> dict[str, Path]:
    """Lesion code -> mask, those of the image's size and those whose size cannot be read. Where the
    image's is not known, the first: decoding compares them again.
    """
    fitting = {}
    for code in LESIONS:
        files = masks.get(code, [])
        same = [path for path in files if _size_of(path) in (size, None)]
        if size is None:
            same = files[:1]
        if files and not same:
            raise SourceError(f"{files[0]}: expected a mask of {size} pixels, as {image}")
        if same:
            fitting[code] = one_file(f"{stem}_{code}", same)
    return fitting


def prepare_idrid(
    folders: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    limit: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> Preparation:
    """Segmented images, lesion masks and the official split (`Testing Set` in the path is the test
    split) into a store.

    Raises:
        SourceError: no images, or masks that do not fit; see `IdridFiles.find`.
    """
    files = IdridFiles.find(folders)
    eyes = dict(list(files.eyes.items())[:limit])
    sources = []
    for stem, (image, masks) in eyes.items():
        where = f"{image} {image.resolve()}".lower()  # of a link, what it leads to
        split = "test" if "testing set" in where else "train"
        line = {"name": stem, "patient": stem, "split": split}
        sources.append(ImageSource(_idrid_decoder(image, masks, size), (), line))
    inputs = [path for image, masks in eyes.values() for path in (image, *masks.values())]
    warnings = list(files.warnings)
    if not any(source.line["split"] == "test" for source in sources):
        warnings.append("no test images")
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
        missing=None if limit else files.missing,
        left_out=files.left_out,
        warnings=warnings,
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
        SourceError: no table, a level outside 0 ... 4, no images, or two different files of one
            name.
    """
    folders = list(folders)
    found = find_files(folders)
    table = found.table("trainLabels.csv")
    if table is None:
        raise SourceError(f"{', '.join(map(str, folders))}: expected trainLabels.csv, found none")
    levels = {}
    for number, row in read_csv(table, ("image", "level")):
        if row["level"] not in ("0", "1", "2", "3", "4"):
            raise SourceError(f"{table}, line {number}: expected level 0 ... 4, got {row['level']}")
        levels[row["image"]] = int(row["level"])
    images = by_stem(found.images)
    names = [name for name in sorted(levels) if name in images][:limit]
    path_of, warnings = one_file_each(names, images)
    sources = []
    for name in names:
        patient = name.split("_")[0]
        split = patient_hash_split(patient)
        line = {"name": name, "patient": patient, "split": split, "level": levels[name]}
        sources.append(
            ImageSource(_fundus_decoder(path_of[name], size), [int(levels[name] > 0)], line)
        )
    return prepare_store(
        sources,
        StoreSpec(
            source="Kaggle Diabetic Retinopathy Detection",
            licence=KAGGLE_LICENCE,
            classes=KAGGLE_CLASSES,
            size=size,
            channels=3,
            tables=[table],
            inputs=list(path_of.values()),
            settings={"limit": limit},
        ),
        out,
        missing=None if limit else sorted(set(levels) - set(images)),
        left_out=found.left_out,
        warnings=[
            *warnings,
            "no official split: by SHA-256 of the patient, one fifth for testing",
        ],
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
                if mask.shape != pixels.shape[:2]:
                    height, width = pixels.shape[:2]
                    raise ImageError(
                        f"{masks[code]}: expected a mask of {height} x {width} pixels, as {image}, "
                        f"got {mask.shape[0]} x {mask.shape[1]}"
                    )
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
    """(width, height) of the upright image from the header; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            lies = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.height, image.width) if lies else image.size
    except Exception:  # Pillow raises nearly every kind there is
        return None
