"""The same boxes, whatever the image."""

import pytest
import torch

from cxrtut.baselines.same_boxes import SameBoxes
from cxrtut.data.sample import System

BOXES = torch.tensor([[1.0, 2, 5, 6], [0, 0, 8, 3]])


def test_every_image_has_every_class_at_its_box_and_equally_sure():
    system = SameBoxes(BOXES, ("A", "B"), size=16, channels=1)
    assert isinstance(system, System)
    found = system.predict(torch.rand(3, 1, 16, 16))
    assert len(found.boxes) == 3 and found.heatmap is found.scores is found.image is None
    for one in found.boxes:
        assert torch.equal(one.boxes, BOXES)
        assert one.labels.tolist() == [0, 1] and one.scores.tolist() == [1, 1]


def test_a_file_of_weights_holds_the_boxes():
    fresh = SameBoxes(torch.zeros(2, 4), ("A", "B"), size=16, channels=1)
    state = SameBoxes(BOXES, ("A", "B"), size=16, channels=1).networks["boxes"].state_dict()
    fresh.networks["boxes"].load_state_dict(state)
    assert torch.equal(fresh.predict(torch.rand(1, 1, 16, 16)).boxes[0].boxes, BOXES)


def test_a_class_without_a_box_is_refused():
    with pytest.raises(ValueError, match="boxes: expected one for each of 3 classes, got 2"):
        SameBoxes(BOXES, ("A", "B", "C"), size=16, channels=1)
