"""Precision as a context, never a branch: a loss is computed inside `autocast()`, always."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

NAMES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """float32 when `dtype` is None, else mixed precision in that type; float16 needs scaled
    gradients.
    """

    device_type: str
    dtype: torch.dtype | None

    @classmethod
    def of(cls, name: str, device: torch.device) -> Precision:
        """`auto`: bfloat16 on a GPU that has it natively, float16 on an older one (T4), float32 on
        a CPU.

        Raises:
            ValueError: an unknown name, or float16 on a CPU.
        """
        if name not in NAMES:
            raise ValueError(f"precision: expected one of {', '.join(NAMES)}, got {name!r}")
        if name == "auto":
            name = "float32"
            if device.type == "cuda":
                native = torch.cuda.is_bf16_supported(including_emulation=False)
                name = "bfloat16" if native else "float16"
        if name == "float16" and device.type != "cuda":
            raise ValueError(f"precision: float16 expects a CUDA device, got {device.type}")
        return cls(device.type, None if name == "float32" else getattr(torch, name))

    @property
    def name(self) -> str:
        return "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a loss is computed."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """The gradient scaler of one phase; it does nothing unless the type is float16."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)
