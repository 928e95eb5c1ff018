"""Draws the pictures of README and front page: python book/banner.py (writes into book/_static).

`twins.webp`, and for each chapter a thumbnail. All images are simulated; heat and difference come
from the networks whose weights are in book/weights.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

import cxrtut
from cxrtut.data.phantom import CLASSES, ChestPhantom
from cxrtut.foundations.adversarial import LIMIT, Ring
from cxrtut.viz.images import grey

SHOWN = {"Pneumonia": 104, "Pneumothorax": 117, "Cardiomegaly": 121, "Mass": 130}
STATIC = Path(__file__).parent / "_static"
HALF, HEIGHT = 180, 200  # pixels of one of the two parts of a thumbnail
AMBER, CYAN = (0, 176, 255), (255, 220, 60)  # BGR
Colours = UInt8[np.ndarray, "H W 3"]


def chests(names: dict[str, int], preset: str) -> tuple[list[Colours], list[Colours], torch.Tensor]:
    """Healthy twins, the same with these diseases outlined by their boxes, and the images."""
    labels = torch.eye(len(CLASSES))[[CLASSES.index(name) for name in names]]
    phantom = ChestPhantom(size=256, preset=preset, seed=0)
    sample = phantom.sample(torch.tensor(list(names.values())), labels=labels, severity=1.6)
    healthy, ill = (
        [cv2.cvtColor(grey(x[0]), cv2.COLOR_GRAY2BGR) for x in images]
        for images in (sample.healthy, sample.image)
    )
    for i, picture in enumerate(ill):
        for x0, y0, x1, y1 in sample.batch().boxes_of(i)[0].int().tolist():
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), (0, 0, 0), 5)
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), AMBER, 3)
    return healthy, ill, sample.image


def heated(image: Float[torch.Tensor, "1 H W"], heat: Float[torch.Tensor, "H W"]) -> Colours:
    """Heat over a radiograph, clear where it is none."""
    values = (heat / heat.max().clamp(min=1e-9)).numpy()
    base = cv2.cvtColor(grey(image[0]), cv2.COLOR_GRAY2BGR)
    colour = cv2.applyColorMap((255 * values).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = 0.75 * values[..., None]
    return ((1 - weight) * base + weight * colour).astype(np.uint8)


def points(at: Float[torch.Tensor, "n 2"], colour: tuple[int, int, int]) -> Colours:
    """Points of the plane on black."""
    picture = np.zeros((256, 256, 3), np.uint8)
    for x, y in ((at + LIMIT) * (256 / (2 * LIMIT))).int().tolist():
        cv2.circle(picture, (x, 255 - y), 2, colour, -1, cv2.LINE_AA)
    return picture


def thumbnail(name: str, left: Colours, right: Colours) -> None:
    """The middle of two pictures, side by side."""
    halves = []
    for picture in (left, right):
        scaled = cv2.resize(picture, (HEIGHT, HEIGHT), interpolation=cv2.INTER_AREA)
        spare = (HEIGHT - HALF) // 2
        halves.append(scaled[:, spare : spare + HALF])
    save(f"chapter_{name}", np.hstack(halves), quality=88)


def save(name: str, picture: Colours, quality: int) -> None:
    path = STATIC / f"{name}.webp"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_WEBP_QUALITY, quality])
    print(f"{path}  {path.stat().st_size / 1000:.0f} KB")


def main() -> None:
    healthy, ill, _ = chests(SHOWN, "default")
    save("twins", np.vstack([np.hstack(healthy), np.hstack(ill)]), quality=90)
    thumbnail("radiograph", healthy[1], ill[1])
    easy, outlined, images = chests({"Pneumonia": 104, "Cardiomegaly": 121}, "easy")
    image = images[:1]
    cam = cxrtut.load("biomarker/CAM").predict(image).heatmap
    difference = cxrtut.load("biomarker/G-D-C").predict(image).heatmap
    masked = cxrtut.load("disease_masks/aligned + DM").predict(images[1:]).heatmap
    changed = cxrtut.load("pillet_gan/PILLET-GAN").predict(image).heatmap
    assert cam is not None and difference is not None
    assert masked is not None and changed is not None
    thumbnail("looking_inside", outlined[0], heated(image[0], cam.reshape(-1, 256, 256)[0]))
    thumbnail("biomarker", easy[0], heated(image[0], difference.reshape(-1, 256, 256)[0]))
    thumbnail(
        "disease_masks", outlined[1], heated(images[1], masked[0, CLASSES.index("Cardiomegaly")])
    )
    thumbnail("pillet_gan", outlined[0], heated(image[0], changed.reshape(-1, 256, 256)[0]))
    start = 0.35 * torch.randn(240, 2, generator=torch.Generator().manual_seed(0))
    ring = Ring().points(400, 0).flatten(1)
    thumbnail("adversarial", points(start, AMBER), points(ring, CYAN))


if __name__ == "__main__":
    main()
