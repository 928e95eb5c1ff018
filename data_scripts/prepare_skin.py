"""Prepare patches of skin from dermoscopy images (HAM10000, ISIC) that you have downloaded.

python data_scripts/prepare_skin.py --from ~/ham10000 --out data/skin_128 --accept-licence
"""

import argparse
import sys
from collections.abc import Sequence

from cxrtut.console import run_program
from cxrtut.data import skin
from cxrtut.data.commandline import NotAccepted, require_acceptance, run_script, script_parser
from cxrtut.data.prepare import Preparation

TERMS = f"""{skin.LICENCE}.
The terms have to be accepted where the files are, so this script downloads nothing.
To get the files:
  1. Open https://doi.org/10.7910/DVN/DBW86T (HAM10000) and accept the terms,
     or choose images at https://www.isic-archive.com.
  2. Download HAM10000_images_part_1.zip, HAM10000_images_part_2.zip and HAM10000_metadata
     (3 GB), unzip into DIR.
  3. Run this script again with --from DIR --accept-licence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns its exit code."""
    return run_script(
        script_parser("prepare_skin", f"{__doc__}\n{TERMS}", size=128), arguments, prepare
    )


def prepare(options: argparse.Namespace) -> Preparation:
    """Convert the files, or say how to get them."""
    if options.folders is None:
        raise NotAccepted(f"expected --from DIR.\n{TERMS}")
    require_acceptance(options.accept_licence, TERMS)
    return skin.prepare(
        options.folders,
        options.out,
        size=options.size,
        limit=options.limit,
        threads=options.threads,
        overwrite=options.overwrite,
    )


if __name__ == "__main__":
    sys.exit(run_program(main))
