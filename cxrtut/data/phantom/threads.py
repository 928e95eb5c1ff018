"""Rendering on all cores: one thread for each, every one with its own planes in its own cache.

Threads over images scale better here than torch's threads within an operation, which wait for each
other thousands of times an image, and much longer when the machine is busy. The workers flush
denormal numbers to zero: the tails of Gaussians are full of them, and each costs a processor a
hundred times a normal number.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def _keep_freed_memory() -> None:
    """Asks glibc to keep freed planes instead of handing each back to the kernel: a third of
    the time otherwise.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**28)  # M_TRIM_THRESHOLD
        libc.mallopt(-2, 2**26)  # M_TOP_PAD, a whole heap of a worker: none is handed back
        libc.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """So many threads with one torch thread each. All of them are there when it returns, and what
    they set for themselves holds for no other thread of the process.
    """
    _keep_freed_memory()
    threads_of_caller = torch.get_num_threads()
    everyone = Barrier(workers + 1)

    def prepare() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # makes it this thread's own: else it would follow the caller's
        torch.set_flush_denormal(True)
        everyone.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="phantom", initializer=prepare)
    try:
        for _ in range(workers):  # no worker is idle before the barrier: each starts another one
            pool.submit(int)
        everyone.wait()
    except BaseException:  # too few threads could be started: nobody shall wait for the others
        everyone.abort()
        raise
    finally:
        torch.set_num_threads(threads_of_caller)  # a worker's number is that of new threads too
    return pool


if hasattr(os, "register_at_fork"):  # a forked child inherits the pool, but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@contextmanager
def one_thread() -> Iterator[None]:
    """The calling thread with one torch thread, as the workers are."""
    threads_of_caller = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads_of_caller)


def on_every_core(work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """[work(item) for item in items] on as many threads as torch may use; results in order,
    errors raised.
    """

    @torch.no_grad()  # the switch is each thread's own
    def quiet(item: A) -> B:
        return work(item)

    return list(_pool(torch.get_num_threads()).map(quiet, items))
