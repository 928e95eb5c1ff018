"""Requests to stop: Ctrl-C and SIGTERM."""

import os
import signal
import threading

import pytest
from engine.toy import ToyGAN, assert_same, run, weights

from cxrtut.engine import checkpoint
from cxrtut.engine.stopping import Interrupted
from cxrtut.engine.task import Phase


@pytest.fixture(autouse=True)
def signals_as_in_the_foreground():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_ends_the_step_saves_and_says_how_to_go_on(tmp_path, asked):
    whole, stopped, resumed = ToyGAN(dropout=0.3), ToyGAN(dropout=0.3), ToyGAN(dropout=0.3)
    run(whole, 6)
    real_phases = stopped.phases

    def phases(step, epoch):
        if step == 2:
            os.kill(os.getpid(), asked)
        return real_phases(step, epoch)

    stopped.phases = phases
    with pytest.raises(Interrupted, match=r"after step 3 of 6; resume=True .*--resume"):
        run(stopped, checkpoint_dir=tmp_path)
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["checkpoint-00000003.pt"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run(resumed, checkpoint_dir=tmp_path, resume=True)
    assert_same(weights(whole), weights(resumed))


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = ToyGAN()
    real_phases = task.phases

    def phases(step, epoch):
        os.kill(os.getpid(), signal.SIGINT)
        return real_phases(step, epoch)

    task.phases = phases
    assert run(task, 2)[-1].step == 2


def test_a_second_request_interrupts_at_once():
    task = ToyGAN()

    def loss(batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second request should have interrupted")

    task.phases = lambda step, epoch: [Phase("D", ("critic",), loss)]
    with pytest.raises(KeyboardInterrupt) as caught:
        run(task)
    assert not isinstance(caught.value, Interrupted)


def test_training_works_outside_the_main_thread():
    failed = []

    def work():
        try:
            run(ToyGAN(), 1)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


def test_a_request_in_the_last_step_is_heard_when_all_is_saved(tmp_path):
    stopped = ToyGAN()
    real_phases = stopped.phases

    def phases(step, epoch):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_phases(step, epoch)

    stopped.phases = phases
    with pytest.raises(Interrupted, match="after step 6 of 6"):
        run(stopped, checkpoint_dir=tmp_path)
    assert checkpoint.load(tmp_path)["step"] == 6


def test_a_request_while_the_last_checkpoint_is_written_is_heard(tmp_path, monkeypatch):
    real_save = checkpoint.save

    def save(folder, state):
        os.kill(os.getpid(), signal.SIGTERM)
        return real_save(folder, state)

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Interrupted, match="after step 2 of 2"):
        run(ToyGAN(), 2, checkpoint_dir=tmp_path)
    assert checkpoint.load(tmp_path)["step"] == 2
