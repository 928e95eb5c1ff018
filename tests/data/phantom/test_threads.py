"""The threads that render. Three of them: halves of a plane are cut like the whole, thirds are not.

What a thread has set stays with the process, so that every test has a process of its own.
"""

import subprocess
import sys


def run(program: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", "import threading, torch\n" + program]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_worker_has_one_torch_thread():
    run(
        """
from cxrtut.data.phantom.threads import on_every_core

together = threading.Barrier(3, timeout=60)


def number(_):
    together.wait()  # each of the three has to do one
    torch.zeros(2**20).add_(1)  # large enough to be shared among threads
    return threading.get_ident(), torch.get_num_threads()


torch.set_num_threads(3)
workers = dict(on_every_core(number, range(3)))
assert list(workers.values()) == [1, 1, 1], workers
"""
    )


def test_threads_that_the_caller_starts_later_keep_the_callers_number():
    run(
        """
from cxrtut.data.phantom.threads import on_every_core

together = threading.Barrier(3, timeout=60)
torch.set_num_threads(3)
assert sorted(on_every_core(lambda _: together.wait(), range(3))) == [0, 1, 2]
assert torch.get_num_threads() == 3
seen = []
later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
later.start()
later.join()
assert seen == [3], seen
"""
    )


def test_images_are_the_same_bit_for_bit_on_three_threads_and_on_one():
    run(
        """
from dataclasses import fields
from cxrtut.data.phantom import ChestPhantom

phantom, index = ChestPhantom(128), torch.arange(24)
torch.set_num_threads(1)
one = phantom.sample(index)
torch.set_num_threads(3)
three = phantom.sample(index)
for field in fields(one):
    assert torch.equal(getattr(one, field.name), getattr(three, field.name)), field.name
"""
    )
