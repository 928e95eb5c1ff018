"""Prepare the RSNA Pneumonia Detection Challenge 2018 from files that you have downloaded.

python data_scripts/prepare_rsna.py --from ~/rsna --out data/rsna_256 --accept-licence
"""

import argparse
import sys
from collections.abc import Sequence

from cxrtut.console import run_program
from cxrtut.data import rsna
from cxrtut.data.commandline import NotAccepted, require_acceptance, run_script, script_parser
from cxrtut.data.prepare import Preparation

TERMS = f"""{rsna.LICENCE}.
The rules have to be accepted with an account, so this script downloads nothing. To get the files:
  1. Log in at https://www.kaggle.com/c/rsna-pneumonia-detection-challenge and
     accept the rules under "Data".
  2. Download with the site's button, or:
     kaggle competitions download -c rsna-pneumonia-detection-challenge
  3. Unzip; stage_2_train_images/*.dcm, stage_2_train_labels.csv and
     stage_2_detailed_class_info.csv are needed (4 GB).
  4. Run this script again with --from DIR --accept-licence. Reading DICOM needs:
     pip install 'cxrtut[dicom]'
With a table rsna_nih_match.csv (patientId, nih_image_index) in DIR the split is made by person, and
images of ChestX-ray14 under their own names are taken, too (--from may name several folders)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns its exit code."""
    return run_script(
        script_parser("prepare_rsna", f"{__doc__}\n{TERMS}", size=256), arguments, prepare
    )


def prepare(options: argparse.Namespace) -> Preparation:
    """Convert the files, or say how to get them."""
    if options.folders is None:
        raise NotAccepted(f"expected --from DIR.\n{TERMS}")
    require_acceptance(options.accept_licence, TERMS)
    files = rsna.RsnaFiles.find(options.folders)
    return rsna.prepare(
        files,
        options.out,
        size=options.size,
        limit=options.limit,
        threads=options.threads,
        overwrite=options.overwrite,
    )


if __name__ == "__main__":
    sys.exit(run_program(main))
