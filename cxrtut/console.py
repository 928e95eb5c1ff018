"""How the programs of this project speak to a terminal, a log file or a pipe."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

PIPE_CLOSED = 141  # what a shell reports of a program that a closed pipe ended


def run_program(main: Callable[[], int | None]) -> int:
    """Runs a program; returns its exit code.

    A character that the terminal or the log file does not have becomes "?". Where nobody reads on
    (`| head -1`), the program ends without a traceback, as other programs do.

    Args:
        main: the program; its exit code, or None for 0.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            return main() or 0
        finally:
            # Now: when the interpreter ends, nobody could catch what is raised
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _say_nothing_more()
        return PIPE_CLOSED


def _say_nothing_more() -> None:
    """What is still in the buffers goes nowhere, or the interpreter would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
