"""The command line: `python -m cxrtut COMMAND`, with `--help` for each command.

train     trains a paper's method; under torchrun, on several devices
reproduce trains every arm of a paper's comparisons and writes a run record
bench     how fast this machine is
realism   how a classifier trained on simulated radiographs does on real ones

What a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cxrtut import __version__


class CannotBeDone(Exception):
    """What was asked for cannot be done on this machine; says what was expected and what came."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    parser = command_line()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads do not burn a busy core
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    # A record says how it was made; where somebody keeps his files is his own affair.
    words = ["STORE" if _is_store(options, word) else _without_folder(word) for word in given]
    options.words = shlex.join(["python", "-m", "cxrtut", *words])
    command: Callable[[argparse.Namespace], None] | None = getattr(options, "run", None)
    if command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        command(options)
    except KeyboardInterrupt as stopped:
        told = str(stopped) or "interrupted; nothing was written"
        print(f"\ncxrtut {options.command}: {told}", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_expected(error):
            raise
        told = " ".join(str(error).split())
        print(f"cxrtut {options.command}: error: {told}", file=sys.stderr)
        return 1
    return 0


def _is_store(options: argparse.Namespace, word: str) -> bool:
    """Whether a word of the command line is the path of a store."""
    root = getattr(options, "data_root", None)
    return root is not None and Path(word) == root


def _without_folder(word: str) -> str:
    """The name alone of a file that is given by its whole path."""
    return Path(word).name if Path(word).is_absolute() else word


def command_line() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m cxrtut",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cxrtut {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    _add_training(commands)
    bench = commands.add_parser("bench", help="how fast images come on this machine")
    bench.add_argument("--quick", action="store_true", help="only see that everything runs")
    _add_device(bench)
    bench.add_argument("--json", type=Path, metavar="FILE", help="keep the table as a record")
    bench.set_defaults(run=run_bench)

    realism = commands.add_parser(
        "realism", help="how a classifier trained on simulated radiographs does on real ones"
    )
    realism.add_argument(
        "--real", type=Path, required=True, metavar="STORE", help="a ChestX-ray14 array store"
    )
    for name, default, words in (
        ("--size", 64, "pixels at which the classifier looks"),
        ("--images", 4096, "simulated images for each classifier"),
        ("--steps", 2500, "training steps"),
        ("--batch-size", 32, "images in a step"),
        ("--seeds", 3, "classifiers, each with its own simulated patients"),
    ):
        realism.add_argument(
            name, type=_positive, default=default, help=f"{words} (default: %(default)s)"
        )
    realism.add_argument(
        "--preset",
        type=_preset,
        default="default",
        help="of the simulated radiographs (default: %(default)s)",
    )
    _add_device(realism)
    realism.add_argument(
        "--out",
        type=Path,
        default=Path("book/results/realism.json"),
        metavar="FILE",
        help="the record to write (default: %(default)s)",
    )
    realism.set_defaults(run=run_realism)
    return parser


def _add_training(commands: argparse._SubParsersAction) -> None:
    """`train` and `reproduce`, which share what is trained and on what."""
    train = commands.add_parser("train", help="trains a paper's method")
    reproduce = commands.add_parser(
        "reproduce", help="trains every arm of a paper's comparisons and writes a run record"
    )
    for parser in (train, reproduce):
        parser.add_argument("paper", choices=("biomarker", "disease_masks"))
        parser.add_argument(
            "--preset", choices=("smoke", "colab", "paper"), default="smoke",
            help="smoke: two CPU cores; colab: a T4; paper: the paper's sizes (default: smoke)",
        )  # fmt: skip
        parser.add_argument(
            "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE",
            help="replaces a field of the paper's Config; may be given several times",
        )  # fmt: skip
        parser.add_argument(
            "--data", choices=("phantom", "nih", "pasted"), default="phantom",
            help="simulated, any prepared store, or pasted biomarkers (default: phantom)",
        )  # fmt: skip
        parser.add_argument("--data-root", type=Path, metavar="STORE", help="a prepared store")
        parser.add_argument(
            "--disease", default="Pneumonia",
            help="for biomarker: a class of the images, or, of a store, any (default: Pneumonia)",
        )  # fmt: skip
        parser.add_argument(
            "--phantom-preset", type=_preset, default="easy", help="(default: %(default)s)"
        )
        parser.add_argument(
            "--images", type=_positive,
            help="simulated images (default: 2048 for biomarker, 8192 for disease_masks)",
        )  # fmt: skip
        parser.add_argument(
            "--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto"
        )
        parser.add_argument(
            "--cuda-graphs", action="store_true", help="record phases as CUDA graphs (one GPU)"
        )
        _add_device(parser)
    train.add_argument(
        "--arm", help="of the paper's comparisons; an unknown one is answered with their names "
        "(default: the paper's own method)",
    )  # fmt: skip
    train.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    train.set_defaults(run=run_train)
    reproduce.add_argument(
        "--arm", dest="arms", action="append", default=[],
        help="only this arm (and what it needs); may be given several times (default: all)",
    )  # fmt: skip
    reproduce.add_argument("--seeds", type=_positive, default=3, help="(default: %(default)s)")
    reproduce.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the record to write"
    )
    reproduce.add_argument(
        "--weights", type=Path, metavar="DIR", help="keeps the networks of the first seed"
    )
    reproduce.set_defaults(run=run_reproduce)


def run_train(options: argparse.Namespace) -> None:
    """`python -m cxrtut train`: trains into a folder and prints the scores."""
    from cxrtut.experiments.training import train_paper

    record = train_paper(
        options.paper, preset=options.preset, settings=options.settings, source=_source(options),
        arm=options.arm, out=options.out, resume=options.resume, seed=options.seed,
        device=_device(options.device), precision=options.precision,
        cuda_graphs=options.cuda_graphs, command=options.words,
    )  # fmt: skip
    for protocol, scores in record.get("results", {}).items():
        told = [f"{k} {v:.3g}" for k, v in scores.items() if isinstance(v, float)]
        print(f"{protocol}: {', '.join(told)}")
    if record:
        print(f"written: {options.out}")


def run_reproduce(options: argparse.Namespace) -> None:
    """`python -m cxrtut reproduce`: runs everything, writes the record and prints its table."""
    from cxrtut.engine.records import write_json
    from cxrtut.experiments.training import PAPERS, reproduce
    from cxrtut.viz.tables import Table

    _check_writable("--out", options.out)
    record = reproduce(
        options.paper, preset=options.preset, settings=options.settings, source=_source(options),
        seeds=options.seeds, device=_device(options.device), arms=options.arms,
        precision=options.precision,
        cuda_graphs=options.cuda_graphs, weights=options.weights, command=options.words,
    )  # fmt: skip
    write_json(options.out, record)
    print(Table(PAPERS[options.paper].comparison_table(record), digits=3))
    print(f"written: {options.out}")


def _source(options: argparse.Namespace) -> Any:
    from cxrtut.experiments.sources import Source
    from cxrtut.experiments.training import PAPERS

    return Source(
        data=options.data, root=options.data_root, disease=options.disease,
        phantom_preset=options.phantom_preset,
        images=options.images or PAPERS[options.paper].IMAGES,
    )  # fmt: skip


def run_bench(options: argparse.Namespace) -> None:
    """`python -m cxrtut bench`: prints the table, and keeps it if asked to."""
    from cxrtut.bench import FULL, QUICK, bench, table
    from cxrtut.engine.records import write_json

    device = _device(options.device)
    if options.json is not None:
        _check_writable("--json", options.json)
    record = bench(QUICK if options.quick else FULL, device=device, progress=_tell)
    print(table(record))
    if options.json is not None:
        write_json(options.json, record)


def run_realism(options: argparse.Namespace) -> None:
    """`python -m cxrtut realism`: measures, writes the record and prints its table."""
    from cxrtut.engine.records import write_json
    from cxrtut.foundations import radiograph
    from cxrtut.viz.tables import Table

    device = _device(options.device)
    _check_writable("--out", options.out)  # not after an hour in vain
    record = radiograph.measure(
        str(options.real),
        size=options.size,
        n=options.images,
        steps=options.steps,
        batch_size=options.batch_size,
        seeds=options.seeds,
        preset=options.preset,
        device=device,
        progress=_tell,
    )
    write_json(options.out, record)
    print(Table(radiograph.transfer_table(record), digits=3))
    print(f"written: {options.out}")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=_device_name,
        default="auto",
        help="auto, cpu, cuda or cuda:N (default: %(default)s)",
    )


def _device(wanted: str) -> str:
    """`auto` is CUDA where there is a GPU.

    Raises:
        CannotBeDone: this machine has no such GPU.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if available else "cpu"
    if wanted != "cpu" and not available:
        raise CannotBeDone(f"--device: got {wanted}, but there is no GPU here")
    number = int(wanted.partition(":")[2] or 0)
    if wanted != "cpu" and number >= torch.cuda.device_count():
        raise CannotBeDone(
            f"--device: got {wanted}, but there are {torch.cuda.device_count()} GPUs here"
        )
    return wanted


def _check_writable(option: str, path: Path) -> None:
    """Makes the folder of a file that is to be written later, and tries to write there.

    Raises:
        CannotBeDone: the file is a folder, or its folder cannot be made or written in.
    """
    if path.is_dir():
        raise CannotBeDone(f"{option}: expected a file, got the folder {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CannotBeDone(f"{option}: cannot write in {path.parent}: {error.strerror}") from error


def _is_expected(error: Exception) -> bool:
    """Whether an error speaks of what the user gave, rather than of a mistake in the program."""
    from cxrtut.data.manifest import StoreError
    from cxrtut.engine.checkpoint import CheckpointError
    from cxrtut.engine.phase_step import NonFiniteLoss
    from cxrtut.experiments.configuration import ConfigurationError

    told = (CannotBeDone, StoreError, CheckpointError, ConfigurationError, NonFiniteLoss)
    places = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    network = (ConnectionError,)
    return isinstance(error, (*told, *places, *network))


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return value


def _device_name(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:N, got {text!r}")
    return text


def _preset(text: str) -> str:
    from cxrtut.data.phantom import PRESETS

    if text not in PRESETS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PRESETS)}, got {text!r}")
    return text


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *where, **line: f"warning: {message}\n"
    sys.exit(main())
