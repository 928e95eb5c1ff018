"""Draws the picture of the README: python book/banner.py (writes book/_static/twins.png)."""

from pathlib import Path

import cv2
import numpy as np
import torch

from cxrtut.data.phantom import CLASSES, ChestPhantom
from cxrtut.viz.images import grey

SHOWN = {"Pneumonia": 104, "Pneumothorax": 117, "Cardiomegaly": 121, "Mass": 130}
OUT = Path(__file__).parent / "_static" / "twins.png"


def main() -> None:
    labels = torch.eye(len(CLASSES))[[CLASSES.index(name) for name in SHOWN]]
    phantom = ChestPhantom(size=256, preset="default", seed=0)
    sample = phantom.sample(torch.tensor(list(SHOWN.values())), labels=labels, severity=1.6)
    columns = []
    for i in range(len(SHOWN)):
        pair = [
            cv2.cvtColor(grey(x[i, 0]), cv2.COLOR_GRAY2BGR) for x in (sample.healthy, sample.image)
        ]
        for x0, y0, x1, y1 in sample.batch().boxes_of(i)[0].int().tolist():
            cv2.rectangle(pair[1], (x0, y0), (x1 - 1, y1 - 1), (0, 176, 255), 1)
        columns.append(np.vstack(pair))
    cv2.imwrite(str(OUT), np.hstack(columns))
    print(OUT)


if __name__ == "__main__":
    main()
