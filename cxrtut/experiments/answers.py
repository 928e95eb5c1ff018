"""What a system says of a film, as files that anybody can open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from cxrtut.data.decode import decode_image
from cxrtut.data.sample import Prediction, to_uint8
from cxrtut.files import atomic_write, plain_name

OPACITY = 0.6  # of the hottest place
AMBER = (0, 176, 255)  # BGR


def write_answer(film: Path, answer: Prediction, classes: Sequence[str], stem: Path) -> str:
    """Writes `<stem>.json` (scores and boxes), and for each class with heat `<stem>-<class>.png`
    (the film, the heat and the box over it) and `<stem>-<class>-heat.png`; `<stem>-image.png` where
    the system gives an image.

    Args:
        film: the file that was asked about.
        answer: in the film's own pixels.
        classes: of the answer.
        stem: of the files.

    Returns:
        A line that says what was found.
    """
    about: dict[str, object] = {"film": film.name, "classes": list(classes)}
    words = []
    if answer.scores is not None:
        scores = answer.scores[0].tolist()
        about["scores"] = dict(zip(classes, scores, strict=True))
        words += [f"{name} {p:.3f}" for name, p in zip(classes, scores, strict=True)]
    boxes = None if answer.boxes is None else answer.boxes[0]
    if boxes is not None:
        about["boxes"] = [
            {"class": classes[k], "xyxy": [round(v, 2) for v in box], "score": score}
            for box, score, k in zip(
                boxes.boxes.tolist(), boxes.scores.tolist(), boxes.labels.tolist(), strict=True
            )
        ]
        words.append(f"{len(boxes.boxes)} boxes")
    with atomic_write(stem.with_name(f"{stem.name}.json")) as file:
        file.write((json.dumps(about, indent=2) + "\n").encode())
    if answer.heatmap is not None:
        picture = decode_image(film)
        for k, name in enumerate(classes):
            heat = _unit(answer.heatmap[0, k])
            own = [] if boxes is None else boxes.boxes[boxes.labels == k].round().int().tolist()
            plain = plain_name(name)
            if plain in map(plain_name, [*classes[:k], *classes[k + 1 :]]):
                plain = f"{plain}-{k}"
            _write(stem.with_name(f"{stem.name}-{plain}-heat.png"), (heat * 255).astype(np.uint8))
            _write(stem.with_name(f"{stem.name}-{plain}.png"), _overlay(picture, heat, own))
    if answer.image is not None:
        image = to_uint8(answer.image[0].cpu()).permute(1, 2, 0).flip(2).numpy()
        _write(stem.with_name(f"{stem.name}-image.png"), image)
    return f"{film.name}: {', '.join(words)}"


def _unit(heat: Float[Tensor, "H W"]) -> Float[np.ndarray, "H W"]:
    values = heat.cpu().float().numpy()
    return values / max(float(values.max()), 1e-12)


def _overlay(
    picture: UInt8[np.ndarray, "H W"],
    heat: Float[np.ndarray, "H W"],
    boxes: Sequence[Sequence[int]],
) -> UInt8[np.ndarray, "H W 3"]:
    base = np.repeat(picture[..., None], 3, axis=2).astype(np.float32)
    colour = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = OPACITY * heat[..., None]
    mixed = np.ascontiguousarray(((1 - weight) * base + weight * colour).astype(np.uint8))
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(mixed, (x0, y0), (x1 - 1, y1 - 1), (0, 0, 0), 4)
        cv2.rectangle(mixed, (x0, y0), (x1 - 1, y1 - 1), AMBER, 2)
    return mixed


def _write(path: Path, picture: np.ndarray) -> None:
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise OSError(f"cannot write {path}")
    with atomic_write(path) as file:
        file.write(data.tobytes())
