"""A slider over images that needs no kernel: everything it shows is in its own HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8

Picture = UInt8[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]

# Attributes of the range input. They act on their own figure alone, look nothing up by name, and so
# hold for any number of sliders, in a page, in a notebook, and in the output frame of Colab.
LOAD_ALL = (
    "this.closest('figure').querySelectorAll('img').forEach(img => { img.loading = 'eager'; })"
)
SHOW_CHOSEN = (
    "this.closest('figure').querySelectorAll('img').forEach((img, i) => {"
    " img.loading = 'eager'; img.hidden = i !== +this.value; if (img.hidden) return;"
    " this.setAttribute('aria-valuetext', img.dataset.state);"
    " this.closest('figure').querySelector('.state').textContent = img.dataset.state; })"
)


def png(image: Picture) -> bytes:
    """A grey or RGB image as the bytes of a PNG file."""
    return _encoded(image, ".png", [])


def smallest_file(image: Picture) -> tuple[str, bytes]:
    """The format, `png` or `webp`, in which the image takes fewer bytes, and these bytes.

    Both keep every value.
    """
    import cv2

    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101]
    files = {"png": png(image), "webp": _encoded(image, ".webp", lossless)}
    return min(files.items(), key=lambda item: len(item[1]))


def _encoded(image: Picture, extension: str, options: list[int]) -> bytes:
    import cv2

    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(extension, stored, options)
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be written as {extension}")
    return data.tobytes()


def montage(
    images: UInt8[np.ndarray, "N H W *channels"], columns: int
) -> UInt8[np.ndarray, "h w *channels"]:
    """Images in rows of `columns`; the last row is filled up with black."""
    n, height, width, *channels = images.shape
    rows = -(-n // columns)
    filled = np.zeros((rows * columns, height, width, *channels), np.uint8)
    filled[:n] = images
    grid = filled.reshape(rows, columns, height, width, *channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, *channels)


@dataclass(frozen=True, repr=False)
class ImageSlider:
    """Images of which a range input shows one. A notebook displays it as HTML, a terminal as text.

    Attributes:
        frames: The images, grey or RGB, all of one size.
        states: What each image shows, in words, such as `severity 1.6`; spoken and shown.
        description: The name of what the slider changes.
        start: The index of the image that is shown first.
        caption: The figure's caption.
        alt: What can be seen in every image, for readers who do not see it; the state is added.
    """

    frames: Sequence[Picture]
    states: Sequence[str]
    description: str
    start: int
    caption: str
    alt: str

    def __repr__(self) -> str:
        first, last = self.states[0], self.states[-1]
        return f"{self.caption} [slider: {self.description}, from {first!r} to {last!r}]"

    def _repr_html_(self) -> str:
        state, last = escape(self.states[self.start]), len(self.frames) - 1
        width = 2 * self.frames[0].shape[1]
        return (
            f'<figure class="image-slider" style="max-width: min(100%, {width}px); margin: 1em 0">'
            f"{''.join(map(self._image, range(len(self.frames))))}"
            '<label style="display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.8em;'
            f' margin: 0.3em 0">{escape(self.description)} '
            f'<input type="range" min="0" max="{last}" value="{self.start}" step="1"'
            f' autocomplete="off" aria-valuetext="{state}" onfocus="{escape(LOAD_ALL)}"'
            f' oninput="{escape(SHOW_CHOSEN)}"'
            ' style="flex: 1 1 12em; max-width: 30em; height: 28px; margin: 0"></label>'
            f'<div class="state">{state}</div><figcaption>{escape(self.caption)}</figcaption>'
            "</figure>"
        )

    def _image(self, index: int) -> str:
        form, data = smallest_file(self.frames[index])
        height, width = self.frames[index].shape[:2]
        address = f"data:image/{form};base64,{base64.b64encode(data).decode()}"
        state = escape(self.states[index])
        alt = f"{escape(self.alt.rstrip('. '))}: {state}"
        return (
            f'<img src="{address}" alt="{alt}" data-state="{state}"'
            f' width="{width}" height="{height}" style="width: 100%; height: auto"'
            f"{'' if index == self.start else ' hidden'}>"
        )


def image_slider(
    frames: Sequence[Picture],
    states: Sequence[str],
    description: str,
    start: int = 0,
    *,
    caption: str,
    alt: str,
) -> ImageSlider:
    """A slider over images of one size; below it stands the state of the image that is shown.

    Args:
        frames: The images, grey (H x W) or RGB (H x W x 3).
        states: One text per image: what the slider's value means there.
        description: What the slider changes; its label.
        start: The index of the image that is shown first.
        caption: The figure's caption, which begins with its number: `Figure 3. ...`.
        alt: The alternative text of every image; its state is added.

    Raises:
        ValueError: the number of states differs from that of the images, the images differ in size,
            `start` is none of them, or caption, description or alternative text is empty.
    """
    if not frames or len(frames) != len(states):
        raise ValueError(
            f"expected one state for each frame and at least one, got {len(states)} states and"
            f" {len(frames)} frames"
        )
    if len(shapes := {frame.shape[:2] for frame in frames}) > 1:
        raise ValueError(f"expected frames of one size, got {sorted(shapes)}")
    if not 0 <= start < len(frames):
        raise ValueError(f"expected a start from 0 to {len(frames) - 1}, got {start}")
    for name, text in {"description": description, "caption": caption, "alt": alt}.items():
        if not text.strip():
            raise ValueError(f"expected a text for {name}, got an empty one")
    return ImageSlider(frames, states, description, start, caption, alt)
