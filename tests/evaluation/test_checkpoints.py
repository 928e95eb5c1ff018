"""The best of several checkpoints, chosen on the images that are scored."""

import math

import pytest
import torch
from evaluation.answers import rows_of
from evaluation.localised import study_of
from torch import nn

from cxrtut.data.sample import Detections, Prediction
from cxrtut.evaluation.checkpoints import best_of_checkpoints, best_of_checkpoints_measure
from cxrtut.evaluation.detection import detection


class State(nn.Module):
    """One number: which classes are found."""

    def __init__(self, found):
        super().__init__()
        self.register_buffer("found", torch.tensor(found))


class ByState:
    """Finds class 0 where the number is 0, class 1 where it is 1, both where it is 2."""

    def __init__(self, study, now, kept):
        self.classes, self.size, self.channels = study.classes, study.size, study.channels
        self.networks = {"detector": State(now)}
        self.kept = {step: State(value).state_dict() for step, value in enumerate(kept)}
        self.keep_at = frozenset(self.kept)

    def predict(self, images):
        now = int(self.networks["detector"].found)
        labels = torch.tensor([0, 1] if now == 2 else [now] if now < 2 else [], dtype=torch.int64)
        boxes = torch.tensor([[0.0, 0, 10, 10]]).expand(len(labels), 4)
        one = Detections(boxes, torch.ones(len(labels)), labels)
        return Prediction(boxes=tuple(one for _ in rows_of(images)))


@pytest.fixture
def study():
    whole = (0.0, 0.0, 10.0, 10.0)
    return study_of((1, 0, *whole), (2, 1, *whole), n=4)


def test_each_class_and_the_mean_have_the_state_that_is_best_for_them(study):
    system = ByState(study, 3, [0, 1])
    found = best_of_checkpoints(system, study, "test")
    assert found["cl_best@0.1/A"] == found["cl_best@0.1/B"] == 1
    assert found["cl_best@0.1"] == 0.5  # no state finds both
    assert math.isnan(found["cl_best@0.1/C"])
    assert best_of_checkpoints(ByState(study, 3, [0, 2]), study, "test")["cl_best@0.1"] == 1


def test_the_present_state_counts(study):
    found = best_of_checkpoints(ByState(study, 2, [0]), study, "test")
    assert found["cl_best@0.1"] == found["cl_best@0.1/B"] == 1


def test_the_network_is_afterwards_as_it_was(study):
    system = ByState(study, 3, [0, 1])
    best_of_checkpoints(system, study, "test")
    assert int(system.networks["detector"].found) == 3
    assert detection(system, study, "test")["cl@0.1"] == 0


def test_nothing_of_a_system_that_kept_no_state_and_of_images_without_boxes(study):
    measure = best_of_checkpoints_measure("test")
    assert measure.measure(ByState(study, 0, []), study, "test") == {}
    resumed = ByState(study, 0, [0, 1])
    del resumed.kept[0]
    assert measure.measure(resumed, study, "test") == {}
    bare = ByState(study, 0, [])
    del bare.kept
    assert measure.measure(bare, study, "test") == {}
    assert measure.measure(ByState(study, 0, [0]), study_of(n=4), "test") == {}
    assert measure.better == {"cl_best@0.1": "higher"}


def test_an_error_on_the_way_leaves_the_network_as_it_was(study):
    system = ByState(study, 3, [0])
    system.predict = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        best_of_checkpoints(system, study, "test")
    assert int(system.networks["detector"].found) == 3
