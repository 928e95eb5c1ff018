"""Phases: what they move, what they leave as it was, and what they are given."""

from copy import deepcopy

import pytest
import torch
from engine.toy import ToyGAN, assert_same, run, toy_loader, weights
from torch import nn

from cxrtut.engine.distributed import Ranks
from cxrtut.engine.phase_step import PhaseStep
from cxrtut.engine.precision import Precision
from cxrtut.engine.task import Phase
from cxrtut.engine.validation import Validation
from cxrtut.randomness import seeded, uniforms


class Normed:
    """A body with batch norm and dropout below a head; the phases are given."""

    n_uniforms = 3

    def __init__(self, dropout: float = 0.5, learning_rate: float = 0.01):
        with seeded("normed"):
            self.networks = {
                "body": nn.Sequential(
                    nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(dropout), nn.Flatten()
                ),
                "head": nn.Sequential(nn.Linear(72, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
            }
        self.optimizers = {
            k: torch.optim.SGD(n.parameters(), learning_rate) for k, n in self.networks.items()
        }
        self.chosen, self.modes = [], []

    def phases(self, step, epoch):
        return self.chosen

    def loss(self, batch):
        self.modes.append(modes(self))
        out = self.networks["head"](self.networks["body"](batch.image))
        return (out - 3).square().mean(), {}


def modes(task):
    return [m.training for n in task.networks.values() for m in n.modules()]


def test_a_step_is_one_batch_that_all_its_phases_see():
    task, seen = ToyGAN(), []

    def loss(batch):
        seen.append((batch.image.clone(), batch.index.clone()))
        return task.generator_loss(batch)

    d, g = Phase("D", ("generator",), loss), Phase("G", ("generator",), loss)
    task.phases = lambda step, epoch: [d, g] if (step + 1) % 5 == 0 else [d]
    run(task, 5)
    batches = toy_loader().batches(batch_size=8, seed=0)
    expected = [next(batches) for _ in range(5)]
    for (image, index), batch in zip(seen, [*expected, expected[-1]], strict=True):
        assert torch.equal(image, batch.image) and torch.equal(index, batch.index)


def test_inside_a_phase_exactly_what_it_updates_is_free():
    task, seen = ToyGAN(), []

    def loss(batch):
        free = {k: {p.requires_grad for p in n.parameters()} for k, n in task.networks.items()}
        seen.append(free)
        return task.generator_loss(batch)

    both = ("generator", "critic")
    task.phases = lambda step, epoch: [
        Phase("G", ("generator",), loss), Phase("both", both, loss), Phase("D", ("critic",), loss)
    ]  # fmt: skip
    run(task, 1)
    free = [{k for k, flags in f.items() if flags == {True}} for f in seen]
    frozen = [{k for k, flags in f.items() if flags == {False}} for f in seen]
    assert free == [{"generator"}, set(both), {"critic"}]
    assert frozen == [{"critic"}, set(), {"generator"}]


def test_a_parameter_that_was_frozen_stays_frozen_while_its_network_moves():
    task = ToyGAN()
    task.networks["critic"][0].weight.requires_grad_(False)
    before = weights(task)
    run(task, 2)
    after = weights(task)
    assert torch.equal(before["critic.0.weight"], after["critic.0.weight"])
    assert not torch.equal(before["critic.0.bias"], after["critic.0.bias"])


def test_a_network_in_evaluation_mode_stays_what_it_is():
    task, twice = Normed(), []

    def loss(batch):
        twice.append([task.networks["body"](batch.image) for _ in range(2)])
        return task.loss(batch)

    task.chosen = [Phase("H", ("head",), loss, eval_mode=("body",))]
    before = weights(task)
    run(task, 3)
    after = weights(task)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if key.startswith("head")}
    assert all(torch.equal(one, other) for one, other in twice)  # no dropout
    task.chosen = [Phase("H", ("head",), task.loss)]  # frozen only: its statistics follow the data
    run(task, 1)
    assert not torch.equal(weights(task)["body.1.running_mean"], after["body.1.running_mean"])


def test_the_mode_of_every_single_module_comes_back_after_a_phase_and_a_validation():
    task, during = Normed(), []
    task.networks["head"][1].eval()  # inside a network in training
    expected = modes(task)

    def measure():
        during.append(modes(task))
        return {}

    task.chosen = [
        Phase("evaluated", ("head",), task.loss, eval_mode=("head",)),
        Phase("plain", ("head", "body"), task.loss),
    ]
    before = weights(task)
    run(task, 2, validate=Validation(every=1, measure=measure))
    body = len(list(task.networks["body"].modules()))
    evaluated = [*expected[:body], *[False] * (len(expected) - body)]
    assert task.modes == [evaluated, expected, evaluated, expected] and modes(task) == expected
    assert not any(any(flags) for flags in during)
    assert torch.equal(weights(task)["head.1.running_mean"], before["head.1.running_mean"])

    def broken(batch):
        raise KeyError("broken")

    task.chosen = [Phase("broken", ("head",), broken, eval_mode=("body", "head"))]
    with pytest.raises(KeyError, match="broken"):
        run(task, 1)
    assert modes(task) == expected


@pytest.mark.parametrize("max_norm", [None, 0.25, 1e6])
def test_gradients_of_all_that_moves_are_clipped_together(max_norm):
    task = Normed(dropout=0.0, learning_rate=1.0)
    task.chosen = [Phase("both", ("body", "head"), task.loss, max_norm=max_norm)]
    by_hand = deepcopy(task)
    run(task, 1)
    by_hand.loss(next(toy_loader().batches(batch_size=8, seed=0)))[0].backward()
    parameters = [p for n in by_hand.networks.values() for p in n.parameters()]
    norm = torch.stack([p.grad.square().sum() for p in parameters]).sum().sqrt()
    assert 0.25 < norm < 1e6
    factor = min(1.0, max_norm / float(norm)) if max_norm else 1.0
    moved = [p for n in task.networks.values() for p in n.parameters()]
    for parameter, expected in zip(moved, parameters, strict=True):
        assert torch.allclose(parameter, expected - factor * expected.grad, atol=1e-5)


def test_each_phase_gets_the_numbers_of_its_step_and_place():
    task, seen = Normed(), []

    def loss(batch):
        seen.append(batch.uniforms)
        return task.loss(batch)

    task.chosen = [Phase("A", ("head",), loss), Phase("B", ("head",), loss)]
    run(task, 2, seed=7)
    keys = [(step, position) for step in (0, 1) for position in (0, 1)]
    for numbers, (step, position) in zip(seen, keys, strict=True):
        assert torch.equal(numbers, uniforms(8, 3, seed=7, step=step, position=position))
    task.n_uniforms = 0
    run(task, 1)
    assert seen[-1].shape == (8, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eval_mode": ("judge",)}, "phase 'H', eval_mode: expected one of body, head, got 'judge"),
        ({"max_norm": 0.0}, "phase 'H', max_norm: expected a norm above 0, got 0.0"),
        ({"max_norm": float("nan")}, "max_norm: expected a norm above 0, got nan"),
    ],
)
def test_a_phase_that_cannot_work_is_refused_before_anything_moves(change, words):
    task = Normed()
    task.chosen = [Phase("H", ("head",), task.loss, **change)]
    before = weights(task)
    with pytest.raises(ValueError, match=words):
        run(task)
    assert_same(before, weights(task))


def test_a_phase_whose_terms_change_is_refused():
    task = Normed()

    def loss(batch):
        value, _ = task.loss(batch)
        return value, {f"term {len(task.modes)}": value}

    task.chosen = [Phase("H", ("head",), loss)]
    with pytest.raises(
        ValueError, match="phase 'H': expected the terms loss, term 1 as before, got loss, term 2"
    ):
        run(task)


def test_meters_hold_numbers_and_no_graphs():
    task = Normed()
    steps = PhaseStep(task, torch.device("cpu"), Precision("cpu", None), Ranks())

    def loss(batch):
        value, _ = task.loss(batch)
        return value, {"same": value}

    steps.run(Phase("H", ("head",), loss), next(toy_loader().batches(batch_size=8, seed=0)))
    assert not steps.meters["H"].sums.requires_grad


def test_a_loss_that_is_not_finite_once_is_named_by_that_step():
    task = Normed()

    def once(batch):
        loss, terms = task.loss(batch)
        return loss + (float("inf") if len(task.modes) == 2 else 0.0), terms

    task.chosen = [Phase("H", ("head",), once)]
    with pytest.raises(ArithmeticError, match="first in phase 'H' at step 2;"):
        run(task, 6, report_every=6)
    assert len(task.modes) == 6


def test_of_two_losses_that_are_not_finite_in_one_step_the_first_phase_is_named():
    task = Normed()

    def infinite(batch):
        return task.loss(batch)[0] * float("inf"), {}

    task.chosen = [Phase("Z", ("head",), infinite), Phase("A", ("head",), infinite)]
    with pytest.raises(ArithmeticError, match="first in phase 'Z' at step 1;"):
        run(task)
