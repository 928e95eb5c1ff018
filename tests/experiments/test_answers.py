"""Answers as files that anybody can open."""

import json

import cv2
import numpy as np
import torch

from cxrtut.data.sample import Detections, Prediction
from cxrtut.experiments.answers import AMBER, write_answer


def test_every_class_has_a_file_of_its_own_whatever_it_is_called(tmp_path):
    cv2.imwrite(str(tmp_path / "film.png"), np.full((8, 6), 100, np.uint8))
    classes = ("Nodule/Mass", "Nodule Mass", "Edema")
    answer = Prediction(scores=torch.rand(1, 3).double(), heatmap=torch.rand(1, 3, 8, 6))
    write_answer(tmp_path / "film.png", answer, classes, tmp_path / "out")
    found = {path.name for path in tmp_path.glob("out*")}
    stems = ("Nodule_Mass-0", "Nodule_Mass-1", "Edema")
    assert found == {"out.json", *(f"out-{s}{end}.png" for s in stems for end in ("", "-heat"))}
    assert list(json.loads((tmp_path / "out.json").read_text())["scores"]) == list(classes)


def test_an_image_of_three_channels_is_written_in_its_colours(tmp_path):
    cv2.imwrite(str(tmp_path / "film.png"), np.zeros((4, 4, 3), np.uint8))
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 4, 4)
    write_answer(tmp_path / "film.png", Prediction(image=red), ("A",), tmp_path / "out")
    shown = cv2.imread(str(tmp_path / "out-image.png"), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (4, 4, 3) and (shown == [0, 0, 255]).all()  # OpenCV: blue first


def test_scores_boxes_and_heat_are_those_of_their_class(tmp_path):
    cv2.imwrite(str(tmp_path / "film.png"), np.zeros((40, 40), np.uint8))
    heat = torch.zeros(1, 2, 40, 40)
    heat[0, 0, 28, 30], heat[0, 1, 6, 4] = 0.5, 2.0
    boxes = Detections(
        boxes=torch.tensor([[2.0, 3, 12, 12], [20, 18, 36, 38]]),
        scores=torch.tensor([0.5, 0.25]), labels=torch.tensor([1, 0]),
    )  # fmt: skip
    scores = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    answer = Prediction(scores=scores, heatmap=heat, boxes=(boxes,))
    told = write_answer(tmp_path / "film.png", answer, ("A", "B"), tmp_path / "out")
    assert told == "film.png: A 0.250, B 0.750, 2 boxes"
    about = json.loads((tmp_path / "out.json").read_text())
    assert about["scores"] == {"A": 0.25, "B": 0.75}
    assert about["boxes"] == [
        {"class": "B", "xyxy": [2, 3, 12, 12], "score": 0.5},
        {"class": "A", "xyxy": [20, 18, 36, 38], "score": 0.25},
    ]
    for name, hottest, own, other in (("A", (28, 30), (18, 20), (3, 2)),
                                      ("B", (6, 4), (3, 2), (18, 20))):  # fmt: skip
        shown = cv2.imread(str(tmp_path / f"out-{name}-heat.png"), cv2.IMREAD_UNCHANGED)
        assert np.argwhere(shown == 255).tolist() == [list(hottest)]
        over = cv2.imread(str(tmp_path / f"out-{name}.png"))
        assert over[own].tolist() == list(AMBER) != over[other].tolist()
