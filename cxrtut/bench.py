"""How fast it is: rendering, batches, augmentation, decoding, training steps, here and now.

    python -m cxrtut bench [--quick] [--json FILE]

A rate is the median of several repeats after a warm-up; a repeat is long enough to be timed, and
on CUDA it ends when the device has finished. The numbers say something about this machine at this
moment, so no test depends on them.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Int64

from cxrtut import __version__
from cxrtut.data.augment import Augmentation, augment
from cxrtut.data.batches import batches
from cxrtut.data.decode import decode_image, fit_square
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import write_store
from cxrtut.data.sample import Batch, to_uint8
from cxrtut.data.split import Split, one_disease
from cxrtut.data.store import ArrayStore, StoreWriter
from cxrtut.experiments.step_time import published_steps, training_steps
from cxrtut.records.run_record import hardware

SIZES = (64, 128, 256)
BATCH_SIZE = 32
STORED_SIZE = 256
OFFICIAL_SIZE = 1024
AUGMENTATION = Augmentation(
    rotation=10, scale=0.1, translation=0.05, flip=0.5, brightness=0.1, contrast=0.1, gamma=0.1
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to measure.

    Attributes:
        repeats: timed repeats, of which the median is reported.
        seconds: a repeat lasts at least about so long.
        chunks: chunks rendered at once for each thread (below 1: a part of one).
        stored: images of the store that batches are taken from.
        batches: batches taken from the store in one call.
        large: images of the store of which a split is made.
        compiled: rendering with fused arithmetic too, which is compiled first, a minute in all.
        published: how many of the sizes of publications training steps are timed at, on a CPU; on
            a GPU all of them, unless it is 0.
    """

    repeats: int
    seconds: float
    chunks: float
    stored: int
    batches: int
    large: int
    compiled: bool = False
    published: int = 0


SLOW = 20  # lengths of a repeat: of what takes longer, the call after the warm-up is the only one
FULL = Budget(
    repeats=5, seconds=1.0, chunks=8, stored=256, batches=16, large=1088, compiled=True,
    published=1,
)  # fmt: skip
# A few images and short repeats: it shows that everything runs, not how fast.
QUICK = Budget(repeats=3, seconds=0.02, chunks=0.1, stored=8, batches=2, large=128)


@dataclass(frozen=True)
class Benchmark:
    """Something to be timed: `run` handles `images` images on `device`; `threads` of torch, or as
    set. Training has the `parameters` of its networks, the `steps` that `run` does and, where it
    was published, the steps of a whole training. `mib` measures memory, if another is of interest
    than what CUDA allocates.
    """

    name: str
    device: torch.device
    images: int
    run: Callable[[], object]
    threads: int | None = None
    parameters: int | None = None
    steps: int = 1
    published_steps: int | None = None
    mib: Callable[[], float | None] | None = None


@dataclass(frozen=True)
class Row:
    """What was measured: images per second (median, smallest, largest); memory in MiB, on CUDA the
    peak that this benchmark alone allocated, and of a split what it holds; for a training step its
    milliseconds and parameters, and the hours of the whole training as it was published.
    """

    name: str
    device: str
    rate: float
    slowest: float
    fastest: float
    mib: float | None
    step_ms: float | None = None
    parameters: int | None = None
    published_hours: float | None = None


def bench(
    budget: Budget = FULL,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Measures everything on the CPU and, if `device` is another, what runs there as well.

    Args:
        budget: how long to measure, `FULL` or `QUICK`.
        device: `cpu` or a CUDA device.
        progress: told the name of each row before it is measured.

    Returns:
        A record for JSON: `what`, `budget`, `hardware`, `versions` and `rows`, in the order of
        measurement; see `Row`.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="cxrtut-bench-") as folder:
        for benchmark in benchmarks(budget, torch.device(device), Path(folder)):
            if progress is not None:
                progress(f"{benchmark.name} ({benchmark.device})")
            rows.append(asdict(measure(benchmark, budget)))
    return {
        "what": "images per second; the median of repeats, and their range",
        "budget": asdict(budget),
        "hardware": hardware(torch.device(device)),
        "versions": {
            "cxrtut": __version__,
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "python": platform.python_version(),
        },
        "rows": rows,
    }


def benchmarks(budget: Budget, device: torch.device, folder: Path) -> Iterator[Benchmark]:
    """Everything that is measured; files are made in `folder` when their turn comes.

    Nothing of a benchmark is kept here when it has been handed out: what it holds on a device is
    free before the next one is measured.
    """
    cpu = torch.device("cpu")
    accelerated = () if device.type == "cpu" else (device,)
    for size in SIZES:
        yield _rendering(size, cpu, budget, torch.get_num_threads())
        yield replace(
            _rendering(size, cpu, budget, 1), name=f"phantom, {size} px, one thread", threads=1
        )
        if budget.compiled and shutil.which(os.environ.get("CXX", "g++")):
            yield _rendering(size, cpu, budget, torch.get_num_threads(), compiled=True)
        for other in accelerated:
            yield _rendering(size, other, budget, 1)
    for other in accelerated:
        yield _rendering_many(other, budget)
    store = folder / "store"
    write_store(ChestPhantom(STORED_SIZE), store, budget.stored)
    for place in (cpu, *accelerated):
        yield _resident(store, place, budget)
        yield _streamed(store, place, budget)
        yield _augmentation(store, place)
    yield _split(folder / "large", budget)
    yield _decoding(folder)
    for place in (cpu, *accelerated):
        for step in training_steps(place):
            yield Benchmark(
                step.name, place, step.images, step.run, parameters=step.parameters,
                steps=step.steps,
            )  # fmt: skip
        for step in published_steps(place, budget.published):
            yield Benchmark(
                step.name, place, step.images, step.run, threads=step.threads,
                parameters=step.parameters, steps=step.steps, published_steps=step.published_steps,
            )  # fmt: skip


def measure(
    benchmark: Benchmark, budget: Budget, clock: Callable[[], float] = time.perf_counter
) -> Row:
    """Warm up, find out how often to call for a repeat of `budget.seconds`, and time the repeats.

    Args:
        benchmark: what to time.
        budget: number and length of the repeats.
        clock: seconds; for tests.
    """
    on_cuda = benchmark.device.type == "cuda"

    def seconds(calls: int) -> float:
        _synchronize(benchmark.device)
        start = clock()
        for _ in range(calls):
            benchmark.run()
        _synchronize(benchmark.device)
        return max(clock() - start, 1e-9)

    with _threads(benchmark.threads):
        seconds(1)
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(benchmark.device)
        once = seconds(1)
        calls = math.ceil(budget.seconds / once)
        rates = [benchmark.images / once]
        if once <= SLOW * budget.seconds:
            rates = [calls * benchmark.images / seconds(calls) for _ in range(budget.repeats)]
    mib = torch.cuda.max_memory_allocated(benchmark.device) / 2**20 if on_cuda else None
    if benchmark.mib is not None:
        mib = benchmark.mib()
    rate = statistics.median(rates)
    step = hours = None
    if benchmark.parameters is not None:
        step = 1000 * benchmark.images / rate / benchmark.steps
    if step is not None and benchmark.published_steps is not None:
        hours = step * benchmark.published_steps / 3.6e6
    return Row(
        benchmark.name, benchmark.device.type, rate, min(rates), max(rates), mib, step,
        benchmark.parameters, hours,
    )  # fmt: skip


def table(record: dict) -> str:
    """The record of `bench` as aligned lines, the hardware first."""
    about, versions = record["hardware"], record["versions"]
    quick = record["budget"] == asdict(QUICK)
    lines = [("", "on", "images/s", "range", "MiB", "ms a step", "parameters", "hours, published")]
    for row in record["rows"]:
        mib = "" if row["mib"] is None else f"{row['mib']:.0f}"
        spread = f"{row['slowest']:.4g} - {row['fastest']:.4g}"
        step = "" if row["step_ms"] is None else f"{row['step_ms']:.4g}"
        size = "" if row["parameters"] is None else f"{row['parameters']:,}"
        hours = "" if row["published_hours"] is None else f"{row['published_hours']:.3g}"
        rate = f"{row['rate']:.4g}"
        lines.append((row["name"], row["device"], rate, spread, mib, step, size, hours))
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    left = widths[0], widths[1]
    return "\n".join(
        [
            f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads; "
            f"GPU: {about['gpu'] or 'none'}",
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            *(["quick: shows that everything runs, not how fast"] if quick else []),
            "",
            *(
                "  ".join(
                    text.ljust(width) if k < len(left) else text.rjust(width)
                    for k, (text, width) in enumerate(zip(line, widths, strict=True))
                ).rstrip()
                for line in lines
            ),
        ]
    )


def _rendering(
    size: int, device: torch.device, budget: Budget, threads: int, compiled: bool = False
) -> Benchmark:
    """Images with healthy twin, masks, regions and boxes."""
    phantom = ChestPhantom(size, device=device, compiled=compiled)
    chunks = budget.chunks * threads if device.type == "cpu" else budget.chunks / 4
    index = torch.arange(max(1, int(phantom.chunk * chunks)))
    name = f"phantom, {size} px{', compiled' if compiled else ''}"
    return Benchmark(name, device, len(index), lambda: phantom.sample(index))


def _rendering_many(device: torch.device, budget: Budget) -> Benchmark:
    """Four times as many images in one call."""
    benchmark = _rendering(STORED_SIZE, device, replace(budget, chunks=4 * budget.chunks), 1)
    return replace(benchmark, name=f"phantom, {STORED_SIZE} px, {benchmark.images} at once")


def _resident(path: Path, device: torch.device, budget: Budget) -> Benchmark:
    """Batches of a store that is on the device: image, twin, masks and boxes."""
    store = ArrayStore.open(path)
    order = _order(len(store), budget)
    source = store.on_device(device)
    return Benchmark(
        f"batches, resident, {STORED_SIZE} px",
        device,
        len(order),
        lambda: deque(batches(source, order, BATCH_SIZE), maxlen=0),
    )


def _streamed(path: Path, device: torch.device, budget: Budget) -> Benchmark:
    """The same batches from a store on the disk, on the device at the end."""
    store = ArrayStore.open(path)
    order = _order(len(store), budget)
    return Benchmark(
        f"batches, streamed, {STORED_SIZE} px",
        device,
        len(order),
        lambda: deque(batches(store, order, BATCH_SIZE, device, memory_limit=0), maxlen=0),
    )


def _order(stored: int, budget: Budget) -> Int64[torch.Tensor, "n"]:
    """Rows for `budget.batches` whole batches, each drawn at random from the store."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(stored, (budget.batches * BATCH_SIZE,), generator=generator)


def _augmentation(path: Path, device: torch.device) -> Benchmark:
    """Image, twin, masks and boxes of a batch."""
    store = ArrayStore.open(path)
    batch = store.batch(torch.arange(min(BATCH_SIZE, len(store))), device)
    transform = AUGMENTATION.draw(len(batch), seed=0, step=0, device=device)
    return Benchmark(
        f"augmentation, {STORED_SIZE} px", device, len(batch), lambda: augment(batch, transform)
    )


def _split(path: Path, budget: Budget) -> Benchmark:
    """A split of a store on the disk and its first batch: what it costs to begin, in time and in
    memory. The size of the store stands in the name.
    """
    n, shape = budget.large, (STORED_SIZE, STORED_SIZE)
    images = np.zeros((n, 1, *shape), np.uint8)
    labels = (np.arange(n) % 2).astype(np.uint8)[:, None]
    rows = [{"name": str(i), "patient": str(i), "split": "train"} for i in range(n)]
    with StoreWriter(
        path, source="bench", classes=("Mass",), n=n, size=STORED_SIZE, licence="none",
        with_healthy=True, with_masks=True,
    ) as writer:  # fmt: skip
        writer.write(0, images, labels, rows, healthy=images, masks=images[:, 0])
    name = f"split of {ArrayStore.open(path).nbytes / 1e6:.0f} MB, {STORED_SIZE} px"
    return Benchmark(
        name, torch.device("cpu"), n, partial(first_batch, path), mib=partial(held_mib, path)
    )


def first_batch(path: Path) -> tuple[Split, Batch]:
    """A split of a store and its first batch."""
    split = one_disease(ArrayStore.open(path), disease="Mass")
    return split, next(split.loader().batches(batch_size=BATCH_SIZE, seed=0))


def held_mib(path: Path, make: Callable[[Path], object] = first_batch) -> float | None:
    """Memory that what is made of a store occupies, mapped files aside, in MiB: in a process of its
    own, since one that has worked before takes what it has freed. None where the system does not
    say (other than Linux).
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(_growth, path, make).result()


def _growth(path: Path, make: Callable[[Path], object]) -> float | None:
    status = Path("/proc/self/status")

    def private() -> int:
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    if not status.is_file():
        return None
    before = private()
    held = make(path)
    after = private()
    del held
    return max(after - before, 0) / 1024


def _decoding(folder: Path) -> Benchmark:
    """A PNG file of the official size to the square of a store, in one thread."""
    image = ChestPhantom(OFFICIAL_SIZE).sample(torch.arange(1)).image[0, 0]
    path = folder / "radiograph.png"
    cv2.imwrite(str(path), to_uint8(image).numpy())
    return Benchmark(
        f"PNG, {OFFICIAL_SIZE} to {STORED_SIZE} px, one thread",
        torch.device("cpu"),
        1,
        lambda: fit_square(decode_image(path), STORED_SIZE),
        threads=1,
    )


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """torch on so many threads; None leaves them as they are."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before if number is None else number)
        yield
    finally:
        torch.set_num_threads(before)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
