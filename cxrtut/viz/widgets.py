"""Controls that work in the published page, where no kernel runs: everything they show is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from ipywidgets import DOMWidget


def png(image: UInt8[np.ndarray, "H W"]) -> bytes:
    """A grey image as the bytes of a PNG file."""
    import cv2

    done, data = cv2.imencode(".png", image)
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be written as PNG")
    return data.tobytes()


def montage(images: UInt8[np.ndarray, "N H W"], columns: int) -> UInt8[np.ndarray, "h w"]:
    """Images in rows of `columns`; the last row is filled up with black."""
    n, height, width = images.shape
    rows = -(-n // columns)
    filled = np.zeros((rows * columns, height, width), np.uint8)
    filled[:n] = images
    return filled.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, -1)


def image_slider(
    frames: Sequence[UInt8[np.ndarray, "H W"]],
    captions: Sequence[str],
    description: str,
    start: int = 0,
) -> DOMWidget:
    """A slider over images of one size; the caption below names the value.

    The link between slider and image is made in the browser (`jslink`), so that it works in a page
    that was built once and has no kernel.
    """
    import ipywidgets as widgets

    if not frames or len(frames) != len(captions):
        raise ValueError(
            f"as many captions as frames are needed, got {len(captions)}, {len(frames)}"
        )
    stack_type = getattr(widgets, "Stack", widgets.Tab)  # ipywidgets 7 has no Stack
    layout = {"width": "100%", "max_width": f"{2 * frames[0].shape[1]}px"}
    pages = [
        widgets.VBox(
            [
                widgets.Image(value=png(frame), format="png", layout=layout),
                widgets.Label(value=caption),
            ]
        )
        for frame, caption in zip(frames, captions, strict=True)
    ]
    stack = stack_type(children=pages, selected_index=start)
    slider = widgets.IntSlider(
        value=start,
        min=0,
        max=len(frames) - 1,
        description=description,
        readout=False,
        style={"description_width": "initial"},
        layout={"width": "100%", "max_width": "480px"},
    )
    widgets.jslink((slider, "value"), (stack, "selected_index"))
    return widgets.VBox([slider, stack])
