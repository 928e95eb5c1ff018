"""What the preparation scripts share on the command line: arguments, acceptance of the licence,
words for errors.

Exit codes: 0 done (or done before), 1 an error, 2 wrong usage or a licence that was not accepted, 3
prepared but some files could not be read or used, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cxrtut.data.decode import ImageError
from cxrtut.data.download import DownloadError
from cxrtut.data.prepare import Preparation
from cxrtut.data.source_tables import SourceError
from cxrtut.data.store import StoreError


class NotAccepted(Exception):
    """The terms were not accepted, or the files have to be fetched by hand; says what to do."""


def script_parser(name: str, description: str, *, size: int) -> argparse.ArgumentParser:
    """A parser with the arguments of every preparation script.

    Args:
        name: name of the script.
        description: what it prepares, and from where.
        size: default height and width of the store.
    """
    parser = argparse.ArgumentParser(
        prog=name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from",
        dest="folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folders that hold the files already",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the store to make")
    parser.add_argument(
        "--size", type=_positive, default=size, help="pixels (default: %(default)s)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N images")
    parser.add_argument("--threads", type=_positive, metavar="N", help="default: one per core")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a store of the same source that was made from other files or settings",
    )
    parser.add_argument(
        "--accept-licence", action="store_true", help="you have read the terms and accept them"
    )
    return parser


def require_acceptance(accepted: bool, terms: str) -> None:
    """Go on if the terms were accepted with `--accept-licence`, or now by typing yes on a terminal.

    Raises:
        NotAccepted: otherwise.
    """
    if accepted:
        return
    print(terms, file=sys.stderr)
    try:
        if sys.stdin.isatty() and input("Do you accept these terms? (yes/no) ").strip() == "yes":
            return
    except EOFError:  # Ctrl-D: no
        print(file=sys.stderr)
    raise NotAccepted("the terms were not accepted; read them and pass --accept-licence")


def run_script(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    prepare: Callable[[argparse.Namespace], Preparation],
) -> int:
    """Parse, prepare, print the report; returns the exit code. What the user can mend is one line,
    no traceback.
    """
    options = parser.parse_args(arguments)
    try:
        report = prepare(options)
    except NotAccepted as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # nobody reads on: see `console`
        raise
    except (SourceError, StoreError, ImageError, DownloadError, OSError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted; no half-made store was left", file=sys.stderr)
        return 130
    # a console that is not UTF-8, or a path that is not, must not end an hour's work in a traceback
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(str(report).encode(encoding, "backslashreplace").decode(encoding))
    return 0 if report.whole else 3


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return value
