"""Dermoscopy (ISIC, HAM10000): patches of skin, the background of the artificial biomarkers, into
an array store.

Files: `HAM10000_metadata` (lesion_id, image_id, dx, ...; official without an ending, also .csv or
.tab, separated by commas or tabs) with `ISIC_*.jpg` in any folder below. A `labels.csv` does as
well, if it has the columns lesion_id, image_id and dx. The first of these names is read, of several
tables of one name that in the first folder, and the report names it. Just the images do too, but
then nobody knows which are of one lesion, and what it is. Files in a folder of masks, and
those that end in `_segmentation`, are no images.

Zhang et al. (MICCAI 2019) take 128-pixel patches; one patch of each image is kept, as far from its
centre (where the lesion is) as possible, and without the dark vignette of the instrument. It shows
skin, not the lesion: no patch has a label, and the diagnosis of its image is a column of the table,
`dx`. So every patch is a normal image, into which biomarkers are pasted later:
`data/pasted.py`.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cxrtut.data.decode import ImageError, channels_first, decode_image
from cxrtut.data.prepare import DecodedImage, ImageSource, Preparation, StoreSpec, prepare_store
from cxrtut.data.source_files import by_stem, composed, find_files, one_file_each
from cxrtut.data.source_tables import SourceError, read_csv
from cxrtut.data.splits import patient_hash_split

DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
LICENCE = (
    "HAM10000 / ISIC archive, Tschandl et al. 2018, CC BY-NC-SA 4.0 "
    "(images of other ISIC sets: see each image)"
)
_TABLES = ("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab", "labels.csv")
_DARK_LEVEL = 20
_DARK_SHARE = 0.01


def outer_patch(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The `size` x `size` patch farthest from the image's centre in which at most 1 % of the pixels
    are dark.

    Patches lie on an even grid that covers the image from edge to edge; dark is below level 20 in
    all channels, which is the instrument's vignette or padding.

    Raises:
        ImageError: the image is smaller than a patch, or every patch is partly dark.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise ImageError(f"expected at least {size} x {size} pixels, got {height} x {width}")
    tops, lefts = (
        np.linspace(0, extent - size, extent // size).round().astype(int)
        for extent in (height, width)
    )
    corners = [(int(top), int(left)) for top in tops for left in lefts]
    centre_top, centre_left = (height - size) / 2, (width - size) / 2
    corners.sort(key=lambda c: -((c[0] - centre_top) ** 2 + (c[1] - centre_left) ** 2))
    for top, left in corners:
        patch = image[top : top + size, left : left + size]
        if (patch.max(axis=2) < _DARK_LEVEL).mean() <= _DARK_SHARE:
            return patch
    raise ImageError(f"expected a patch of {size} x {size} without dark padding, found none")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, tuple[str, str]]:
    """image_id -> (lesion_id, dx); either may be empty.

    Raises:
        SourceError: a column is missing, or a diagnosis is not one of `DIAGNOSES`.
    """
    metadata = {}
    for line, row in read_csv(path, ("image_id", "lesion_id", "dx")):
        if row["dx"] and row["dx"] not in DIAGNOSES:
            raise SourceError(f"{path}, line {line}: expected dx of {DIAGNOSES}, got {row['dx']}")
        metadata[composed(row["image_id"])] = (row["lesion_id"], row["dx"])
    return metadata


def prepare(
    folders: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    size: int = 128,
    limit: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> Preparation:
    """One patch of `size` of every image into the store `out`; patient is the lesion where it is
    known.

    Raises:
        SourceError: no images, two different files of one name, or a table that cannot be read.
    """
    found = find_files(folders)
    table = found.table(*_TABLES)
    metadata = {} if table is None else read_metadata(table)
    images = by_stem(path for path in found.images if not _is_mask(path))
    names = sorted(images)[:limit]
    path_of, warnings = one_file_each(names, images)
    absent = set(metadata) | set(by_stem(path for path in found.dangling if not _is_mask(path)))
    sources = []
    for name in names:
        lesion, dx = metadata.get(name, ("", ""))
        patient = lesion or name
        line = {"name": name, "patient": patient, "split": patient_hash_split(patient), "dx": dx}
        sources.append(ImageSource(_decoder(path_of[name], size), [0] * len(DIAGNOSES), line))
    return prepare_store(
        sources,
        StoreSpec(
            source="HAM10000 / ISIC",
            licence=LICENCE,
            classes=DIAGNOSES,
            size=size,
            channels=3,
            tables=[] if table is None else [table],
            inputs=list(path_of.values()),
            settings={"limit": limit, "labels": "none: patches are of the background"},
        ),
        out,
        missing=None if limit else sorted(absent - set(images)),
        left_out=found.left_out,
        warnings=warnings + _warnings(table, sum(name not in metadata for name in names)),
        threads=threads,
        overwrite=overwrite,
    )


def _is_mask(path: Path) -> bool:
    folders = (path.parent.name, path.parent.resolve().name)  # of a link, what it leads to
    return path.stem.endswith("_segmentation") or any("mask" in name.lower() for name in folders)


def _warnings(table: Path | None, unknown: int) -> list[str]:
    """How the split was made, and what is not known.

    Args:
        table: the table of the lesions, if there is one.
        unknown: number of images that are not in it.
    """
    if table is None:
        return [
            "no official split: by SHA-256 of the image name, one fifth for testing",
            "no metadata: one lesion may be on both sides, no diagnoses",
        ]
    warnings = ["no official split: by SHA-256 of the lesion, one fifth for testing"]
    if unknown:
        warnings.append(
            f"{unknown} images are not in {table.name}: each counts as a lesion, no diagnosis"
        )
    return warnings


def _decoder(path: Path, size: int) -> Callable[[], DecodedImage]:
    def decode() -> DecodedImage:
        try:
            return DecodedImage(channels_first(outer_patch(decode_image(path, channels=3), size)))
        except ImageError as error:
            named = str(error).startswith(str(path))
            raise error if named else ImageError(f"{path}: {error}") from error

    return decode
