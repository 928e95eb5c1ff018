"""Numbers of a held-out split during training, and what is decided on them."""

import math
from dataclasses import replace

import pytest
import torch
from engine.toy import ToyGAN, assert_same, run, weights
from torch import nn

from cxrtut.engine import checkpoint
from cxrtut.engine.checkpoint import CheckpointError
from cxrtut.engine.validation import Plateau, Validation

NAN = math.nan


def nothing():
    return {}


def history(*values):
    return [(10 * (i + 1), {"ap": value}) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "higher", "step"),
    [
        ((0.2, 0.7, 0.5), True, 20),
        ((0.2, 0.7, 0.5), False, 10),
        ((0.5, 0.7, 0.7), True, 20),  # of equal ones the first
        ((0.7, 0.5, 0.5), False, 20),
        ((NAN, 0.1, NAN), True, 20),
        ((NAN, 0.1, NAN), False, 20),
        ((0.1, NAN, 0.05), True, 10),
        ((NAN, NAN), True, None),
        ((-3.0, -4.0), True, 10),
        ((), True, None),
    ],
)
def test_the_best_is_the_first_of_the_highest_or_the_lowest_and_never_nan(values, higher, step):
    chosen = Validation(every=1, measure=nothing, best_by="ap", higher_is_better=higher)
    assert chosen.best_step(history(*values)) == step


def test_without_a_number_to_decide_by_nothing_is_best_and_rates_stay():
    free = Validation(every=1, measure=nothing)
    assert free.best_step(history(0.1, 0.2)) is None and free.factor(history(0.1, 0.2)) == 1.0


@pytest.mark.parametrize(
    ("values", "factors"),
    [
        ((0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4), (1, 1, 1, 0.5, 0.5, 0.5, 0.25)),
        ((0.5, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6), (1, 1, 1, 1, 1, 1, 0.5)),  # counted anew when better
        ((0.5, 0.5, NAN, 0.5), (1, 1, 1, 0.5)),
        ((0.1, 0.2, 0.3, 0.4, 0.5), (1, 1, 1, 1, 1)),
    ],
)
def test_rates_fall_after_more_than_patience_validations_that_are_no_better(values, factors):
    plateau = Plateau(factor=0.5, patience=2)
    rising = Validation(every=1, measure=nothing, best_by="ap", plateau=plateau)
    falling = replace(rising, higher_is_better=False)
    for n, factor in enumerate(factors, 1):
        assert rising.factor(history(*values[:n])) == factor
        assert falling.factor(history(*(-value for value in values[:n]))) == factor


def test_the_plateau_is_that_of_torch():
    values = [0.5, 0.4, 0.6, 0.5, 0.5, 0.5, 0.55, 0.7, 0.2, 0.2, 0.2, 0.2, 0.2]
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.1, patience=1, threshold=0.0
    )
    ours = Validation(
        every=1, measure=nothing, best_by="ap", plateau=Plateau(factor=0.1, patience=1)
    )
    for n, value in enumerate(values, 1):
        torchs.step(value)
        rate = optimizer.param_groups[0]["lr"]
        assert ours.factor(history(*values[:n])) == pytest.approx(rate, rel=1e-9)


def test_what_cannot_be_decided_is_refused():
    with pytest.raises(ValueError, match="every: expected at least 1 step, got 0"):
        Validation(every=0, measure=nothing)
    with pytest.raises(ValueError, match="plateau: expected best_by, the number it watches"):
        Validation(every=1, measure=nothing, plateau=Plateau())
    for wrong in ({"factor": 1.0}, {"factor": 0.0}, {"patience": -1}):
        with pytest.raises(ValueError, match=r"expected a factor in \(0, 1\) and a patience of 0"):
            Plateau(**wrong)
    with pytest.raises(ValueError, match=r"best_by: expected one of \['loss'\], got 'ap'"):
        run(ToyGAN(), validate=Validation(every=2, measure=lambda: {"loss": 1.0}, best_by="ap"))


def test_numbers_come_after_every_so_many_steps_and_after_the_last_and_are_reported():
    task, told, values = ToyGAN(), [], iter([0.25, NAN, 0.5])

    def measure():
        assert not torch.is_grad_enabled()
        assert not any(m.training for n in task.networks.values() for m in n.modules())
        return {"ap": torch.tensor(next(values))}

    reports = run(
        task, 7, report_every=4, validate=Validation(every=3, measure=measure),
        callbacks=[told.append],
    )  # fmt: skip
    assert [r.step for r in reports] == [3, 4, 6, 7] and told == reports
    assert reports[0].validation == {"ap": 0.25} and reports[1].validation == {}
    assert math.isnan(reports[2].validation["ap"]) and reports[3].validation == {"ap": 0.5}


def test_the_networks_of_the_best_step_are_kept_and_loaded(tmp_path):
    task, values, seen = ToyGAN(), iter([0.1, 0.9, 0.3]), []

    def measure():
        seen.append(weights(task))
        return {"ap": next(values), "loss": 2.0}

    best_by_ap = Validation(every=2, measure=measure, best_by="ap")
    run(task, validate=best_by_ap, checkpoint_dir=tmp_path)
    other = ToyGAN()
    state = checkpoint.load_best(tmp_path, other.networks)
    assert (state["step"], state["validation"]) == (4, {"ap": 0.9, "loss": 2.0})
    assert_same(weights(other), seen[1])
    assert not torch.equal(seen[1]["generator.0.weight"], seen[2]["generator.0.weight"])


def test_a_best_file_that_is_missing_broken_or_of_others_is_refused(tmp_path):
    task = ToyGAN()
    with pytest.raises(CheckpointError, match="found none: was there a validation with best_by"):
        checkpoint.load_best(tmp_path, task.networks)
    state = {k: n.state_dict() for k, n in task.networks.items()}
    path = checkpoint.save_best(tmp_path, {"step": 1, "validation": {}, "networks": state})
    with pytest.raises(CheckpointError, match=r"best-00000001.pt cannot be used: .*size mismatch"):
        checkpoint.load_best(tmp_path, {"generator": nn.Sequential(nn.Conv2d(1, 4, 5))})
    with pytest.raises(CheckpointError, match=r"best-00000001.pt cannot be used: 'judge'"):
        checkpoint.load_best(tmp_path, {"judge": nn.Linear(1, 1)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"best-00000001.pt cannot be used"):
        checkpoint.load_best(tmp_path, task.networks)


def validated(rates, crash_at=None):
    """A task with dropout, and a validation that draws numbers and sees no progress after step 2;
    `rates` gets the learning rate of each step.
    """
    task = ToyGAN(dropout=0.3)
    real_phases = task.phases

    def phases(step, epoch):
        if step == crash_at:
            raise OSError("the power failed")
        rates.append(task.optimizers["critic"].param_groups[0]["lr"])
        return real_phases(step, epoch)

    def measure():
        torch.rand(5)
        return {"loss": 1.0 if task.seen[-1][0] < 2 else 2.0}

    task.phases = phases
    plateau = Plateau(factor=0.5, patience=0)
    return task, Validation(
        every=2, measure=measure, best_by="loss", higher_is_better=False, plateau=plateau
    )


def test_a_run_resumed_between_validations_decides_as_the_uninterrupted_one(tmp_path):
    rates, first_rates, second_rates = [], [], []
    whole, validate = validated(rates)
    reports = run(whole, 9, validate=validate, checkpoint_dir=tmp_path / "a")
    settings = {"checkpoint_dir": tmp_path / "b", "checkpoint_every": 5, "resume": True}
    crashed, validate = validated(first_rates, crash_at=7)
    with pytest.raises(OSError, match="the power failed"):
        run(crashed, 9, validate=validate, **settings)
    resumed, validate = validated(second_rates)
    again = run(resumed, 9, validate=validate, **settings)
    assert rates == [0.01 * f for f in (1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125)]
    assert first_rates == rates[:7] and second_rates == rates[5:]
    assert_same(weights(whole), weights(resumed))
    assert reports[-1].validation == again[-1].validation == {"loss": 2.0}
    saved = [checkpoint.load(tmp_path / name)["validation"] for name in "ab"]
    assert saved[0] == saved[1] and [step for step, _ in saved[0]] == [2, 4, 6, 8, 9]
    best = [checkpoint.load_best(tmp_path / name, ToyGAN().networks)["step"] for name in "ab"]
    assert best == [2, 2]


def test_a_best_of_a_past_that_did_not_last_is_forgotten(tmp_path):
    """It was better at step 4 before the crash, and is worse when that step comes again."""

    def measured(*values):
        left = iter(values)

        def measure():
            value = next(left, None)
            if value is None:
                raise OSError("the power failed")
            return {"ap": value}

        return Validation(every=2, measure=measure, best_by="ap")

    settings = {"checkpoint_dir": tmp_path, "checkpoint_every": 3}
    with pytest.raises(OSError, match="the power failed"):
        run(ToyGAN(), 8, validate=measured(0.5, 0.9, 0.1), checkpoint_dir=tmp_path)
    with pytest.raises(OSError, match="the power failed"):
        run(ToyGAN(), 8, validate=measured(0.5, 0.9), **settings)
    run(ToyGAN(), 8, validate=measured(0.4, 0.3, 0.2), resume=True, **settings)
    assert checkpoint.load_best(tmp_path, ToyGAN().networks)["step"] == 2
    assert len(list(tmp_path.glob("best-*.pt"))) == 1


def test_networks_that_another_run_left_are_not_this_runs_best(tmp_path):
    state = {k: n.state_dict() for k, n in ToyGAN().networks.items()}
    checkpoint.save_best(tmp_path, {"step": 2, "validation": {}, "networks": state})
    nothing = Validation(every=2, measure=lambda: {"ap": float("nan")}, best_by="ap")
    run(ToyGAN(), 4, validate=nothing, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match="found none"):
        checkpoint.load_best(tmp_path, ToyGAN().networks)


def test_a_run_that_goes_on_for_longer_decides_as_one_of_that_length(tmp_path):
    rates, first, second = [], [], []
    whole, validate = validated(rates)
    run(whole, 9, validate=validate)
    shorter, validate = validated(first)
    run(shorter, 5, validate=validate, checkpoint_dir=tmp_path)
    longer, validate = validated(second)
    run(longer, 9, validate=validate, checkpoint_dir=tmp_path, resume=True)
    assert first + second == rates
    assert_same(weights(whole), weights(longer))


def test_a_measure_that_draws_leaves_the_numbers_of_training_alone():
    with_it, validate = validated([])
    run(with_it, 6, validate=replace(validate, best_by=None, plateau=None))
    without, _ = validated([])
    run(without, 6)
    assert_same(weights(with_it), weights(without))


def test_a_resumed_run_with_another_validation_is_refused(tmp_path):
    task, validate = validated([])
    run(task, 4, validate=validate, checkpoint_dir=tmp_path)
    plateau = replace(validate, plateau=Plateau(factor=0.1, patience=0))
    for other, words in (
        (plateau, r"validate.plateau.factor is 0.5 in the checkpoint and 0.1"),
        (replace(validate, every=3), r"validate.every is 2 in the checkpoint and 3"),
        (None, r"validate is {.*} in the checkpoint and None in this run"),
    ):
        with pytest.raises(CheckpointError, match=words):
            run(ToyGAN(), 6, validate=other, checkpoint_dir=tmp_path, resume=True)
