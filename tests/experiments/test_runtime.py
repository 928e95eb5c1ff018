"""Which preset a page goes on with, and what it says of that."""

import pytest
import torch

from cxrtut.experiments import runtime
from cxrtut.experiments.runtime import same_at_every_preset, usable


@pytest.fixture(params=[False, True], ids=["no GPU", "GPU"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    return request.param


@pytest.mark.parametrize("preset", ["colab", "paper"])
def test_without_a_gpu_a_page_goes_on_with_smoke_and_says_so(gpu, capsys, preset):
    assert usable(preset) == ((preset, "cuda") if gpu else ("smoke", "cpu"))
    told = capsys.readouterr().out
    assert torch.__version__ in told and ("Tesla T4" in told) == gpu
    assert ("goes on with smoke" in told) == (not gpu)


def test_the_smallest_needs_no_gpu(gpu, capsys):
    assert usable("smoke") == ("smoke", "cuda" if gpu else "cpu")
    assert "hours" not in capsys.readouterr().out


def test_a_preset_that_needs_no_gpu_is_kept(gpu, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "PRESETS", ("smoke", "cpu", "colab"))
    assert usable("cpu") == ("cpu", "cuda" if gpu else "cpu")
    assert "hours" not in capsys.readouterr().out


def test_an_unknown_preset_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="expected a preset of smoke, colab, paper, got 'colb'"):
        usable("colb")


def test_a_page_of_one_size_asks_for_no_gpu_and_names_torch(gpu, capsys):
    same_at_every_preset()
    told = capsys.readouterr().out
    assert torch.__version__ in told and "hours" not in told and "smoke" not in told
