"""The arms and measures of the toy paper; run by torchrun, a program that trains its own arm."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from experiments.toy_paper import PAPER, SMOKE, Config, Toy, ToyTask, make_networks

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split
from cxrtut.evaluation.classification import auroc_measure
from cxrtut.evaluation.measure import JudgedMeasure, Measure, Numbers
from cxrtut.evaluation.pixels import pixel_measure
from cxrtut.experiments.comparison import Arm, Comparison, How, train
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source

IMAGES = 48


def split_of(source: Source, config: Config, seed: int) -> Split:
    return source.one_disease(config.size, seed, IMAGES)


def build(config: Config, classes: tuple[str, ...], seed: int) -> Toy:
    return Toy(config, classes, make_networks(config, seed))


def train_own(config: Config, split: Split, run: Run) -> Toy:
    task = ToyTask(config, run.seed, run.device)
    system = Toy(config, split.classes, task.networks)
    run.fit(
        "main", task, split.loader("balanced"), steps=config.steps,
        batch_size=config.batch_size, watched=system,
    )  # fmt: skip
    return system


def train_still(config: Config, split: Split, run: Run) -> Toy:
    return build(config, split.classes, run.seed)


def background_error(system: System, split: Split, side: Side) -> Numbers:
    images = split.batch(split.normal(side)).image
    found = system.predict(images).image
    return {} if found is None else {"background_error": float((images - found).abs().mean())}


def train_judge(config: Config, split: Split, run: Run) -> Toy:
    """The toy itself, in a stage of its own."""

    def trained() -> Toy:
        task = ToyTask(config, run.seed + 1, run.device)
        judge = Toy(config, split.classes, task.networks)
        run.fit(
            "judge", task, split.loader(), steps=config.steps, batch_size=config.batch_size,
            watched=judge,
        )  # fmt: skip
        return judge

    return run.once("judge", trained)


def agreement(system: System, judge: System, split: Split, side: Side) -> Numbers:
    """How far apart the scores of system and judge are."""
    images = split.batch(split.rows(side)).image
    ours, theirs = system.predict(images).scores, judge.predict(images).scores
    assert ours is not None and theirs is not None
    return {"disagreement": float((ours - theirs).abs().mean())}


COMPARISON = Comparison(
    paper="toy",
    presets={"paper": PAPER, "smoke": SMOKE},
    own="own",
    split=split_of,
    arms={"own": Arm(build, train_own), "still": Arm(build, train_still)},
    measures=(
        auroc_measure("test"),
        pixel_measure("test"),
        Measure("test", background_error, {"background_error": "lower"}),
    ),
    faithful=frozenset({"paper"}),
    sources=frozenset({"cxrtut simulated chest radiographs"}),
)
JUDGED = replace(
    COMPARISON, judge=train_judge,
    judged=(JudgedMeasure("test", agreement, {"disagreement": "lower"}),),
)  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(COMPARISON, How(callbacks=None), arm="own", seed=0, folder=Path(sys.argv[1]))
