"""The average box of each class, whatever the image shows."""

import pytest
import torch

from cxrtut.baselines.average_boxes import AverageBoxes
from cxrtut.data.sample import System
from cxrtut.records.weights import Description, load_networks, save_system

MAPS = torch.zeros(2, 4, 4)
MAPS[0, 0:2, 1:4], MAPS[1, 2:4, 0:1] = 1.0, 1.0
FOR = {"classes": ("A", "B"), "size": 4}


def test_every_image_has_the_same_maps_one_for_each_class_and_no_score():
    system = AverageBoxes(MAPS, **FOR, channels=3)
    found = system.predict(torch.rand(5, 3, 4, 4))
    assert isinstance(system, System) and (system.size, system.channels) == (4, 3)
    assert found.heatmap.shape == (5, 2, 4, 4) and found.scores is None and found.image is None
    assert all(torch.equal(heat, MAPS) for heat in found.heatmap)


def test_maps_of_few_cells_are_enlarged_edge_on_edge():
    heat = AverageBoxes(MAPS, **FOR).predict(torch.rand(1, 1, 12, 8)).heatmap[0]
    assert heat.shape == (2, 12, 8)
    # Half way between the middles of a cell inside and of one outside the heat is a half
    assert heat[0, 0].tolist() == [0, 0.25, 0.75, 1, 1, 1, 1, 1]
    assert (heat[0, :, -1] > 0.5).tolist() == [True] * 6 + [False] * 6
    assert heat[0, 5, -1] < 1 and heat[0, 6, -1] > 0


def test_boxes_go_through_a_file_of_weights(tmp_path):
    path = tmp_path / "boxes.safetensors"
    save_system(AverageBoxes(MAPS, **FOR), Description("any", "box", {}, FOR["classes"]), path)
    empty = AverageBoxes(torch.zeros(2, 0, 0), **FOR)
    load_networks(empty, path)
    assert torch.equal(empty.predict(torch.rand(1, 1, 4, 4)).heatmap[0], MAPS)


def test_boxes_that_nobody_has_learnt_and_maps_of_other_classes_are_refused():
    empty = AverageBoxes(torch.zeros(2, 0, 0), **FOR)
    with pytest.raises(ValueError, match=r"learnt or loaded, got \(1, 2, 0, 0\)"):
        empty.predict(torch.rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match="maps: expected one for each of 2 classes, got 3"):
        AverageBoxes(torch.zeros(3, 4, 4), **FOR)
