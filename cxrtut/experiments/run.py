"""Where and how a run happens, once, instead of a dozen arguments that are passed on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from cxrtut.data.sample import System
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.loop import train
from cxrtut.engine.progress import JsonLines
from cxrtut.engine.task import Data, Report, Task
from cxrtut.engine.validation import Validation
from cxrtut.records.run_record import CurvePoint, Json

CURVE_POINTS = 12  # of a learning curve, at most
Callback = Callable[[Report], None]
T = TypeVar("T")


def no_callbacks(stage: str) -> Sequence[Callback]:
    """For a run that nobody watches."""
    return ()


@dataclass(frozen=True, eq=False)
class Run:
    """One run of an arm, or of several arms with one seed.

    Attributes:
        seed: of weights, order and uniform numbers.
        device: where the networks are; the CPU by default.
        ranks: this process among several.
        folder: gets a log and a folder of checkpoints for each stage; None keeps nothing.
        resume: go on from what is in the folder.
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        cuda_graphs: record phases as CUDA graphs.
        callbacks: the name of a stage to who is given its reports, such as `engine.progress`.
        begin_from: files with the initial weights of networks, by the name of the network: the
            first stage that trains a network of that name begins with them.
        identity: what must be the same on resume: the arm, its configuration, its data.
        report_every: steps between two reports.
        trainer: what trains; the one training loop, or what stands for it to time it.
        learning_curve: what is measured of a system while it is trained, where its arm asks for
            it (`fit`); None measures nothing.
    """

    seed: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009, a value
    ranks: Ranks = Ranks()  # noqa: RUF009, a frozen value
    folder: Path | None = None
    resume: bool = False
    precision: str = "auto"
    cuda_graphs: bool = False
    callbacks: Callable[[str], Sequence[Callback]] = no_callbacks
    begin_from: Mapping[str, Path] = field(default_factory=dict)
    identity: Mapping[str, Json] = field(default_factory=dict)
    report_every: int = 50
    trainer: Callable[..., list[Report]] = train
    learning_curve: Callable[[System], Mapping[str, float]] | None = None
    _begun: set[str] = field(default_factory=set, init=False, repr=False)
    _shared: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    _curves: list[tuple[System, list[CurvePoint]]] = field(
        default_factory=list, init=False, repr=False
    )

    def fit(
        self,
        stage: str,
        task: Task,
        loader: Data,
        *,
        steps: int,
        batch_size: int,
        watched: System | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> list[Report]:
        """Trains one stage, in place. Nothing for no steps.

        Args:
            stage: its name; that of its log and of its folder of checkpoints.
            task: on the run's device.
            loader: training batches.
            steps: a batch each.
            batch_size: images of a step, of all ranks together.
            watched: the system whose networks these are, to keep its learning curve (`curve_of`).
            callbacks: given the reports besides.

        Raises:
            What `engine.loop.train` raises.
        """
        if steps < 1:
            return []
        begin_from = {k: p for k, p in self.begin_from.items() if k in task.networks}
        begin_from = {k: p for k, p in begin_from.items() if k not in self._begun}
        self._begun.update(begin_from)
        validate = None
        watching = [*self.callbacks(stage), *callbacks]
        if watched is not None and self.learning_curve is not None:
            validate = Validation(
                every=math.ceil(steps / CURVE_POINTS), measure=partial(self.learning_curve, watched)
            )
            watching.append(self._kept(watched))
        folder = self.folder
        if folder is not None and self.ranks.first:
            watching.append(JsonLines(folder / f"{stage}.jsonl"))
        return self.trainer(
            task, loader, steps=steps, batch_size=batch_size, seed=self.seed, device=self.device,
            ranks=self.ranks, precision=self.precision, validate=validate,
            begin_from=begin_from,
            checkpoint_dir=None if folder is None else folder / "checkpoints" / stage,
            resume=self.resume, configuration={"stage": stage, **self.identity},
            callbacks=watching, cuda_graphs=self.cuda_graphs, report_every=self.report_every,
        )  # fmt: skip

    def _kept(self, system: System) -> Callback:
        points: list[CurvePoint] = []
        self._curves.append((system, points))

        def keep(report: Report) -> None:
            if report.validation:
                points.append(CurvePoint(report.step, dict(report.validation)))

        return keep

    def curve_of(self, system: System) -> tuple[CurvePoint, ...]:
        """What was measured of a system while it was trained, also if that was for another arm;
        nothing where nobody asked for it.
        """
        return tuple(
            point for trained, points in self._curves if trained is system for point in points
        )

    @property
    def unused_weights(self) -> tuple[str, ...]:
        """The names of `begin_from` that no stage so far has had a network of."""
        return tuple(name for name in self.begin_from if name not in self._begun)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What is made the first time it is asked for and kept for the arms that follow: a stage
        that several begin with is trained once.

        Args:
            name: of what is made.
            make: makes it.
        """
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]  # type: ignore[return-value]
