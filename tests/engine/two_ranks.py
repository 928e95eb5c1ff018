"""Run by torchrun, in two processes: what both do as one, and what each has for itself. Saves what
came out of each check, for `test_distributed.py` to judge.
"""

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engine.toy import ToyGAN, run, weights
from torch import Tensor, nn

from cxrtut.data.sample import Batch
from cxrtut.engine.checkpoint import checkpoint_path
from cxrtut.engine.distributed import Ranks, init_distributed
from cxrtut.engine.task import Phase, Terms
from cxrtut.engine.validation import Plateau, Validation


class Pool(nn.Module):
    """State without parameters: the sum of what this process has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))


class Pooled(ToyGAN):
    """The toy with batch norm in its critic, and a pool; one phase."""

    n_uniforms = 2

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout=dropout)
        self.networks["critic"].insert(1, nn.BatchNorm2d(4))
        parameters = self.networks["critic"].parameters()
        self.optimizers["critic"] = torch.optim.SGD(parameters, 0.1)
        self.networks["pool"] = Pool()
        self.drawn: list[Tensor] = []
        self.rates: list[float] = []
        self.crash_at = -1

    def phases(self, step: int, epoch: int):
        if step == self.crash_at:
            raise OSError("the power failed")
        self.rates.append(self.optimizers["critic"].param_groups[0]["lr"])
        yield Phase("both", ("generator", "critic"), self.both)

    def both(self, batch: Batch) -> tuple[Tensor, Terms]:
        assert batch.uniforms is not None
        self.networks["pool"].seen += batch.image.sum() * batch.uniforms.sum()
        self.drawn.append(batch.uniforms)
        fake = self.networks["generator"](batch.image)
        return (self.networks["critic"](fake) - 1).square().mean(), {}


def clipped() -> ToyGAN:
    """A toy whose networks move together, with plain steps of their clipped gradients."""
    task = ToyGAN()
    for name, network in task.networks.items():
        task.optimizers[name] = torch.optim.SGD(network.parameters(), 1.0)
    both = Phase("both", ("generator", "critic"), task.generator_loss, max_norm=0.05)
    task.phases = lambda step, epoch: [both]
    return task


def gradients(ranks: Ranks) -> dict[str, Any]:
    """A gradient on both, on none, on one, and of a parameter that is frozen."""
    both, none, one, frozen = (nn.Parameter(torch.zeros(2)) for _ in range(4))
    both.grad = torch.tensor([1.0, 3.0]) + ranks.rank
    if ranks.rank == 1:
        one.grad = torch.tensor([4.0, -2.0])
    frozen.grad = torch.full((2,), float(ranks.rank))
    frozen.requires_grad_(False)
    ranks.average_gradients([both, none, one, frozen])
    grads = {"both": both.grad, "none": none.grad, "one": one.grad, "frozen": frozen.grad}
    untouched = nn.Parameter(torch.zeros(2))
    ranks.average_gradients([untouched])
    return grads | {"alone": untouched.grad}


def buffers(ranks: Ranks) -> dict[str, Any]:
    """Statistics of a batch norm are averaged, a pool is each one's own, until it is sent."""
    network = nn.Sequential(nn.BatchNorm2d(2), Pool(), nn.InstanceNorm2d(2), nn.Linear(1, 1))
    with torch.no_grad():
        network[0].running_mean += 2.0 * ranks.rank
        network[0].running_var += 4.0 * ranks.rank
        network[1].seen += ranks.rank + 1
        network[3].weight.fill_(ranks.rank + 5)
    ranks.average_batch_norms([network])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    ranks.broadcast_parameters([network])
    return {"averaged": before, "sent": network.state_dict()}


def training(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Six steps; and the same with a power failure, and dropout."""
    told: list[int] = []
    plain, whole, crashed, resumed = Pooled(), *(Pooled(dropout=0.3) for _ in range(3))
    together = clipped()
    run(together, 3, ranks=ranks)
    for task in (plain, whole, crashed, resumed):
        task.networks["pool"].seen += 10 * ranks.rank  # rank 0's counts
    run(plain, ranks=ranks, callbacks=[lambda report: told.append(report.step)])
    run(whole, ranks=ranks)
    settings = {"checkpoint_dir": folder / "run", "checkpoint_every": 2, "resume": True}
    crashed.crash_at = 5
    try:
        run(crashed, ranks=ranks, **settings)
    except OSError:
        ranks.wait()
    run(resumed, ranks=ranks, **settings)
    return {
        "told": told, "plain": weights(plain), "uniforms": plain.drawn, "whole": weights(whole),
        "clipped": weights(together), "resumed": weights(resumed),
        "steps of the resumed": len(resumed.drawn),
    }  # fmt: skip


def numbers_of_torch(ranks: Ranks) -> dict[str, Any]:
    """What dropout would draw in a phase."""
    task, drawn = ToyGAN(), []

    def loss(batch: Batch) -> tuple[Tensor, Terms]:
        drawn.append(torch.rand(3))
        return task.generator_loss(batch)

    task.phases = lambda step, epoch: [Phase("G", ("generator",), loss)]
    run(task, 1, ranks=ranks)
    return {"drawn": drawn[0]}


def validation(ranks: Ranks) -> dict[str, Any]:
    """Measured on one, known to both: the plateau moves the rates of both."""
    task, calls = Pooled(), []

    def measure() -> dict[str, float]:
        calls.append(ranks.rank)
        return {"ap": 1.0 / len(calls)}

    plateau = Plateau(factor=0.5, patience=0)
    watched = Validation(every=2, measure=measure, best_by="ap", plateau=plateau)
    reports = run(task, ranks=ranks, validate=watched)
    return {
        "calls": calls, "numbers": [r.validation for r in reports], "rates": task.rates,
    }  # fmt: skip


def failure(job: Callable[[], object]) -> str:
    """The error of a job, in words."""
    try:
        job()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def not_finite(ranks: Ranks) -> str:
    """A loss that is NaN in the second process alone."""
    task = ToyGAN()

    def loss(batch: Batch) -> tuple[Tensor, Terms]:
        value, terms = task.generator_loss(batch)
        return value * (float("nan") if ranks.rank else 1.0), terms

    task.phases = lambda step, epoch: [Phase("G", ("generator",), loss)]
    return failure(lambda: run(task, ranks=ranks, report_every=1))


def stopping(ranks: Ranks, folder: Path) -> str:
    """Asked of the second process alone, in a last step that is no step of a report."""
    task = ToyGAN()
    real_phases = task.phases

    def phases(step: int, epoch: int) -> Any:
        if step == 2 and ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_phases(step, epoch)

    task.phases = phases
    return failure(lambda: run(task, 3, ranks=ranks, checkpoint_dir=folder / "stopped"))


def disagreeing(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Each process has a disk of its own, with checkpoints of a common run after these steps."""
    source = folder / "common"
    run(ToyGAN(), 4, ranks=ranks, checkpoint_dir=source, checkpoint_every=2)
    found = {}
    for name, steps in (("one none", (2, 0)), ("other none", (0, 4)), ("other step", (4, 2))):
        disk = folder / name / f"rank{ranks.rank}"
        disk.mkdir(parents=True)
        if steps[ranks.rank]:
            path = checkpoint_path(source, steps[ranks.rank])
            shutil.copy(path, disk / path.name)
        found[name] = refused(ranks, disk)
    found["one not to be resumed"] = refused(ranks, source, resume=ranks.rank == 0)
    return found


def refused(ranks: Ranks, disk: Path, resume: bool = True) -> tuple[str, bool, bool]:
    """The error, whether the disk is as before, and whether anything was trained."""
    before = {path.name: path.read_bytes() for path in disk.glob("*")}
    task = ToyGAN()
    told = failure(lambda: run(task, 6, ranks=ranks, checkpoint_dir=disk, resume=resume))
    after = {path.name: path.read_bytes() for path in disk.glob("*")}
    return told, before == after, bool(task.seen)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    with init_distributed("cpu") as (ranks, _):
        results = {
            "gradients": gradients(ranks),
            "buffers": buffers(ranks),
            "training": training(ranks, folder),
            "numbers of torch": numbers_of_torch(ranks),
            "validation": validation(ranks),
            "not finite": not_finite(ranks),
            "stopping": stopping(ranks, folder),
            "disagreeing": disagreeing(ranks, folder),
        }
        torch.save(results, folder / f"rank{ranks.rank}.pt")
