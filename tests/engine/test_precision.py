"""Precision as a context."""

import pytest
import torch

from cxrtut.engine.precision import Precision

CPU = torch.device("cpu")


def test_on_a_cpu_it_is_float32_unless_asked():
    assert Precision.of("auto", CPU) == Precision.of("float32", CPU) == Precision("cpu", None)
    assert Precision.of("bfloat16", CPU).name == "bfloat16"


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_inside_the_context_matrices_are_multiplied_in_that_type(name, dtype):
    x = torch.ones(2, 2)
    with Precision.of(name, CPU).autocast():
        assert (x @ x).dtype == dtype


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_without_native_bfloat16_gets_float16_with_scaled_gradients(
    native, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    precision = Precision.of("auto", torch.device("cuda"))
    assert precision.name == expected and precision.device_type == "cuda"


def test_only_float16_scales_gradients():
    scaler = Precision.of("bfloat16", CPU).scaler()
    assert not scaler.is_enabled() and scaler.scale(torch.tensor(2.0)) == 2.0
