"""Answers as files that anybody can open."""

import json

import cv2
import numpy as np
import torch

from cxrtut.data.sample import Prediction
from cxrtut.experiments.answers import write_answer


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
