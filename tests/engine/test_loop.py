"""The training loop: phases, resuming, refusing."""

import errno
import os
import warnings
from dataclasses import replace

import pytest
import torch
from engine.toy import ToyGAN, assert_same, run, toy_loader, weights
from torch import nn

from cxrtut.engine import checkpoint
from cxrtut.engine.checkpoint import CheckpointError
from cxrtut.engine.performance import set_memory_format
from cxrtut.engine.phase_step import NonFiniteLoss
from cxrtut.engine.schedules import linear_decay
from cxrtut.engine.task import Phase
from cxrtut.randomness import uniforms


def state_of(task):
    return {
        f"{k} {i} {key}": value
        for k, o in task.optimizers.items()
        for i, values in o.state_dict()["state"].items()
        for key, value in values.items()
    }


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path):
    whole, first, second = ToyGAN(dropout=0.3), ToyGAN(dropout=0.3), ToyGAN(dropout=0.3)
    reports = run(whole, 7, checkpoint_dir=tmp_path / "a", checkpoint_every=3)
    run(first, 4, checkpoint_dir=tmp_path / "b", checkpoint_every=3)
    torch.manual_seed(99)  # what happens in between must not matter
    resumed = run(second, 7, checkpoint_dir=tmp_path / "b", checkpoint_every=3, resume=True)
    assert_same(weights(whole), weights(second))
    assert_same(state_of(whole), state_of(second))
    assert second.seen == [(4, 1), (5, 1), (6, 2)]  # three steps an epoch
    assert reports[-1].terms == resumed[-1].terms and resumed[-1].step == 7


def test_torchs_own_numbers_follow_the_seed():
    def drawn(seed):
        task, seen = ToyGAN(), []

        def loss(batch):
            seen.append(torch.rand(3))
            return task.generator_loss(batch)

        task.phases = lambda step, epoch: [Phase("G", ("generator",), loss)]
        run(task, 2, seed=seed)
        return torch.stack(seen)

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    one, two, other = ToyGAN(dropout=0.3), ToyGAN(dropout=0.3), ToyGAN(dropout=0.3)
    run(one), run(two), run(other, seed=1)
    assert_same(weights(one), weights(two))
    assert not torch.equal(weights(one)["critic.3.weight"], weights(other)["critic.3.weight"])


def test_the_callers_random_numbers_stay_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(ToyGAN(dropout=0.3))
    assert torch.equal(torch.rand(3), expected)


def test_a_phase_moves_its_own_networks_and_leaves_the_others_without_gradients():
    task = ToyGAN()
    task.phases = lambda step, epoch: [Phase("G", ("generator",), task.generator_loss)]
    before = weights(task)
    run(task, 1)
    after = weights(task)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if key.startswith("generator")}
    assert all(p.grad is None for p in task.networks["critic"].parameters())


def test_networks_are_as_free_afterwards_as_they_were():
    task = ToyGAN()
    task.networks["generator"][0].bias.requires_grad_(False)
    free = [p.requires_grad for n in task.networks.values() for p in n.parameters()]
    task.phases = lambda step, epoch: [Phase("D", ("critic",), task.critic_loss)]
    run(task, 1)
    assert [p.requires_grad for n in task.networks.values() for p in n.parameters()] == free


def test_a_step_equals_the_same_step_written_by_hand():
    task, by_hand = ToyGAN(), ToyGAN()
    set_memory_format(torch.device("cpu"), by_hand.networks)
    feed = toy_loader()
    run(task, 1)
    batch = next(feed.batches(batch_size=8, seed=0))
    losses = (by_hand.critic_loss, by_hand.critic_loss, by_hand.generator_loss)
    for position, (name, loss) in enumerate(
        zip(("critic", "critic", "generator"), losses, strict=True)
    ):
        numbers = uniforms(8, 4, seed=0, step=0, position=position)
        optimizer = by_hand.optimizers[name]
        optimizer.zero_grad()
        loss(replace(batch, uniforms=numbers))[0].backward()
        optimizer.step()
    for name, weight in weights(by_hand).items():
        torch.testing.assert_close(weights(task)[name], weight, rtol=0, atol=1e-6)


def test_a_rate_that_was_changed_between_two_runs_is_the_one_that_counts(tmp_path):
    """And a schedule leaves the optimiser with the rate that it found."""

    class Decaying(ToyGAN):
        def schedule(self, step):
            return dict.fromkeys(self.optimizers, linear_decay(step, steps=4))

    task = Decaying()
    run(task, 3)
    for optimizer in task.optimizers.values():
        assert optimizer.param_groups[0]["lr"] == 1e-2
        optimizer.param_groups[0]["lr"] = 0.0
    before = {k: v.clone() for k, v in weights(task).items()}
    run(task, 2)
    assert_same(weights(task), before)
    run(ToyGAN(), 2, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"optimizers\.\w+\.0\.learning_rate is .*0\.0?1"):
        run(ToyGAN(learning_rate=1e-4), 4, checkpoint_dir=tmp_path, resume=True)


def test_a_name_of_the_loops_own_settings_is_refused_in_a_configuration():
    with pytest.raises(ValueError, match="configuration: seed is the loop's own"):
        run(ToyGAN(), 1, configuration={"seed": 3})


def test_training_lowers_the_loss_on_something_learnable():
    task = ToyGAN()
    task.phases = lambda step, epoch: [Phase("G", ("generator",), kept)]

    def kept(batch):
        return (task.networks["generator"](batch.image) - batch.image).abs().mean(), {}

    reports = run(task, 60, report_every=10)
    assert reports[-1].terms["G/loss"] < 0.6 * reports[0].terms["G/loss"]


def test_a_report_has_means_since_the_last_one():
    seen = []
    task = ToyGAN()

    def loss(batch):
        value = float(len(seen) + 1)
        seen.append(value)
        weight = next(task.networks["critic"].parameters())
        return 0 * weight.sum() + value, {"twice": torch.tensor(2 * value)}

    task.phases = lambda step, epoch: [Phase("D", ("critic",), loss)] * 2
    told = []
    reports = run(task, 5, report_every=2, callbacks=[told.append])
    assert [r.step for r in reports] == [2, 4, 5] and told == reports
    assert [r.terms["D/loss"] for r in reports] == [2.5, 6.5, 9.5]
    assert [r.terms["D/twice"] for r in reports] == [5.0, 13.0, 19.0]
    assert all(r.images_per_second > 0 and r.memory is None for r in reports)


def test_the_speed_is_that_of_the_steps_since_the_last_report(monkeypatch):
    clock = iter(range(100))  # a second between two looks at it
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    reports = run(ToyGAN(), 5, report_every=2)
    assert [r.images_per_second for r in reports] == [16.0, 16.0, 8.0]


def test_a_phase_that_no_longer_runs_is_no_longer_reported():
    task = ToyGAN()
    d = Phase("D", ("critic",), task.critic_loss)
    g = Phase("G", ("generator",), task.generator_loss)
    task.phases = lambda step, epoch: [d] if step < 2 else [g]
    reports = run(task, 4, report_every=2)
    assert [sorted({name.split("/")[0] for name in r.terms}) for r in reports] == [["D"], ["G"]]


def test_a_loss_that_is_not_finite_is_named_with_phase_and_step_and_never_saved(tmp_path):
    task = ToyGAN()
    step_now = []
    real_phases = task.phases

    def phases(step, epoch):
        step_now[:] = [step]
        return real_phases(step, epoch)

    def poisoned(batch):
        loss, terms = ToyGAN.generator_loss(task, batch)
        return (loss * float("nan") if step_now[0] == 3 else loss), terms

    task.phases, task.generator_loss = phases, poisoned
    with pytest.raises(NonFiniteLoss, match=r"first in phase 'G' at step 4;"):
        run(task, 12, report_every=6, checkpoint_dir=tmp_path, checkpoint_every=3)
    assert checkpoint.load(tmp_path)["step"] == 3
    state = checkpoint.load(tmp_path)["networks"]["generator"]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_resuming_with_another_configuration_names_the_field(tmp_path):
    settings = {"checkpoint_dir": tmp_path, "configuration": {"data": {"fingerprint": "a"}}}
    run(ToyGAN(), 2, **settings)
    with pytest.raises(CheckpointError, match=r"batch_size is 8 in the checkpoint and 4 in this"):
        run(ToyGAN(), 4, resume=True, **settings | {"batch_size": 4})
    with pytest.raises(CheckpointError, match="fingerprint is 'a' in the checkpoint and 'b'"):
        changed = settings | {"configuration": {"data": {"fingerprint": "b"}}}
        run(ToyGAN(), 4, resume=True, **changed)
    with pytest.raises(CheckpointError, match="the checkpoint has no field 'more'"):
        changed = settings | {"configuration": {"data": {"fingerprint": "a"}, "more": 1}}
        run(ToyGAN(), 4, resume=True, **changed)
    assert run(ToyGAN(), 4, resume=True, **settings)[-1].step == 4


def test_resuming_without_a_checkpoint_begins(tmp_path):
    assert run(ToyGAN(), 2, checkpoint_dir=tmp_path / "new", resume=True)[-1].step == 2


def test_a_folder_that_holds_a_run_is_not_begun_in_again(tmp_path):
    run(ToyGAN(), 2, checkpoint_dir=tmp_path)
    before = checkpoint.checkpoints(tmp_path)[0].read_bytes()
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run: resume=True"):
        run(ToyGAN(), 1, checkpoint_dir=tmp_path)
    (kept,) = checkpoint.checkpoints(tmp_path)
    assert kept.read_bytes() == before


def test_a_disk_that_fills_up_during_a_run_ends_it_with_the_last_good_checkpoint(
    tmp_path, monkeypatch
):
    real, written = os.fsync, []

    def fills_up(descriptor):
        written.append(descriptor)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", fills_up)
    with pytest.raises(CheckpointError, match=r"00004\.pt cannot be written: No space .*00002\.pt"):
        run(ToyGAN(), 6, checkpoint_dir=tmp_path, checkpoint_every=2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000002.pt"]
    resumed, whole = ToyGAN(), ToyGAN()
    run(resumed, 6, checkpoint_dir=tmp_path, checkpoint_every=2, resume=True)
    run(whole, 6)
    assert_same(weights(whole), weights(resumed))


def test_a_finished_run_resumed_does_nothing(tmp_path):
    run(ToyGAN(), 2, checkpoint_dir=tmp_path)
    assert run(ToyGAN(), 2, checkpoint_dir=tmp_path, resume=True) == []


def test_a_schedule_sets_the_rate_of_each_step_and_survives_a_resume(tmp_path):
    used = []

    def schedule(step):
        return {"critic": linear_decay(step, steps=6, start=2)}

    def make():
        task = ToyGAN()
        task.schedule = schedule
        real_phases = task.phases

        def phases(step, epoch):
            rates = [task.optimizers[k].param_groups[0]["lr"] for k in ("critic", "generator")]
            used.append((step, *rates))
            return real_phases(step, epoch)

        task.phases = phases
        return task

    run(make(), 4, checkpoint_dir=tmp_path)
    run(make(), 6, checkpoint_dir=tmp_path, resume=True)
    expected = [(s, 1e-2 * f, 1e-2) for s, f in enumerate((1, 1, 1, 0.75, 0.5, 0.25))]
    assert torch.tensor(used).allclose(torch.tensor(expected))


def test_a_resumed_run_with_another_schedule_is_refused(tmp_path):
    def make(start):
        task = ToyGAN()
        task.schedule = lambda step: {"critic": linear_decay(step, steps=6, start=start)}
        return task

    run(make(2), 4, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"schedule\.3\.critic is 0\.75 in .* and 1\.0 in"):
        run(make(4), 6, checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"this run has no field 'schedule\.0\.critic'"):
        run(ToyGAN(), 6, checkpoint_dir=tmp_path, resume=True)
    run(ToyGAN(), 4, checkpoint_dir=tmp_path / "without")
    with pytest.raises(CheckpointError, match=r"checkpoint has no field 'schedule\.0\.critic'"):
        run(make(2), 6, checkpoint_dir=tmp_path / "without", resume=True)
    task = make(2)
    task.schedule = lambda step: {"judge": 1.0}
    with pytest.raises(
        ValueError, match="schedule: expected one of generator, critic, got 'judge'"
    ):
        run(task)


def test_mixed_precision_trains_on_a_cpu_too():
    task = ToyGAN()
    assert run(task, 2, precision="bfloat16")[-1].step == 2
    assert all(p.dtype == torch.float32 for p in task.networks["critic"].parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"batch_size": 100}, r"expected at most the \d+ images of an epoch, got 100"),
        ({"report_every": 0}, "report_every: expected at least 1"),
        ({"cuda_graphs": True}, "cuda_graphs: expected one process on a CUDA device, got 1 on cpu"),
        ({"precision": "float16"}, "float16 expects a CUDA device, got cpu"),
        ({"precision": "half"}, "precision: expected one of auto, float32, bfloat16, float16"),
        ({"device": "meta"}, "expected on meta, got cpu"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_moves(change, words):
    task = ToyGAN()
    before = weights(task)
    with pytest.raises(ValueError, match=words):
        run(task, **{"steps": 2} | change)
    assert_same(before, weights(task))


def test_an_optimiser_that_owns_something_else_is_refused():
    task = ToyGAN()
    task.optimizers["critic"] = torch.optim.Adam(task.networks["generator"].parameters())
    with pytest.raises(ValueError, match=r"optimizers\['critic'\]: expected exactly the 4 param"):
        run(task)
    task.optimizers = {"judge": torch.optim.Adam(nn.Linear(1, 1).parameters())}
    with pytest.raises(ValueError, match="expected keys among the networks generator, critic"):
        run(task)


def test_a_phase_without_a_network_and_a_loss_that_is_no_scalar_are_refused():
    task = ToyGAN()
    task.phases = lambda step, epoch: [Phase("X", ("judge",), task.critic_loss)]
    with pytest.raises(ValueError, match="phase 'X' updates 'judge'"):
        run(task)

    def vector(batch):
        return task.networks["critic"](batch.image), {}

    task.phases = lambda step, epoch: [Phase("D", ("critic",), vector)]
    with pytest.raises(ValueError, match=r"phase 'D': expected a scalar loss, got shape \(8, 1\)"):
        run(task)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_phases_give_the_losses_of_the_eager_ones():
    runs = []
    for cuda_graphs in (False, True):
        task = ToyGAN(device="cuda")
        settings = {"device": "cuda", "precision": "float32", "cuda_graphs": cuda_graphs}
        reports = run(task, 40, report_every=10, **settings)
        runs.append([value for report in reports for value in report.terms.values()])
    assert runs[1] == pytest.approx(runs[0], rel=1e-3, abs=1e-4)


def test_a_broken_checkpoint_is_passed_over_loudly(tmp_path):
    whole, broken = ToyGAN(), ToyGAN()
    run(whole, 6)
    run(ToyGAN(), 6, checkpoint_dir=tmp_path, checkpoint_every=2)
    newest = checkpoint.checkpoints(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"checkpoint-00000006.pt cannot be read"):
        run(broken, 6, checkpoint_dir=tmp_path, checkpoint_every=2, resume=True)
    assert_same(weights(whole), weights(broken))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.load(tmp_path)["step"] == 6  # written again
