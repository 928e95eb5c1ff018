"""The bench measures what it says it measures. How fast anything is decides nothing here."""

import json
import math
import sys
import weakref
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxrtut import bench as module
from cxrtut.bench import BATCH_SIZE, FULL, QUICK, Benchmark, Budget, bench, hardware, measure, table
from cxrtut.data.store import ArrayStore
from cxrtut.experiments.step_time import TrainingStep

CPU = torch.device("cpu")
NAMED = [
    *(f"phantom, {size} px{end}" for size in (64, 128, 256) for end in ("", ", one thread")),
    "batches, resident, 256 px",
    "batches, streamed, 256 px",
    "augmentation, 256 px",
    "split of 25 MB, 256 px",
    "PNG, 1024 to 256 px, one thread",
    *(f"biomarker smoke, {stage}, 64 px" for stage in ("warm-up", "main")),
    *(
        f"disease_masks smoke, {stage}, 64 px"
        for stage in ("plain", "aligner", "aligned", "aligned + DM")
    ),
    "pillet_gan smoke, main, 64 px",
    *(f"pix2pix smoke, {stage}, 96 px" for stage in ("Pix2Pix-N", "main")),
    *(
        f"granet smoke, {stage}, 64 px"
        for stage in (
            "features",
            "aligner",
            "realistic",
            "abnormal to normal",
            "realistic abnormal",
            "main",
        )
    ),
]
# Of a training step
IMAGES = dict(zip(NAMED[-15:], (16, 16, 32, 16, 32, 32, *(8,) * 9), strict=True))


def a_copy(path):
    return np.array(ArrayStore.open(path).images)


class Clock:
    """A clock that stands still except when work is done."""

    def __init__(self):
        self.now, self.calls = 0.0, 0

    def __call__(self):
        return self.now

    def work(self, *durations):
        """A run whose k-th call lasts durations[k], and the last duration ever after."""

        def run():
            self.now += durations[min(self.calls, len(durations) - 1)]
            self.calls += 1

        return run


def budget(seconds, repeats=3):
    return Budget(repeats=repeats, seconds=seconds, chunks=1, stored=1, batches=1, large=1)


@pytest.fixture(scope="module")
def record():
    return bench(QUICK)


def test_a_quick_run_reports_a_finite_positive_rate_for_everything_named(record):
    assert [row["name"] for row in record["rows"]] == NAMED
    for row in record["rows"]:
        assert row["device"] == "cpu"
        assert row["mib"] is None or row["name"].startswith("split")
        assert 0 < row["slowest"] <= row["rate"] <= row["fastest"] < math.inf
        assert (row["step_ms"] is None) == (row["parameters"] is None)
        if row["step_ms"] is not None:
            assert row["step_ms"] == pytest.approx(1000 * IMAGES[row["name"]] / row["rate"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what is held")
def test_a_split_holds_no_second_copy_of_its_store_and_a_copy_would_be_seen(tmp_path):
    split = module._split(tmp_path / "store", replace(QUICK, large=1024))  # 201 MB
    batch = 9 * BATCH_SIZE * 256**2 / 2**20  # image and twin in floats, masks in bools
    assert split.mib() < batch + 10
    assert module.held_mib(tmp_path / "store", a_copy) > 55


def test_the_record_survives_json_and_names_the_hardware(record):
    assert json.loads(json.dumps(record)) == record
    assert record["budget"] == asdict(QUICK) and record["versions"]["torch"] == torch.__version__
    about = record["hardware"]
    assert about["cpu"] and about["cores"] >= 1 and about["gpu"] is None
    assert about["threads"] == torch.get_num_threads()


def test_the_table_is_aligned_and_has_a_line_for_every_row(record):
    lines = table(record).splitlines()
    head, body = lines[:4], lines[4:]
    assert record["hardware"]["cpu"] in head[0] and "GPU: none" in head[0]
    assert "torch" in head[1] and "not how fast" in head[2]
    assert len(body) == 1 + len(NAMED)
    column = body[0].index("on")
    for name, line in zip(NAMED, body[1:], strict=True):
        assert line.startswith(name + " ") and line[column:].startswith("cpu ")
    ends = body[0].index("images/s") + len("images/s")
    assert all(line[ends - 1] != " " and line[ends] == " " for line in body)
    last = record["rows"][-1]
    assert body[-1].split()[-2:] == [f"{last['step_ms']:.4g}", f"{last['parameters']:,}"]
    assert body[0].endswith("hours, published")
    told = table({**record, "rows": [{**last, "published_hours": 12.34}]}).splitlines()[-1]
    assert told.endswith("  12.3")


def test_the_rate_is_the_median_of_the_repeats_and_leaves_out_the_warm_up():
    clock = Clock()
    run = clock.work(100.0, 1.0, 1.0, 4.0, 2.0)  # warm-up, calibration, three repeats
    row = measure(Benchmark("x", CPU, 8, run), budget(1.0), clock)
    assert (row.slowest, row.rate, row.fastest) == (2.0, 4.0, 8.0)
    assert clock.calls == 5 and (row.name, row.device) == ("x", "cpu")


def test_short_work_is_repeated_until_it_can_be_timed():
    clock = Clock()
    row = measure(Benchmark("x", CPU, 2, clock.work(0.25)), budget(1.0, repeats=5), clock)
    assert clock.calls == 1 + 1 + 5 * 4
    assert row.rate == 8.0


def test_work_on_one_thread_leaves_the_threads_as_they_were():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        work = Benchmark("x", CPU, 1, lambda: seen.append(torch.get_num_threads()), threads=1)
        measure(work, budget(1e-9))
        assert set(seen) == {1} and torch.get_num_threads() == 2
        seen.clear()
        measure(replace(work, threads=None), budget(1e-9))
        assert set(seen) == {2}

        def fail():
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            measure(replace(work, run=fail), budget(1.0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_on_cuda_the_clock_is_read_when_the_device_has_finished(monkeypatch):
    events, clock = [], Clock()
    cuda = SimpleNamespace(
        synchronize=lambda device: events.append("finished"),
        reset_peak_memory_stats=lambda device: events.append("reset"),
        max_memory_allocated=lambda device: 3 * 2**20,
    )
    monkeypatch.setattr(module.torch, "cuda", cuda)
    run = clock.work(1.0)
    work = Benchmark("x", torch.device("cuda"), 1, lambda: (events.append("run"), run()))

    def read():
        events.append("clock")
        return clock()

    row = measure(work, budget(1.0, repeats=1), read)
    timed = ["finished", "clock", "run", "finished", "clock"]
    assert events == [*timed, "reset", *timed, *timed]
    assert row.mib == 3.0 and row.rate == 1.0 and row.device == "cuda"


def test_what_lasts_long_is_timed_once_more_and_no_oftener():
    clock = Clock()
    run = clock.work(30.0, 25.0)
    row = measure(Benchmark("x", CPU, 5, run), budget(1.0), clock)
    assert clock.calls == 2 and row.rate == row.slowest == row.fastest == 0.2


def test_the_hours_of_a_published_training_follow_from_a_step():
    clock = Clock()
    work = Benchmark(
        "x", CPU, 40, clock.work(2.0), parameters=7, steps=5, published_steps=100_000
    )  # fmt: skip
    row = measure(work, budget(1.0), clock)
    assert row.step_ms == 400 and row.published_hours == pytest.approx(0.4 * 100_000 / 3600)
    assert (
        measure(Benchmark("x", CPU, 40, clock.work(2.0)), budget(1.0), clock).published_hours
        is None
    )


def test_a_gpu_adds_its_own_rows_and_a_larger_batch(tmp_path, monkeypatch):
    gpu = torch.device("meta")  # stands for any other device; nothing is run
    monkeypatch.setattr(module, "write_store", lambda *_: SimpleNamespace())
    for name in ("_resident", "_streamed"):
        monkeypatch.setattr(module, name, lambda _, place, __: Benchmark("b", CPU, 1, list))
    monkeypatch.setattr(module, "_augmentation", lambda _, place: Benchmark("a", place, 1, list))
    step = TrainingStep("s", 7, 2, 1, list)
    monkeypatch.setattr(module, "training_steps", lambda _: [step])
    monkeypatch.setattr(module, "published_steps", lambda *_: [])
    found = list(module.benchmarks(QUICK, gpu, tmp_path))
    rows = [work.name for work in found if work.device == gpu]
    *sizes, large, augmented, trained = rows
    assert sizes == [f"phantom, {size} px" for size in (64, 128, 256)] and augmented == "a"
    assert trained == "s" and found[-1].parameters == 7
    images = {work.name: work.images for work in found if work.device == gpu}
    assert large == f"phantom, 256 px, {images[large]} at once"
    assert images[large] >= 4 * images["phantom, 256 px"]


@pytest.mark.parametrize(("compiler", "there"), [("/bin/c++", True), (None, False)])
def test_compiled_rendering_is_measured_where_there_is_a_compiler(
    compiler, there, tmp_path, monkeypatch
):
    monkeypatch.setattr(module.shutil, "which", lambda _: compiler)
    monkeypatch.setattr(module, "write_store", lambda *_: None)
    for name in ("_resident", "_streamed", "_augmentation", "_split"):
        monkeypatch.setattr(module, name, lambda *_: Benchmark("other", CPU, 1, list))
    names = [work.name for work in module.benchmarks(replace(QUICK, compiled=True), CPU, tmp_path)]
    assert ("phantom, 256 px, compiled" in names) == there
    assert not any("compiled" in w.name for w in module.benchmarks(QUICK, CPU, tmp_path))


def test_what_a_row_holds_is_free_before_the_next_one_is_measured(monkeypatch):
    # On CUDA a resident store that lived on would count in the peaks of the rows after it.
    held, resident = [], {}
    put_there = module.ArrayStore.on_device

    def on_device(store, device):
        whole = put_there(store, device)
        held.append(weakref.ref(whole.images))
        return whole

    def fake_measure(work, _):
        work.run()
        resident[work.name] = sum(images() is not None for images in held)
        return module.Row(work.name, "cpu", 1, 1, 1, None)

    monkeypatch.setattr(module.ArrayStore, "on_device", on_device)
    monkeypatch.setattr(module, "measure", fake_measure)
    bench(QUICK)
    of_data = NAMED[:11]
    on_device = [name for name in of_data if resident[name]]
    assert on_device == ["batches, resident, 256 px"]


def test_a_pass_has_the_number_of_batches_asked_for_whatever_is_stored():
    for stored in (3, 500):
        order = module._order(stored, FULL)
        assert len(order) == 16 * BATCH_SIZE and 0 <= order.min() <= order.max() < stored
    assert len(module._order(3, replace(FULL, repeats=50))) == 16 * BATCH_SIZE


def test_only_a_quick_record_says_that_it_is_one(record):
    full = record | {"budget": asdict(FULL)}
    assert "not how fast" in table(record) and "not how fast" not in table(full)


def test_progress_is_told_before_each_row(record, monkeypatch):
    told = []
    monkeypatch.setattr(
        module, "measure", lambda work, _: module.Row(work.name, "cpu", 1, 1, 1, None)
    )
    bench(QUICK, progress=told.append)
    assert told == [f"{name} (cpu)" for name in NAMED]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_quick_run_on_a_gpu_reports_peak_memory():
    rows = bench(QUICK, device="cuda")["rows"]
    on_gpu = [row for row in rows if row["device"] == "cuda"]
    assert len(on_gpu) == 7 and hardware(torch.device("cuda"))["gpu"]
    assert all(row["mib"] > 0 and 0 < row["rate"] < math.inf for row in on_gpu)
