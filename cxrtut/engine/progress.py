"""What people see of a run: a bar where somebody watches, plain lines where nobody does, a line at
the end where what is shown is kept, JSON lines on the disk, and pictures at fixed inputs.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cxrtut.engine.task import Report

UNWATCHED = "CXRTUT_UNWATCHED"
"""The environment variable that says, set to anything, that nobody watches: what is shown is kept,
as on the pages of the book.
"""


@runtime_checkable
class Stream(Protocol):
    """Where lines can be written to."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


def progress(name: str, stream: Stream | None = None) -> Callable[[Report], None]:
    """A bar in a notebook or a terminal, else plain lines; where the environment variable
    `UNWATCHED` is set, one line at the end.

    Args:
        name: what is trained.
        stream: where to; the standard error stream by default, for the line at the end the
            standard output.
    """
    if os.environ.get(UNWATCHED):
        return LastLine(name, sys.stdout if stream is None else stream)
    stream = sys.stderr if stream is None else stream
    if _in_notebook() or stream.isatty():
        return Bar(name)
    return Lines(name, stream)


class Bar:
    """A progress bar with the loss of each phase beside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: Any = None

    def __call__(self, report: Report) -> None:
        if self.bar is None:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=report.steps, desc=self.name, unit="step", leave=True)
        self.bar.update(report.step - self.bar.n)
        losses = {k.removesuffix("/loss"): v for k, v in report.terms.items() if "/loss" in k}
        self.bar.set_postfix_str(", ".join(f"{k} {v:.3g}" for k, v in losses.items()))
        if report.step == report.steps:
            self.bar.close()


class LastLine:
    """One line when all is done."""

    def __init__(self, name: str, stream: Stream) -> None:
        self.name, self.stream = name, stream

    def __call__(self, report: Report) -> None:
        if report.step == report.steps:
            print(
                f"{self.name}: {report.steps} steps in {report.seconds:.0f} s",
                file=self.stream,
                flush=True,
            )


class Lines:
    """One line for a report."""

    def __init__(self, name: str, stream: Stream) -> None:
        self.name, self.stream = name, stream

    def __call__(self, report: Report) -> None:
        share = (report.steps - report.step) / max(report.step, 1)
        print(
            f"{self.name}: step {report.step} of {report.steps} (epoch {report.epoch}), "
            f"{report.images_per_second:.0f} images/s, about {report.seconds * share:.0f} s to go; "
            f"{terms_text(report)}",
            file=self.stream,
            flush=True,
        )


class JsonLines:
    """Appends each report to a file, a JSON object to the line.

    When a run is resumed, the lines after the step it resumes from are of a past that did not last;
    `read` leaves them out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, report: Report) -> None:
        line = {
            "step": report.step, "epoch": report.epoch, "seconds": round(report.seconds, 3),
            "images_per_second": round(report.images_per_second, 2), "memory": report.memory,
            "terms": _null_if_not_finite(report.terms),
            "validation": _null_if_not_finite(report.validation),
        }  # fmt: skip
        text = json.dumps(line) + "\n"
        with open(self.path, "ab+") as file:  # a line that power cut off ends here
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                text = "\n" + text
            file.write(text.encode())

    def read(self) -> list[dict[str, Any]]:
        """All lines that are whole, one for each step: the last one written."""
        lines: dict[int, dict[str, Any]] = {}
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:  # the line that was being written when power failed
                    continue
                lines = {step: old for step, old in lines.items() if step < line["step"]}
                lines[line["step"]] = line
        return list(lines.values())


class SampleGrid:
    """Saves a picture of fixed inputs and what the networks make of them, now and then.

    Args:
        draw: gives rows of images (R, C, H, W), one (n, R, C, H, W) for n inputs, in [-1, 1].
        folder: gets step-00001200.png.
        every: steps between two pictures at least.
    """

    def __init__(self, draw: Callable[[], Tensor], folder: Path, every: int = 500) -> None:
        self.draw, self.folder, self.every, self.last = draw, folder, every, -every
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, report: Report) -> None:
        if report.step - self.last < self.every and report.step != report.steps:
            return
        self.last = report.step
        import cv2

        picture = grid_picture(self.draw())
        path = self.folder / f"step-{report.step:08d}.png"
        if not cv2.imwrite(str(path), picture[..., ::-1]):
            raise OSError(f"cannot write {path}")


def grid_picture(images: Tensor) -> np.ndarray:
    """Images (n, R, C, H, W) in [-1, 1] as one picture (n H, R W, 3) of uint8, a row for an input.

    Raises:
        ValueError: not five axes, or neither one nor three channels.
    """
    if images.ndim != 5 or images.shape[2] not in (1, 3):
        raise ValueError(f"expected images (n, R, 1 or 3, H, W), got {tuple(images.shape)}")
    n, r, _, height, width = images.shape
    levels = ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    picture = levels.expand(n, r, 3, height, width).permute(0, 3, 1, 4, 2)
    return np.ascontiguousarray(picture.reshape(n * height, r * width, 3).numpy())


def terms_text(report: Report) -> str:
    """Terms as "D/loss -1.234, G/loss 0.567", then "; validation: AUROC 0.81" if there was one."""
    terms, validation = (
        ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        for numbers in (report.terms, report.validation)
    )
    return f"{terms}; validation: {validation}" if validation else terms


def _null_if_not_finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which knows neither NaN nor infinity."""
    return {k: v if math.isfinite(v) else None for k, v in numbers.items()}


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
