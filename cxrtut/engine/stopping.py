"""Ctrl-C, SIGTERM and a notebook's stop button: the step is finished and a checkpoint written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training stopped on request; the message says where, and how to go on."""


class StopRequest:
    """Whether somebody has asked to stop. The second request is not waited for: it interrupts."""

    def __init__(self) -> None:
        self.made = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.made:
            raise KeyboardInterrupt
        self.made = True


@contextmanager
def graceful_interrupt() -> Iterator[StopRequest]:
    """Inside, SIGINT and SIGTERM are requests. Outside the main thread they cannot be caught, and a
    signal that is ignored (SIGINT, in a background job) stays ignored.
    """
    request, before = StopRequest(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, request)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
