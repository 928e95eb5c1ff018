"""Arithmetic on pixels, fused: one loop over the pixels instead of one for every operation.

Written down in torch, a formula of a hundred operations carries a hundred planes through the
memory, which takes most of its time. torch's compiler makes one loop of it, in C++, that keeps all
intermediate results in registers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from cxrtut.data.phantom.randomness import Draws

Planes = tuple[Tensor, ...]
Arithmetic = Callable[..., Planes]  # of tensors (B, ...) and draws
Fuse = Callable[[Arithmetic], Arithmetic]

# One thread, because every core renders images of its own; a program that is C++ throughout lets
# the others run meanwhile.
_OPTIONS: dict[str, object] = {"cpp.threads": 1, "cpp_wrapper": True}


def as_written(arithmetic: Arithmetic) -> Arithmetic:
    """The arithmetic as torch does it, operation by operation."""
    return arithmetic


@cache
def fused(images: int) -> Fuse:
    """A `Fuse` whose loops run over so many images at a time.

    What it makes compiles itself when it is first called, once in a process and for every size of
    the images: half a minute, or a few seconds where torch finds the program in its cache on the
    disk. Calls raise RuntimeError where there is no C++ compiler.
    """
    return cache(partial(_Fused, images))


def _same(value: Tensor) -> Tensor:
    return value


class _Fused:
    """Arithmetic that is compiled for the shapes it meets.

    The loops always run over `images` images: more are done in groups, and in the last group its
    last image is repeated as often as need be. So there is one program, and the same image bit for
    bit whatever is rendered beside it.
    """

    def __init__(self, images: int, arithmetic: Arithmetic) -> None:
        self._images, self._arithmetic = images, arithmetic
        self._names: list[tuple[str, ...]] = []  # used of each draws; () for a tensor
        self._programs: dict[tuple[torch.Size, ...], Arithmetic] = {}
        self._lock = threading.Lock()

    def __call__(self, *arguments: Tensor | Draws) -> Planes:
        with self._lock:  # what one thread prepares, the others wait for
            self._names = self._names or self._names_used(arguments)
        tensors = self._tensors(arguments)
        groups = [
            self._group([tensor[start : start + self._images] for tensor in tensors])
            for start in range(0, len(tensors[0]), self._images)
        ]
        return groups[0] if len(groups) == 1 else tuple(map(torch.cat, zip(*groups, strict=True)))

    def _group(self, tensors: list[Tensor]) -> Planes:
        n = len(tensors[0])
        if n < self._images:
            rows = torch.arange(self._images).clamp(max=n - 1)
            tensors = [tensor[rows] for tensor in tensors]
        shapes = tuple(tensor.shape for tensor in tensors)
        with self._lock:
            if shapes not in self._programs:
                self._programs[shapes] = self._compiled(tensors)
        return tuple(plane[:n] for plane in self._programs[shapes](*tensors))

    def _names_used(self, arguments: Sequence[Tensor | Draws]) -> list[tuple[str, ...]]:
        """Does the arithmetic once, as written, to see what it asks of its draws."""
        watched = [a if isinstance(a, Tensor) else Draws(source=a, view=_same) for a in arguments]
        self._arithmetic(*watched)
        return [() if isinstance(w, Tensor) else w.names() for w in watched]

    def _tensors(self, arguments: Sequence[Tensor | Draws]) -> list[Tensor]:
        """The arguments as a list of tensors, all of them dense: strides are compiled in."""
        tensors: list[Tensor] = []
        for argument, names in zip(arguments, self._names, strict=True):
            if isinstance(argument, Tensor):
                tensors.append(argument)
            else:
                tensors += [argument[name] for name in names]
        return [tensor.contiguous() for tensor in tensors]

    def _on_tensors(self, *tensors: Tensor) -> Planes:
        """The arithmetic on the list that `_tensors` makes."""
        rest = iter(tensors)
        groups = (
            Draws({n: next(rest) for n in names}) if names else next(rest) for names in self._names
        )
        return self._arithmetic(*groups)

    def _compiled(self, tensors: list[Tensor]) -> Arithmetic:
        from torch._inductor import compile as compile_graph
        from torch.fx.experimental.proxy_tensor import make_fx

        graph = make_fx(self._on_tensors, tracing_mode="fake")(*tensors)
        try:
            return compile_graph(graph, [*tensors], options=_OPTIONS)
        except Exception as error:
            raise RuntimeError(
                "compiled=True needs a C++ compiler that torch can use (g++, or the one that the "
                f"environment variable CXX names); compiling {self._arithmetic.__name__} failed: "
                f"{error}"
            ) from error
