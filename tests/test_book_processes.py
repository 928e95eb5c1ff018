"""The processes of the book's builder: which interpreter runs a page, and what is left when one of
them dies or is asked to stop.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_book import PARAMETERS, build, command, make_book, page

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and folders of /proc")
# A page that tells who runs it, and then takes its time
SLOW = page(
    PARAMETERS,
    'import os, time\nopen("NAME.pids", "w").write(f"{os.getpid()} {os.getppid()}\\n")\n'
    "for _ in range(1200):\n    time.sleep(0.05)",
)


@pytest.fixture
def slow_book(tmp_path: Path) -> Path:
    """Two pages that take a minute."""
    names = ("one", "two")
    return make_book(tmp_path / "root", {name: SLOW.replace("NAME", name) for name in names})


@pytest.fixture
def started(slow_book: Path) -> Iterator[subprocess.Popen[str]]:
    """The builder of the slow book, when both pages are running; its temporary files are in `tmp`
    beside the book.
    """
    (slow_book / "tmp").mkdir()
    environment = os.environ | {"TMPDIR": str(slow_book / "tmp"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(slow_book, "run", "--jobs", "2"), cwd=slow_book, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as builder:  # fmt: skip
        try:
            until(lambda: len(running(slow_book)) == 4)
            yield builder
        finally:
            builder.kill()


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def running(book: Path) -> dict[str, int]:
    """Process numbers of the kernels and workers of the pages that have begun, by name."""
    found = {}
    for path in (book / "book").glob("*.pids"):
        words = path.read_text().split()
        if len(words) == 2:
            kernel, worker = map(int, words)
            found |= {f"{path.stem} kernel": kernel, f"{path.stem} worker": worker}
    return found


def alive(number: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def left_in(book: Path) -> list[str]:
    """What a stopped run has left: outputs, and temporary files."""
    places = (book / "build" / "executed", book / "tmp")
    return sorted(path.name for place in places for path in place.rglob("*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_builder_workers_and_kernels_and_leaves_nothing(
    started: subprocess.Popen[str], slow_book: Path, number: signal.Signals
) -> None:
    processes = running(slow_book)
    began = time.monotonic()
    if number == signal.SIGINT:  # Ctrl-C reaches all processes of a terminal
        os.killpg(started.pid, number)
    else:
        started.send_signal(number)
    told, complaint = started.communicate(timeout=30)
    assert time.monotonic() - began < 8
    assert started.returncode == 128 + number
    assert complaint == "Interrupted; nothing half-written was left behind.\n"
    assert "FAILED" not in told
    assert [name for name, process in processes.items() if alive(process)] == []
    assert left_in(slow_book) == []


def test_a_second_ctrl_c_does_not_interrupt_the_clearing_up(
    started: subprocess.Popen[str], slow_book: Path
) -> None:
    for _ in range(5):
        os.killpg(started.pid, signal.SIGINT)
        time.sleep(0.02)
    assert started.communicate(timeout=30)[1].count("\n") == 1
    assert left_in(slow_book) == []


def test_workers_and_kernels_end_with_a_builder_that_is_killed(
    started: subprocess.Popen[str], slow_book: Path
) -> None:
    started.kill()
    until(lambda: not any(map(alive, running(slow_book).values())), 10)
    assert left_in(slow_book) == []


def test_a_killed_worker_is_a_failure_of_its_page_alone(tmp_path: Path) -> None:
    kill = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    book = make_book(tmp_path, {"bad": page(PARAMETERS, kill), "good": page(PARAMETERS, "1 + 1")})
    done = build(book, "run", "--jobs", "2")
    assert done.returncode == 1
    assert "run    good: done in" in done.stdout
    # the kernel that is left may say that it ends, before or after
    told = [line for line in done.stderr.splitlines() if not line.startswith("[IPKernelApp]")]
    assert told[0] == (
        "bad: its process was ended by SIGKILL (for want of memory?) before it was done"
    )
    assert "Traceback" not in done.stderr


def test_a_kernel_that_is_killed_fails_with_its_page_and_cell_in_a_few_lines(
    tmp_path: Path,
) -> None:
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)  # as the system does"
    book = make_book(tmp_path, {"part/dies": page(PARAMETERS, "1 + 1", kill, "2 + 2")})
    done = build(book, "run")
    assert done.returncode == 1
    assert "book/part/dies.md, line " in done.stderr and ", code cell 3:\n" in done.stderr
    assert kill in done.stderr and "The kernel was gone (for want of memory?)" in done.stderr
    assert len(done.stderr.splitlines()) < 12


def test_pages_run_with_the_builders_interpreter_whatever_kernel_comes_first(
    tmp_path: Path,
) -> None:
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    foreign = {"argv": ["/bin/false"], "display_name": "P", "language": "python"}
    kernel.write_text(json.dumps(foreign))
    seen = ':tags: [nbval-check-output]\nimport sys\nprint("I am " + sys.executable)'
    book = make_book(tmp_path / "root", {"who": page(PARAMETERS, seen)})
    environment = os.environ | {"JUPYTER_PATH": str(tmp_path / "jupyter")}
    done = build(book, "run", env=environment)
    assert done.returncode == 0, done.stderr
    executed = (book / "build" / "executed" / "who.ipynb").read_text()
    assert f"I am {sys.executable}" in executed
    again = build(book, "check", "--rerun", env=environment)
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_page_gets_the_same_threads_alone_and_beside_others(tmp_path: Path) -> None:
    seen = 'import os\nprint("threads: " + os.environ["OMP_NUM_THREADS"])'
    book = make_book(tmp_path, {name: page(PARAMETERS, seen) for name in ("one", "two")})
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    executed, shown = book / "build" / "executed", []
    for chosen in (("one", "two"), ("one",)):
        assert build(book, "run", "--pages", *chosen, env=environment).returncode == 0
        shown.append(json.loads((executed / "one.json").read_text())["threads"])
        assert f"threads: {shown[-1]}\\n" in (executed / "one.ipynb").read_text()
        (executed / "one.json").unlink()
    assert shown[0] == shown[1]
