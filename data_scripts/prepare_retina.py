"""Prepare fundus photographs you have downloaded: IDRiD (lesion masks) or Kaggle's set (grades).

python data_scripts/prepare_retina.py --from ~/idrid --out data/idrid_256 --accept-licence
python data_scripts/prepare_retina.py --set kaggle --from ~/dr --out data/dr_256 --accept-licence
"""

import argparse
import sys
from collections.abc import Sequence

from cxrtut.console import run_program
from cxrtut.data import retina
from cxrtut.data.commandline import NotAccepted, require_acceptance, run_script, script_parser
from cxrtut.data.prepare import Preparation

TERMS = {
    "idrid": f"""{retina.IDRID_LICENCE}.
The download needs an account, so this script downloads nothing. To get the files:
  1. Log in at https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid
  2. Download "A. Segmentation.zip" and unzip it into DIR.
  3. Run this script again with --from DIR --accept-licence.""",
    "kaggle": f"""{retina.KAGGLE_LICENCE}.
The rules have to be accepted with an account, so this script downloads nothing. To get the files:
  1. Log in at https://www.kaggle.com/c/diabetic-retinopathy-detection and
     accept the rules under "Data".
  2. Download and join train.zip.001 ... and trainLabels.csv.zip (35 GB), unzip both into DIR.
  3. Run this script again with --set kaggle --from DIR --accept-licence.""",
}
PREPARE = {"idrid": retina.prepare_idrid, "kaggle": retina.prepare_kaggle}


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns its exit code."""
    description = "\n\n".join([__doc__ or "", *TERMS.values()])
    parser = script_parser("prepare_retina", description, size=256)
    parser.add_argument("--set", choices=sorted(PREPARE), default="idrid", dest="name")
    return run_script(parser, arguments, prepare)


def prepare(options: argparse.Namespace) -> Preparation:
    """Convert the files, or say how to get them."""
    terms = TERMS[options.name]
    if options.folders is None:
        raise NotAccepted(f"expected --from DIR.\n{terms}")
    require_acceptance(options.accept_licence, terms)
    return PREPARE[options.name](
        options.folders,
        options.out,
        size=options.size,
        limit=options.limit,
        threads=options.threads,
        overwrite=options.overwrite,
    )


if __name__ == "__main__":
    sys.exit(run_program(main))
