"""A detector as a task and as a system: the classes of its boxes, and what it learns."""

import pytest
import torch
from baselines.squares import Squares, batch_of
from torch import nn

from cxrtut.baselines.box_detector import BoxDetector, DetectionTask
from cxrtut.data.sample import System
from cxrtut.engine.loop import train
from cxrtut.engine.task import check_task
from cxrtut.metrics.detection import iou_matrix
from cxrtut.nn.detectors import faster_rcnn
from cxrtut.nn.pyramids import SmallPyramid

CLASSES = ("Effusion", "Mass")


def detector(seed=0):
    torch.manual_seed(seed)
    return faster_rcnn(SmallPyramid(1, 8, 16), 2, 32, sizes=[(8, 12, 16)], head=32)


def test_a_box_without_area_which_torchvision_refuses_is_left_out():
    flat = batch_of([[[2, 2, 2, 9], [2, 2, 9, 9]]], [[0, 1]])
    DetectionTask(detector()).loss(flat)


@pytest.fixture(scope="module")
def trained():
    task = DetectionTask(detector(), learning_rate=3e-3)
    reports = train(task, Squares(), steps=120, batch_size=12, seed=0, report_every=20)
    return BoxDetector(task.networks["detector"], CLASSES, size=32, channels=1), reports


def test_it_learns_where_and_what(trained):
    system, reports = trained
    assert {"detector/classifier", "detector/box_reg", "detector/objectness"} <= set(
        reports[0].terms
    )
    assert reports[-1].terms["detector/classifier"] < reports[0].terms["detector/classifier"] / 2
    batch = next(Squares().batches(batch_size=30, seed=7))
    found = system.predict(batch.image).boxes
    there = [i for i in range(30) if batch.label_vector[i].any()]
    overlap = [iou_matrix(found[i].boxes[:1], batch.boxes_of(i)[0]).item() for i in there]
    assert all(found[i].labels[0] == batch.boxes_of(i)[1][0] for i in there)
    assert sum(overlap) / len(overlap) > 0.6


def test_a_class_has_the_score_of_its_surest_box_and_none_where_there_is_no_box(trained):
    system, _ = trained
    batch = next(Squares().batches(batch_size=30, seed=8))
    found = system.predict(batch.image)
    for row, boxes in zip(found.scores, found.boxes, strict=True):
        for k in (0, 1):
            of_class = boxes.scores[boxes.labels == k]
            assert row[k] == (of_class.max() if len(of_class) else 0)
    assert (found.scores.argmax(1) == batch.label_vector.argmax(1))[batch.label_vector.any(1)].all()


def test_an_answer_needs_no_gradient_and_leaves_the_mode_as_it_was(trained):
    system, _ = trained
    network = system.networks["detector"].train()
    found = system.predict(torch.zeros(2, 1, 32, 32))
    assert network.training and not found.scores.requires_grad
    empty = system.predict(torch.zeros(0, 1, 32, 32))
    assert empty.boxes == () and empty.scores.shape == (0, 2)
    assert isinstance(system, System)


def test_it_is_a_task_whose_gradients_are_clipped_and_whose_rate_falls():
    task = DetectionTask(detector(), max_norm=0.25, rate=lambda step: 1 / (step + 1))
    check_task(task)
    (phase,) = task.phases(3, 0)
    assert phase.max_norm == 0.25 and phase.updates == ("detector",)
    assert task.schedule(3) == {"detector": 0.25}


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_is_the_one_that_was_asked_for(name, kind):
    made = DetectionTask(nn.Linear(2, 2), optimizer=name, learning_rate=0.5).optimizers["detector"]
    assert isinstance(made, kind) and made.param_groups[0]["lr"] == 0.5
    assert name == "adamw" or made.param_groups[0]["momentum"] == 0.9


def test_another_optimiser_is_refused():
    with pytest.raises(ValueError, match="optimizer: expected one of adamw, sgd, got 'adam'"):
        DetectionTask(nn.Linear(2, 2), optimizer="adam")


def test_it_keeps_copies_of_its_states_after_the_steps_that_were_asked_for():
    network = detector()
    system = BoxDetector(network, CLASSES, size=32, channels=1)
    system.keep_at = frozenset({2, 5})
    weight = next(network.parameters())
    for value in range(7):
        weight.data.fill_(value)
        system.keep(value)
    name = next(iter(network.state_dict()))
    assert {k: float(state[name].mean()) for k, state in system.kept.items()} == {2: 2, 5: 5}
    assert set(system.kept[2]) == set(network.state_dict())


def test_a_task_tells_how_many_steps_were_done_before_each():
    told = []
    task = DetectionTask(detector(), before_step=told.append)
    train(task, Squares(), steps=3, batch_size=2)
    assert told == [0, 1, 2]
    assert list(DetectionTask(detector()).phases(0, 0))
