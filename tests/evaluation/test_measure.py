"""Measures of systems, also with the help of a judge."""

import numpy as np
import torch
from evaluation.answers import Answers, split_by_hand
from torch import nn

from cxrtut.data.store import ArrayStore
from cxrtut.evaluation.measure import JudgedMeasure, Measure, device_of, predictions


def split_of(n=6):
    labels = (np.arange(n) % 2).astype(np.uint8)[:, None]
    store = ArrayStore.from_arrays(np.zeros((n, 1, 4, 4), np.uint8), labels, ("A",))
    return split_by_hand(store, [0], range(1, n))


def test_a_judged_measure_is_a_measure_once_it_has_a_judge_and_each_keeps_its_place():
    told = []

    def measure(*asked):
        told.append(asked)
        return {"x": 1.0}

    split = split_of()
    system, judge, other = (Answers(split) for _ in range(3))
    judged = JudgedMeasure("validation", measure, {"x": "lower"})
    for someone in (judge, other):
        made = judged.by(someone)
        assert isinstance(made, Measure) and made.side == "validation"
        assert made.better == {"x": "lower"}
        assert made.measure(system, split, "test") == {"x": 1.0}
    assert told == [(system, judge, split, "test"), (system, other, split, "test")]


def test_answers_for_all_rows_are_joined_in_their_order():
    split = split_of(200)
    rows = split.test[::-1].copy()
    scores = torch.rand(199, 1)
    system = Answers(split, scores=scores)
    found = predictions(system, split, rows)
    assert torch.equal(found.scores, scores.flip(0)) and found.heatmap is None
    assert found.boxes is None and predictions(system, split, rows[:0]).scores is None


def test_a_system_is_where_its_networks_are():
    system = Answers(split_of())
    assert device_of(system) == torch.device("cpu")
    system.networks["none"] = nn.ReLU()
    system.networks["far"] = nn.Linear(1, 1, device="meta")
    assert device_of(system) == torch.device("meta")
    system.networks = {"buffers": nn.BatchNorm2d(1, affine=False, device="meta")}
    assert device_of(system) == torch.device("meta")
