"""The command line: `python -m cxrtut COMMAND`, with `--help` for each command.

train     trains a paper's method; under torchrun, on several devices
reproduce trains every arm of a paper's comparisons and writes a run record
predict   what a trained system says of a film: overlay, heat map, boxes
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
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxrtut import __version__
from cxrtut.console import run_program
from cxrtut.usage import (
    CannotBeDone,
    check_device,
    check_folder,
    check_realism,
    check_settings,
    check_simulation,
    check_writable,
    device_of,
    is_expected,
    pairs,
)


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
    began = time.time()
    try:
        command(options)
    except KeyboardInterrupt as stopped:
        told = _told_of(stopped, options, began)
        print(f"\ncxrtut {options.command}: {told}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on: see `console`
        raise
    except Exception as error:
        if not is_expected(error):
            raise
        told = " ".join(str(error).split())
        print(f"cxrtut {options.command}: error: {told}", file=sys.stderr)
        return 1
    return 0


def _told_of(stopped: KeyboardInterrupt, options: argparse.Namespace, began: float) -> str:
    """What to say of an interruption: where it was, and what the command has left on the disk."""
    told = [str(stopped) or "interrupted"]
    if options.command == "train":
        if not str(stopped):  # else it says itself how to go on
            kept = any((options.out / "checkpoints").glob("*/checkpoint-*.pt"))
            go_on = f"--resume goes on from the checkpoints in {options.out}"
            told.append(go_on if kept else "there is no checkpoint to go on from")
    elif options.command == "predict":
        done = _written_since(began, options.out, "*.json")
        told.append(f"answers for {done} of {len(options.films)} films are in {options.out}")
    elif options.command == "reproduce" and options.weights is not None:
        done = _written_since(began, options.weights, "*.safetensors")
        told.append(f"no record was written, but the weights of {done} arms in {options.weights}")
    else:
        told.append("no record was written")
    return "; ".join(told)


def _written_since(began: float, folder: Path, pattern: str) -> int:
    """How many files are younger than the command."""
    return sum(path.stat().st_mtime >= began for path in folder.glob(pattern))


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
    predict = commands.add_parser("predict", help="what a trained system says of films")
    predict.add_argument(
        "system", help='"paper/arm", a folder of train, or a file of weights; an unknown one is '
        "answered with the names there are",
    )  # fmt: skip
    predict.add_argument("films", nargs="+", type=Path, metavar="FILM", help="image files")
    predict.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _add_device(predict)
    predict.set_defaults(run=run_predict)
    bench = commands.add_parser("bench", help="how fast images come on this machine")
    bench.add_argument("--quick", action="store_true", help="only see that everything runs")
    bench.add_argument(
        "--published", action="store_true",
        help="time the networks of publications at their own size on a CPU, too (half an hour)",
    )  # fmt: skip
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
        default=Path("cxrtut/records/runs/realism.json"),
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
        parser.add_argument("paper", help="an unknown one is answered with the names there are")
        parser.add_argument(
            "--preset", default="smoke",
            help="smoke: two CPU cores, minutes; cpu (some papers): two cores, hours; colab: a T4; "
            "paper: the paper's sizes (default: smoke)",
        )  # fmt: skip
        parser.add_argument(
            "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE",
            help="replaces a field of the paper's Config; may be given several times",
        )  # fmt: skip
        parser.add_argument(
            "--data", choices=("phantom", "store", "pasted"), default="phantom",
            help="simulated, any prepared store, or pasted biomarkers (default: phantom)",
        )  # fmt: skip
        parser.add_argument("--data-root", type=Path, metavar="STORE", help="a prepared store")
        parser.add_argument(
            "--disease", default="Pneumonia",
            help="where one is looked for: a class of the images, or, of a store, any "
            "(default: Pneumonia)",
        )  # fmt: skip
        parser.add_argument(
            "--where", action="append", default=[], metavar="COLUMN=TEXT",
            help="only images of a store with this text in this column of its table; may be given "
            "several times",
        )  # fmt: skip
        parser.add_argument(
            "--phantom-preset", type=_preset, default="easy", help="(default: %(default)s)"
        )
        parser.add_argument(
            "--images", type=_positive, default=0,
            help="simulated images (default: as many as the comparison asks for)",
        )  # fmt: skip
        parser.add_argument(
            "--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto"
        )
        parser.add_argument(
            "--cuda-graphs", action="store_true", help="record phases as CUDA graphs (one GPU)"
        )
        parser.add_argument(
            "--begin-from", action="append", default=[], metavar="NETWORK=FILE",
            help="initial weights of a network; may be given several times",
        )  # fmt: skip
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
        "--weights", type=Path, metavar="DIR", help="keeps the systems of the first seed"
    )
    reproduce.add_argument(
        "--resume", action="store_true", help="go on after the seeds that --out has already"
    )
    reproduce.set_defaults(run=run_reproduce)
    merge = commands.add_parser("merge", help="records of some arms each become one record")
    merge.add_argument("records", type=Path, nargs="+", metavar="FILE", help="of `reproduce`")
    merge.add_argument("--out", type=Path, required=True, metavar="FILE", help="record to write")
    merge.set_defaults(run=run_merge)


def run_train(options: argparse.Namespace) -> None:
    """`python -m cxrtut train`: trains into a folder and prints the scores."""
    from cxrtut.experiments.comparison import train
    from cxrtut.experiments.registered import comparison

    chosen = comparison(options.paper)
    how = _how(options, chosen)
    check_folder("--out", options.out)
    record = train(
        chosen, how, arm=options.arm or chosen.own, seed=options.seed,
        folder=options.out, resume=options.resume,
    )  # fmt: skip
    if record is None:  # another process tells
        return
    ((run,),) = record.results.values()
    for side in ("train", "validation", "test"):
        told = [f"{k} {v:.3g}" for k, v in run.side(side).items() if v is not None and "/" not in k]
        if told:
            print(f"{side}: {', '.join(told)}")
    print(f"written: {options.out}")


def run_reproduce(options: argparse.Namespace) -> None:
    """`python -m cxrtut reproduce`: runs everything, writes the record and prints its table."""
    from cxrtut.experiments.comparison import reproduce
    from cxrtut.experiments.registered import comparison
    from cxrtut.records.merged import record_to_go_on_with
    from cxrtut.records.run_record import write_record
    from cxrtut.records.tables import IMAGES_OF, measures_table, over_seeds
    from cxrtut.viz.tables import Table

    chosen = comparison(options.paper)
    how = _how(options, chosen)
    check_writable("--out", options.out)
    begun = record_to_go_on_with(options.out) if options.resume else None
    if options.weights is not None:
        check_folder("--weights", options.weights)
    record = reproduce(
        chosen, how, seeds=options.seeds, arms=options.arms, weights_folder=options.weights,
        begun=begun,
        keep=lambda so_far: write_record(options.out, so_far),
    )  # fmt: skip
    for side in ("train", "test"):
        if rows := measures_table(record, side):
            images = f"{side}: {IMAGES_OF[side]}"
            print(Table(rows, caption=f"{images}; {over_seeds(record)}.", digits=3))
    print(f"written: {options.out}")


def run_merge(options: argparse.Namespace) -> None:
    """`python -m cxrtut merge`: one record of several that differ in their arms."""
    from cxrtut.records.merged import merged
    from cxrtut.records.run_record import read_record_file, write_record

    check_writable("--out", options.out)
    record = merged([read_record_file(path) for path in options.records])
    write_record(options.out, record)
    print(f"{', '.join(record.results)}\nwritten: {options.out}")


def run_predict(options: argparse.Namespace) -> None:
    """`python -m cxrtut predict`: answers for films, as files."""
    from cxrtut.experiments.answers import write_answer
    from cxrtut.experiments.pretrained import NOT_A_DEVICE, load

    device = device_of(options.device)
    check_folder("--out", options.out)
    system = load(options.system, device=device)
    stems = [film.stem for film in options.films]
    for film, stem in zip(options.films, stems, strict=True):
        if stems.count(stem) > 1:
            raise CannotBeDone(
                f"{film}: another film is called {stem!r} too; ask for one at a time"
            )
        about = write_answer(film, system.predict(film), system.classes, options.out / stem)
        print(about)
    print(NOT_A_DEVICE)
    print(f"written: {options.out}")


def _how(options: argparse.Namespace, chosen: Any) -> Any:
    """How a comparison shall run, after a look at everything that can be wrong with it.

    Raises:
        CannotBeDone: what no run could have.
        ConfigurationError, StoreError: see `experiments`.
    """
    from cxrtut.experiments.comparison import How
    from cxrtut.experiments.source import Source

    source = Source(
        data=options.data, root=options.data_root, disease=options.disease,
        where=pairs("--where", options.where), phantom_preset=options.phantom_preset,
        images=options.images,
    )  # fmt: skip
    files = {k: Path(v) for k, v in pairs("--begin-from", options.begin_from).items()}
    device = device_of(options.device)
    config = chosen.configuration(options.preset, options.settings)
    check_settings(config)
    check_device(options, device)
    check_simulation(source, config.size)
    return How(
        preset=options.preset, settings=options.settings, source=source,
        device=device, precision=options.precision,
        cuda_graphs=options.cuda_graphs, begin_from=files, command=options.words,
    )  # fmt: skip


def run_bench(options: argparse.Namespace) -> None:
    """`python -m cxrtut bench`: prints the table, and keeps it if asked to."""
    from cxrtut.bench import FULL, QUICK, bench, table
    from cxrtut.records.run_record import write_json

    device = device_of(options.device)
    if options.json is not None:
        check_writable("--json", options.json)
    budget = QUICK if options.quick else FULL
    if options.published:
        budget = replace(budget, published=99)
    record = bench(budget, device=device, progress=_tell)
    print(table(record))
    if options.json is not None:
        write_json(options.json, record)


def run_realism(options: argparse.Namespace) -> None:
    """`python -m cxrtut realism`: measures, writes the record and prints its table."""
    from cxrtut.engine.progress import progress
    from cxrtut.foundations import radiograph
    from cxrtut.records.run_record import write_record
    from cxrtut.viz.tables import Table

    device = device_of(options.device)
    check_realism(options)
    check_writable("--out", options.out)  # not after an hour in vain
    record = radiograph.measure_realism(
        str(options.real),
        size=options.size,
        n=options.images,
        steps=options.steps,
        batch_size=options.batch_size,
        seeds=options.seeds,
        preset=options.preset,
        device=device,
        command=options.words,
        watch=progress,
    )
    write_record(options.out, record)
    print(Table(radiograph.transfer_table(record), caption=radiograph.TRANSFER, digits=3))
    print(f"written: {options.out}")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=_device_name,
        default="auto",
        help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)",
    )


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return value


def _device_name(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda, cuda:N or mps, got {text!r}")
    return text


def _preset(text: str) -> str:
    from cxrtut.data.phantom import PRESETS

    if text not in PRESETS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PRESETS)}, got {text!r}")
    return text


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *where, **line: f"warning: {message}\n"
    sys.exit(run_program(main))
