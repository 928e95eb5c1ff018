"""A paper's tables: which arms are compared, on which images, by which measures. The seed loop, the
record and the weights are written here and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch

from cxrtut.data.sample import System
from cxrtut.data.split import Split
from cxrtut.data.store import StoreError
from cxrtut.engine.distributed import init_distributed
from cxrtut.engine.initial_weights import WeightsError
from cxrtut.engine.precision import Precision
from cxrtut.engine.progress import progress
from cxrtut.evaluation.measure import JudgedMeasure, Measure, Numbers
from cxrtut.experiments.run import Callback, Run
from cxrtut.experiments.source import Source
from cxrtut.files import plain_name, sha256_of_file
from cxrtut.records.merged import differences
from cxrtut.records.run_record import (
    ArmRun,
    Json,
    RunRecord,
    Weights,
    hardware,
    library_files,
    revision,
    versions,
    write_record,
)
from cxrtut.records.weights import Description, save_system

C = TypeVar("C")
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


class ConfigurationError(ValueError):
    """A setting that a paper's configuration does not have, or a value it cannot take."""


@dataclass(frozen=True)
class Arm(Generic[C]):
    """One row of a table.

    Attributes:
        build: configuration, classes and seed to the system as it is before training: what a file
            of weights is put into.
        train: configuration, split and run to the trained system.
        needs_boxes: whether it learns from boxes of training images.
    """

    build: Callable[[C, tuple[str, ...], int], System]
    train: Callable[[C, Split, Run], System]
    needs_boxes: bool = False


@dataclass(frozen=True)
class Timed(Generic[C]):
    """Training steps that the bench times, at the sizes of publications.

    Attributes:
        arms: whose steps.
        configurations: by name, such as "128 px, batch 4".
        published_steps: of a whole training as it was published.
    """

    arms: tuple[str, ...]
    configurations: Mapping[str, C]
    published_steps: int


@dataclass(frozen=True)
class Comparison(Generic[C]):
    """What a paper compares.

    Attributes:
        paper: its name, that of its module.
        presets: its configurations by name.
        own: the arm that is the paper's method.
        split: source, configuration and seed to the images.
        arms: by name.
        measures: what is measured of each.
        faithful: presets whose networks are the paper's: only they can settle a claim.
        sources: where the paper's kind of images are from.
        check: what a split must have; raises StoreError before anything is trained.
        judge: trains the system that `judged` needs, on the images of the arms; asked for after
            them, it shares with them what the run keeps (`Run.once`).
        judged: what is measured of each arm with the help of the judge.
        learning_curve: measured while an arm is trained, if the arm asks for it (`Run.fit`); of
            training images, since nobody may look at those of the test meanwhile.
        timed: what the bench times besides the paper's own arm.
    """

    paper: str
    presets: Mapping[str, C]
    own: str
    split: Callable[[Source, C, int], Split]
    arms: Mapping[str, Arm[C]]
    measures: tuple[Measure, ...]
    faithful: frozenset[str]
    sources: frozenset[str]
    check: Callable[[Split], None] = field(default=lambda split: None)
    judge: Callable[[C, Split, Run], System] | None = None
    judged: tuple[JudgedMeasure, ...] = ()
    learning_curve: Measure | None = None
    timed: Timed[C] | None = None

    def configuration(self, preset: str, settings: Iterable[str] = ()) -> C:
        """A preset with some fields replaced; see `override`.

        Raises:
            ConfigurationError: no such preset or field, or a value of another type.
        """
        if preset not in self.presets:
            raise ConfigurationError(
                f"preset: expected one of {', '.join(self.presets)}, got {preset!r}"
            )
        return override(self.presets[preset], settings)

    def arm(self, name: str) -> Arm[C]:
        """An arm by its name.

        Raises:
            ConfigurationError: there is none; those that are there are named.
        """
        if name not in self.arms:
            raise ConfigurationError(
                f"arm: expected one of {', '.join(map(repr, self.arms))}, got {name!r}"
            )
        return self.arms[name]

    def images(self, source: Source, config: C, seed: int) -> Split:
        """The images of a seed, checked.

        Raises:
            StoreError: they lack something, or have other channels than the configuration.
        """
        split = self.split(source, config, seed)
        channels = getattr(config, "channels", split.channels)
        if split.channels != channels:
            raise StoreError(
                f"expected images of {channels} channels, got {split.channels}: "
                f"add --set channels={split.channels}"
            )
        self.check(split)
        return split

    def better(self) -> dict[str, str]:
        """Which side of each measure is the better one."""
        every: tuple[Measure | JudgedMeasure, ...] = (*self.measures, *self.judged)
        return {name: side for m in every for name, side in m.better.items()}

    def measures_of(self, config: C, split: Split, run: Run) -> tuple[Measure, ...]:
        """All measures of a run; trains the judge, where there is one."""
        if self.judge is None:
            return self.measures
        judge = self.judge(config, split, run)
        return (*self.measures, *(measure.by(judge) for measure in self.judged))


def override(config: C, settings: Iterable[str]) -> C:
    """A configuration with some fields replaced.

    Args:
        config: a frozen dataclass of numbers, truth values and strings.
        settings: such as "steps=100"; a value has the type of the field it replaces.

    Raises:
        ConfigurationError: no such field, or a value of another type.
    """
    known = {f.name: getattr(config, f.name) for f in fields(config)}  # type: ignore[arg-type]
    changed: dict[str, object] = {}
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign or name not in known:
            raise ConfigurationError(
                f"expected NAME=VALUE with a name of {', '.join(known)}; got {setting!r}"
            )
        changed[name] = _parsed(name, text, known[name])
    try:
        return replace(config, **changed)  # type: ignore[type-var]
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _parsed(name: str, text: str, before: object) -> object:
    if isinstance(before, bool):
        if text.lower() not in _WORDS:
            raise ConfigurationError(f"{name}: expected true or false, got {text!r}")
        return _WORDS[text.lower()]
    try:
        return type(before)(text)  # type: ignore[call-arg]
    except ValueError as error:
        kind = {int: "a whole number", float: "a number"}.get(type(before), "a value")
        raise ConfigurationError(f"{name}: expected {kind}, got {text!r}") from error


def measure_all(
    system: System, split: Split, measures: Sequence[Measure], seconds: float
) -> ArmRun:
    """All numbers of a system, by side."""
    sides: dict[str, dict[str, float | None]] = {"train": {}, "validation": {}, "test": {}}
    began = time.perf_counter()
    for measure in measures:
        sides[measure.side] |= measure.measure(system, split, measure.side)
    numbers = sides["train"], sides["validation"], sides["test"]
    return ArmRun(*numbers, seconds=round(seconds + time.perf_counter() - began, 1))


@dataclass(frozen=True, kw_only=True)
class How:
    """How `train` and `reproduce` run: what is the same for all arms and seeds.

    Attributes:
        preset: of the paper.
        settings: fields of its configuration that are replaced, such as "steps=100".
        source: which images.
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: see `engine.precision`.
        cuda_graphs: record phases as CUDA graphs.
        begin_from: files with initial weights, by the name of the network.
        command: what makes the record again.
        callbacks: the name of a stage to a callback for its reports; None for nobody.
    """

    preset: str = "smoke"
    settings: Sequence[str] = ()
    source: Source = field(default_factory=Source)
    device: str = "cpu"
    precision: str = "auto"
    cuda_graphs: bool = False
    begin_from: Mapping[str, Path] = field(default_factory=dict)
    command: str = ""
    callbacks: Callable[[str], Callback] | None = progress

    def run(self, **more: object) -> Run:
        """A `Run` of this kind."""
        kept = {"precision": self.precision, "cuda_graphs": self.cuda_graphs,
                "begin_from": self.begin_from}  # fmt: skip
        return Run(**kept | more)  # type: ignore[arg-type]


def train(
    comparison: Comparison[C], how: How, *, arm: str, seed: int, folder: Path, resume: bool = False
) -> RunRecord | None:
    """`reproduce` of one arm and one seed, with checkpoints and logs in a folder, which then also
    gets the trained system, `system.safetensors`, and `record.json`.

    Returns:
        The record, on rank 0; None on the others.

    Raises:
        ConfigurationError: no such preset, setting or arm; or initial weights that no stage took.
        CheckpointError: the folder holds another run, or one that is not to be resumed.
        StoreError: the images are not there, or do not fit.
        WeightsError: a file of initial weights that is not there, or does not fit.
    """
    chosen = comparison.arm(arm)
    config = comparison.configuration(how.preset, how.settings)
    for network, path in how.begin_from.items():
        if not path.is_file():
            raise WeightsError(f"begin_from: expected a file for {network!r}, found none: {path}")
    revision()  # now: the checkout may move on
    start = time.perf_counter()
    with init_distributed(how.device) as (ranks, device):
        split = comparison.images(how.source, config, seed)
        _check_boxes(arm, chosen, split)
        watch = how.callbacks if ranks.first else None
        run = how.run(
            seed=seed, device=device, ranks=ranks, folder=folder, resume=resume,
            callbacks=_named(watch, f"{comparison.paper} {arm}"),
            identity={
                "arm": arm, "config": asdict(config), "data": dict(split.identity)  # type: ignore[call-overload]
            },
        )  # fmt: skip
        system = chosen.train(config, split, run)
        measures = comparison.measures_of(config, split, run)
        if not ranks.first:
            return None
        result = measure_all(system, split, measures, time.perf_counter() - start)
        name = folder / "system.safetensors"
        about = Description(comparison.paper, arm, asdict(config), split.classes)  # type: ignore[call-overload]
        weights = {arm: Weights(name.name, save_system(system, about, name))}
        record = _record(
            comparison, how, config, [split], {arm: [result]}, weights, device, (seed,),
            time.perf_counter() - start, processes=ranks.size,
            remarks=("resumed: the seconds are those of the last process",) if resume else (),
        )  # fmt: skip
        write_record(folder / "record.json", record)
        if run.unused_weights:
            raise ConfigurationError(
                f"trained, but no stage of {arm!r} has a network to begin from of the name "
                f"{', '.join(map(repr, run.unused_weights))}"
            )
    return record


def reproduce(
    comparison: Comparison[C],
    how: How,
    *,
    seeds: int,
    arms: Sequence[str] = (),
    weights_folder: Path | None = None,
    keep: Callable[[RunRecord], None] = lambda record: None,
    begun: RunRecord | None = None,
) -> RunRecord:
    """Every arm of a comparison (or those named), each seed with its own data and weights.

    Args:
        comparison: of a paper.
        how: it runs.
        seeds: how many.
        arms: all by default; those that need boxes to learn from are left out where there are none.
        weights_folder: gets the systems of the first seed, a file for each arm.
        keep: is given the record of the seeds so far after each of them, so that hours of work are
            not lost with the last one.
        begun: what `keep` was given by a run that was interrupted: its seeds are not run again.

    Raises:
        ConfigurationError, StoreError: as in `train`; said before anything is trained. Also for a
            `begun` of other arms, settings, images or code.
    """
    config = comparison.configuration(how.preset, how.settings)
    if how.begin_from:
        raise ConfigurationError("begin_from: expected none, arms of a table begin alike")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError("expected one process; several train one arm, by `train`")
    names = list(arms) or list(comparison.arms)
    chosen = {name: comparison.arm(name) for name in names}
    revision()  # now: the checkout may move on
    start, device = time.perf_counter(), torch.device(how.device)
    results: dict[str, list[ArmRun]] = {}
    weights: dict[str, Weights] = {}
    splits: list[Split] = []
    before = 0.0 if begun is None else begun.seconds

    def record() -> RunRecord:
        return _record(
            comparison, how, config, splits, results, weights, device, tuple(range(len(splits))),
            before + time.perf_counter() - start,
        )  # fmt: skip

    if begun is not None:
        splits += [comparison.images(how.source, config, seed) for seed in begun.seeds[:seeds]]
        results |= {name: list(runs) for name, runs in begun.results.items()}
        weights |= begun.weights
        wrong = differences(begun, record())
        trained = {name for name in chosen if _can_train(chosen[name], splits[0])}
        wrong += [] if set(begun.results) == trained else ["arms"]
        if wrong:
            raise ConfigurationError(
                f"expected to go on with the same run, but it had other {', '.join(wrong)}"
            )
    for seed in range(len(splits), seeds):
        split = comparison.images(how.source, config, seed)
        run = how.run(
            seed=seed, device=device, learning_curve=_of_split(comparison.learning_curve, split),
            callbacks=_named(how.callbacks, f"{comparison.paper}, seed {seed},"),
        )  # fmt: skip
        for name, arm in chosen.items():
            if not _can_train(arm, split):
                continue
            began = time.perf_counter()
            system = arm.train(config, split, run)
            seconds = time.perf_counter() - began
            measures = comparison.measures_of(config, split, run)
            result = measure_all(system, split, measures, seconds)
            results.setdefault(name, []).append(replace(result, curve=run.curve_of(system)))
            if weights_folder is not None and seed == 0:
                file = weights_folder / _file_name(comparison.paper, how, split, name)
                about = Description(comparison.paper, name, asdict(config), split.classes)  # type: ignore[call-overload]
                weights[name] = Weights(file.name, save_system(system, about, file))
        splits.append(split)
        keep(record())
    return record()


def _file_name(paper: str, how: How, split: Split, arm: str) -> str:
    """Of the weights of an arm; it names the images, unless they are simulated."""
    images = [] if how.source.data == "phantom" else [plain_name(str(split.identity["source"]))]
    return "-".join((paper, how.preset, *images, plain_name(arm))) + ".safetensors"


def _record(
    comparison: Comparison[C],
    how: How,
    config: C,
    splits: Sequence[Split],
    results: Mapping[str, Sequence[ArmRun]],
    weights: Mapping[str, Weights],
    device: torch.device,
    seeds: tuple[int, ...],
    seconds: float,
    processes: int = 1,
    remarks: tuple[str, ...] = (),
) -> RunRecord:
    configuration: dict[str, Json] = asdict(config)  # type: ignore[call-overload]
    return RunRecord(
        paper=comparison.paper, what=f"{comparison.paper} on {splits[0].name}",
        command=how.command, preset=how.preset, faithful=how.preset in comparison.faithful,
        configuration=configuration,
        settings={
            "precision": Precision.of(how.precision, device).name, "processes": processes,
            "cuda graphs": how.cuda_graphs,
            "begin from": {name: sha256_of_file(p) for name, p in how.begin_from.items()},
        },
        data=[dict(split.identity) for split in splits], classes=splits[0].classes, seeds=seeds,
        results={arm: tuple(runs) for arm, runs in results.items()},
        better=comparison.better(), weights=weights,
        code=library_files(__name__, comparison.split.__module__),
        revision=revision(), hardware=hardware(device), versions=versions(),
        seconds=round(seconds, 1), remarks=remarks,
    )  # fmt: skip


def _named(
    watch: Callable[[str], Callback] | None, before: str
) -> Callable[[str], Sequence[Callback]]:
    """Who looks at a stage, with words before its name."""
    return lambda stage: () if watch is None else (watch(f"{before} {stage}"),)


def _of_split(measure: Measure | None, split: Split) -> Callable[[System], Numbers] | None:
    return None if measure is None else lambda s: measure.measure(s, split, measure.side)


def _can_train(arm: Arm[C], split: Split) -> bool:
    return not arm.needs_boxes or split.has_boxes_to_learn_from


def _check_boxes(name: str, arm: Arm[C], split: Split) -> None:
    if not _can_train(arm, split):
        raise StoreError(f"{split.name}: {name!r} expected boxes of training images, got none")
