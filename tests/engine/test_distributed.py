"""Two processes of a real torchrun train like one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine.toy import ToyGAN, toy_loader, weights

from cxrtut.engine.checkpoint import load
from cxrtut.engine.distributed import Ranks, init_distributed
from cxrtut.engine.loop import train

ROOT = Path(__file__).resolve().parents[2]


def torchrun(folder: Path, steps: int, *words: str) -> list[dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(ROOT / "tests" / "engine" / "toy.py"), str(folder), str(steps), *words,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def alone(steps: int) -> tuple[dict, dict]:
    """One process on the whole batch, in the toy program's settings."""
    task = ToyGAN()
    reports = train(task, toy_loader(), steps=steps, batch_size=8, report_every=2)
    return weights(task), {f"{r.step} {k}": v for r in reports for k, v in r.terms.items()}


def close(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(torch.as_tensor(one[k]), torch.as_tensor(other[k]), rtol=1e-4, atol=1e-5)
        for k in one
    )


def test_two_ranks_train_like_one_process_and_resume(tmp_path):
    first, second = torchrun(tmp_path, 4)
    expected, told = alone(4)
    assert close(first["weights"], expected) and close(second["weights"], expected)
    assert close(first["told"], told) and close(second["told"], told)
    assert load(tmp_path / "run")["configuration"]["processes"] == 2
    # gradients of halves are really averaged: a rank alone on its half goes elsewhere
    half = ToyGAN()
    train(half, toy_loader(), steps=4, batch_size=4, report_every=2)
    assert not close(weights(half), expected)
    resumed, _ = torchrun(tmp_path, 7, "resume")
    assert close(resumed["weights"], alone(7)[0])


def test_one_process_is_rank_0_of_1():
    with init_distributed("cpu") as (ranks, device):
        assert (ranks, device) == (Ranks(0, 1), torch.device("cpu"))
    assert ranks.first and ranks.gather("x") == ["x"] and ranks.any(True, device)
    values = torch.tensor([1.0])
    assert ranks.sum(values) is values


def test_a_batch_is_cut_into_equal_shares_or_refused():
    assert [Ranks(r, 4).share(8) for r in range(4)] == [slice(2 * r, 2 * r + 2) for r in range(4)]
    with pytest.raises(ValueError, match="expected a multiple of 3 processes, got 8"):
        Ranks(0, 3).share(8)
