"""Prepare ChestX-ray14 (NIH): from files at hand (--from), or by downloading the public release.

    python data_scripts/prepare_nih.py --from ~/nih --out data/nih_256
    python data_scripts/prepare_nih.py --tables ~/nih_tables --archives 1 2 --out data/nih_256

The links below are the official ones: those of `batch_download_zips.py` in the NIH Clinical
Center's own folder, https://nihcc.app.box.com/v/ChestXray-NIHCC. No checksums are published; every
archive is a gzip file, whose own checksum is verified when it is unpacked. The tables
(Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt, test_list.txt) have no direct
links: save them from that folder and name the place with --tables.
"""

import argparse
import gzip
import shutil
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from cxrtut.console import run_program
from cxrtut.data import nih
from cxrtut.data.commandline import require_acceptance, run_script, script_parser
from cxrtut.data.download import DownloadError, check_free_space, download
from cxrtut.data.prepare import Preparation
from cxrtut.data.source_tables import SourceError

BOX = "https://nihcc.box.com/shared/static/"
ARCHIVES = {
    1: BOX + "vfk49d74nhbxq3nqjg0900w5nvkorp5c.gz",
    2: BOX + "i28rlmbvmfjbl8p2n3ril0pptcmcu9d1.gz",
    3: BOX + "f1t00wrtdk94satdfb9olcolqx20z2jp.gz",
    4: BOX + "0aowwzs5lhjrceb3qp67ahp0rd1l1etg.gz",
    5: BOX + "v5e3goj22zr6h8tzualxfsqlqaygfbsn.gz",
    6: BOX + "asi7ikud9jwnkrnkj99jnpfkjdes7l6l.gz",
    7: BOX + "jn1b4mw4n6lnh74ovmcjb8y48h8xj07n.gz",
    8: BOX + "tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j.gz",
    9: BOX + "upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj.gz",
    10: BOX + "l6nilvfa9cg3s28tqv1qc1olm3gnz54p.gz",
    11: BOX + "hhq8fkdgvcari67vfhs7ppg2w6ni4jze.gz",
    12: BOX + "ioqwiy20ihqwyr8pf4c24eazhh281pbu.gz",
}
ARCHIVE_BYTES = 4_000_000_000  # the largest, packed or unpacked: PNG does not shrink further
GZIP = b"\x1f\x8b"
TERMS = f"""ChestX-ray14: {nih.LICENCE}.
The download is about 42 GB for all twelve archives (3.5 GB each)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns its exit code."""
    parser = script_parser("prepare_nih", __doc__ or "", size=256)
    parser.add_argument(
        "--tables", type=Path, metavar="DIR", help="where the tables are, for a download"
    )
    parser.add_argument(
        "--archives",
        type=int,
        nargs="+",
        choices=sorted(ARCHIVES),
        default=sorted(ARCHIVES),
        metavar="N",
        help="which of the twelve archives to download (default: all)",
    )
    parser.add_argument(
        "--downloads", type=Path, metavar="DIR", help="where to download (default: OUT.downloads)"
    )
    parser.add_argument(
        "--rsna-boxes",
        action="store_true",
        help="add the boxes of the RSNA challenge (stage_2_train_labels.csv, rsna_nih_match.csv) "
        "as Pneumonia boxes, although some lie on images without that label",
    )
    return run_script(parser, arguments, prepare)


def prepare(options: argparse.Namespace) -> Preparation:
    """Find or download the files, and convert them."""
    require_acceptance(options.accept_licence, TERMS)
    folders = options.folders
    if folders is None:
        downloads = options.downloads or options.out.with_name(options.out.name + ".downloads")
        folders = download_release(options.tables, downloads, options.archives)
    elif options.tables is not None:
        folders = [*folders, options.tables]
    files = nih.NihFiles.find(folders)
    return nih.prepare(
        files,
        options.out,
        size=options.size,
        limit=options.limit,
        threads=options.threads,
        rsna_boxes=options.rsna_boxes,
        overwrite=options.overwrite,
    )


def download_release(tables: Path | None, downloads: Path, wanted: Sequence[int]) -> list[Path]:
    """Download and unpack the wanted archives; what is unpacked already is kept. Returns the
    folders to search.

    Raises:
        SourceError: no tables.
        DownloadError: no room, no connection, or a damaged archive.
    """
    if tables is None:
        raise SourceError(
            "expected --from DIR, or --tables DIR with the tables saved from "
            "https://nihcc.app.box.com/v/ChestXray-NIHCC"
        )
    nih.NihFiles.find([tables])  # before 42 GB are downloaded in vain
    folders = {number: downloads / f"images_{number:03d}" for number in wanted}
    absent = [number for number in wanted if not folders[number].is_dir()]
    check_free_space(downloads, (len(absent) + bool(absent)) * ARCHIVE_BYTES)
    for number in absent:
        name = downloads / f"images_{number:03d}.tar.gz"
        archive = download(ARCHIVES[number], name, begins_with=GZIP)
        unpack(archive, folders[number])
        archive.unlink()
    return [tables, *folders.values()]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz into `folder`, which appears only when all of it is there.

    Raises:
        DownloadError: the archive is damaged; it is removed, so that the next run downloads it
            again.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as packed:
                packed.extractall(partial, filter="data")
            # tarfile stops before gzip's checksum; reading on verifies it
            while stream.read(1 << 20):
                pass
        partial.rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the archive
            raise
        archive.unlink()
        raise DownloadError(f"{archive}: damaged ({error}); run again to fetch it anew") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run_program(main))
