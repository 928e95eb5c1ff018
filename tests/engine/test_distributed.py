"""Two processes of a real torchrun train like one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine.toy import ToyGAN, assert_same, run, toy_loader, weights
from engine.two_ranks import clipped

from cxrtut.engine.checkpoint import load
from cxrtut.engine.distributed import TORCHRUN, BatchSizeError, Ranks, init_distributed
from cxrtut.engine.loop import train
from cxrtut.randomness import uniforms

ROOT = Path(__file__).resolve().parents[2]


def torchrun(folder: Path, program: str, *words: str) -> list[dict]:
    """What both processes of a program in this folder have saved."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(ROOT / "tests" / "engine" / program), str(folder), *words,
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            _, told = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its two processes; killed, it would leave them
            raise
    assert process.returncode == 0, told[-3000:]
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
    first, second = torchrun(tmp_path, "toy.py", "4")
    expected, told = alone(4)
    assert close(first["weights"], expected) and close(second["weights"], expected)
    assert close(first["told"], told) and close(second["told"], told)
    assert load(tmp_path / "run")["configuration"]["processes"] == 2
    # gradients of halves are really averaged: a rank alone on its half goes elsewhere
    half = ToyGAN()
    train(half, toy_loader(), steps=4, batch_size=4, report_every=2)
    assert not close(weights(half), expected)
    resumed, _ = torchrun(tmp_path, "toy.py", "7", "resume")
    assert close(resumed["weights"], alone(7)[0])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What came out of `two_ranks.py`: of the first process and of the second."""
    return torchrun(tmp_path_factory.mktemp("two"), "two_ranks.py")


def test_a_gradient_is_averaged_where_a_rank_has_one_and_stays_none_where_none_has(two):
    for rank, found in enumerate(two):
        grads = found["gradients"]
        assert grads["both"].tolist() == [1.5, 3.5]
        assert grads["one"].tolist() == [2.0, -1.0]  # the rank without counts as zero
        assert grads["none"] is None and grads["alone"] is None
        assert grads["frozen"].tolist() == [rank, rank]


def test_only_statistics_of_batch_norms_are_averaged(two):
    for rank, found in enumerate(two):
        averaged = found["buffers"]["averaged"]
        assert averaged["0.running_mean"].tolist() == [1.0, 1.0]
        assert averaged["0.running_var"].tolist() == [3.0, 3.0]
        assert averaged["1.seen"].tolist() == [rank + 1]
        assert averaged["3.weight"].item() == rank + 5


def test_weights_and_buffers_of_rank_0_are_sent_to_all(two):
    first, second = (found["buffers"]["sent"] for found in two)
    assert_same(first, second)
    assert first["1.seen"].item() == 1.0 and first["3.weight"].item() == 5.0


def test_after_training_all_but_own_buffers_is_the_same_on_both(two):
    first, second = (found["training"]["plain"] for found in two)
    own = {key for key in first if not torch.equal(first[key], second[key])}
    assert own == {"pool.seen"}
    assert not torch.equal(first["critic.1.running_mean"], torch.zeros(4))


def test_two_ranks_resume_bit_for_bit_with_their_own_buffers_and_dropout(two):
    for found in (found["training"] for found in two):
        assert found["steps of the resumed"] == 2
        assert_same(found["whole"], found["resumed"])
    assert not torch.equal(*(found["training"]["resumed"]["pool.seen"] for found in two))


def test_gradients_are_clipped_after_they_are_averaged(two):
    alone = clipped()
    run(alone, 3)
    for found in two:
        assert close(found["training"]["clipped"], weights(alone))


def test_each_rank_gets_its_rows_of_the_numbers_of_the_whole_batch(two):
    for rank, found in enumerate(two):
        for step, numbers in enumerate(found["training"]["uniforms"]):
            whole = uniforms(8, 2, seed=0, step=step, position=0)
            assert torch.equal(numbers, whole[4 * rank : 4 * rank + 4])


def test_ranks_have_dropout_of_their_own(two):
    assert not torch.equal(*(found["numbers of torch"]["drawn"] for found in two))


def test_rank_0_alone_reports_and_measures_and_both_decide_alike(two):
    first, second = two
    assert first["training"]["told"] == [2, 4, 6] and second["training"]["told"] == []
    one, other = first["validation"], second["validation"]
    assert one["calls"] == [0, 0, 0] and other["calls"] == []
    assert one["numbers"] == other["numbers"] == [{"ap": v} for v in (1.0, 1 / 2, 1 / 3)]
    assert one["rates"] == other["rates"] == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]


def test_a_loss_that_is_not_finite_on_one_rank_stops_both(two):
    first, second = (found["not finite"] for found in two)
    assert first.startswith("NonFiniteLoss: a loss is not finite, first in another process;")
    assert second.startswith("NonFiniteLoss: a loss is not finite, first in phase 'G' at step 1;")


def test_a_request_to_stop_one_rank_in_its_last_step_stops_both(two):
    assert all(found["stopping"].startswith("Interrupted: stopped after step 3") for found in two)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("one none", "found 2 on rank 0, 0 on rank 1; "),
        ("other none", "found 0 on rank 0, 4 on rank 1; "),
        ("other step", "found 4 on rank 0, 2 on rank 1; "),
        ("one not to be resumed", "holds the checkpoints of a run"),
    ],
)
def test_ranks_that_find_different_checkpoints_all_stop_before_anything_is_done(two, case, words):
    for told, is_as_before, has_trained in (found["disagreeing"][case] for found in two):
        assert told.startswith("CheckpointError: ") and words in told
        assert is_as_before and not has_trained


def test_one_process_is_rank_0_of_1():
    with init_distributed("cpu") as (ranks, device):
        assert (ranks, device) == (Ranks(0, 1), torch.device("cpu"))
    assert ranks.first and ranks.gather("x") == ["x"] and ranks.any(True, device)
    values = torch.tensor([1.0])
    assert ranks.sum(values) is values


@pytest.fixture
def of_torchrun(monkeypatch):
    """All that torchrun sets, for the first of two processes; nothing is started."""
    words = ("0", "2", "0", "127.0.0.1", "29500")
    for name, value in zip(TORCHRUN, words, strict=True):
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("name", [n for n in TORCHRUN if n != "WORLD_SIZE"])
def test_without_one_of_torchruns_variables_a_process_is_alone_and_says_so(of_torchrun, name):
    of_torchrun.delenv(name)
    with (
        pytest.warns(UserWarning, match=f"WORLD_SIZE is 2, but {name} not set: .* trains alone"),
        init_distributed("cpu") as (ranks, _),
    ):
        assert ranks == Ranks(0, 1)


@pytest.mark.parametrize("size", [None, "", "0", "1"])
def test_what_a_cluster_sets_for_one_process_leaves_it_alone(of_torchrun, size):
    for name, value in (("SLURM_NTASKS", "4"), ("SLURM_PROCID", "3"), ("RANK", "3")):
        of_torchrun.setenv(name, value)
    of_torchrun.delenv("MASTER_ADDR")
    if size is None:
        of_torchrun.delenv("WORLD_SIZE")
    else:
        of_torchrun.setenv("WORLD_SIZE", size)
    with init_distributed("cpu") as (ranks, _):
        assert ranks == Ranks(0, 1)


def test_a_batch_is_cut_into_equal_shares_or_refused():
    assert [Ranks(r, 4).share(8) for r in range(4)] == [slice(2 * r, 2 * r + 2) for r in range(4)]
    with pytest.raises(BatchSizeError, match="expected a multiple of 3 processes, got 8"):
        Ranks(0, 3).share(8)
