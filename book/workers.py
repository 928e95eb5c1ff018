"""Pages run at the same time, each in a process of its own, with a kernel of its own. Whatever ends
them (a failure, the system, a signal), no process and no folder of theirs is left.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
KERNELS: list[Any] = []  # of this process
SECONDS_TO_END = 10.0  # for a worker to shut its kernel down
Outcome = tuple[str, float, str | None]
"""Name of a page, seconds that it ran, and what failed, if anything did."""


class Stopped(KeyboardInterrupt):
    """Somebody asked the builder to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def stop_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM raise `Stopped`, once: clearing up is not interrupted. A
    signal that is ignored (in a background job) stays ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def run_each(
    run: Callable[..., Outcome], tasks: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[Outcome]:
    """What `run(*task, folder)` returns for each task, as they end, `jobs` at a time. The folder is
    an empty one that lasts as long as the task.

    Args:
        run: a function of a module. A process that dies in it gives an outcome of its own, and
            the other tasks go on.
        tasks: begin with the name of a page.
        jobs: at least 1.
    """
    context = get_context("spawn")
    waiting = list(enumerate(tasks))
    running: dict[Connection, tuple[Any, str, float]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    number, task = waiting.pop(0)
                    answer, end = context.Pipe(duplex=False)
                    folder = Path(scratch, str(number))
                    worker = context.Process(target=_work, args=(end, run, task, folder))
                    worker.start()
                    end.close()
                    running[answer] = (worker, task[0], time.perf_counter())
                for ready in wait(list(running)):
                    assert isinstance(ready, Connection)
                    worker, page, started = running.pop(ready)
                    try:
                        outcome = ready.recv()
                    except EOFError:
                        outcome = None
                    worker.join()
                    ready.close()
                    if outcome is None:
                        seconds, death = time.perf_counter() - started, how(worker.exitcode)
                        outcome = page, seconds, f"{page}: its process {death} before it was done"
                    yield outcome
        finally:
            for worker, _, _ in running.values():
                worker.terminate()
            for worker, _, _ in running.values():
                worker.join(SECONDS_TO_END)
                worker.kill()
                worker.join()


def how(code: int | None) -> str:
    """How a process ended, in words; minus the number of a signal is what ended it."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (" (for want of memory?)" if name == "SIGKILL" else "")


def _work(
    end: Connection, run: Callable[..., Outcome], task: tuple[Any, ...], folder: Path
) -> None:
    """One task in its own process, which ends when the builder asks it to, or is gone."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for kernel in KERNELS:
            kernel.end_now()
        # What a client without its kernel complains of helps nobody
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        raise KeyboardInterrupt

    # Ctrl-C reaches all processes of a terminal; the builder decides. A handler, since what is
    # ignored would be ignored in the kernel, too.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_end_with_the_builder, daemon=True).start()
    try:
        folder.mkdir()
        end.send(run(*task, folder))
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # the last one out, where the builder cannot
        os._exit(1)  # an asynchronous loop may hold the interpreter up
    shutil.rmtree(folder, ignore_errors=True)


def _end_with_the_builder() -> None:
    """Waits until the builder is gone, and then stops this process."""
    builder = parent_process()
    assert builder is not None
    builder.join()
    if hasattr(signal, "pthread_kill"):
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)  # the main thread may be waiting
    else:
        os._exit(1)


def kernel_options(folder: Path) -> dict[str, Any]:
    """How a client of a page's kernel starts it: with the interpreter that runs this, whatever
    kernel of the name python3 is installed first; and where the two meet: in files of a folder of
    their own, which are closed to other users of the machine (ports are not) and to the kernels of
    other pages.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from traitlets.config import Config

    class OwnKernel(AsyncKernelManager):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            KERNELS.append(self)

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

        def end_now(self) -> None:
            process = getattr(self.provisioner, "process", None)
            if process is None or process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                if hasattr(os, "killpg"):  # it leads a group of its own, with what it has started
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()

    options: dict[str, Any] = {"kernel_manager_class": OwnKernel}
    if os.name == "posix":
        meeting = {"transport": "ipc", "ip": str(folder / "kernel")}
        options["config"] = Config(KernelManager=meeting, OwnKernel=meeting)
    return options
