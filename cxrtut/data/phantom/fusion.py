"""Arithmetic on pixels, fused: one loop over the pixels instead of one for every operation.

Written down in torch, a formula of a hundred operations carries a hundred planes through the
memory, which takes most of its time. torch's compiler makes one loop of it, in C++, that keeps all
intermediate results in registers. The loop rounds every number as torch does, as long as the
formula has none of the functions that torch leaves to MKL on a CPU: sin, tanh, exp, log, sqrt.
`shapes.exp` and `shapes.sqrt_` are no such functions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.threads import one_thread

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


@cache
def fused_if_equal(images: int) -> Fuse:
    """As `fused`, but arithmetic stays as written where it can't be compiled, or where what is
    compiled isn't equal to it bit for bit on the first images.
    """
    return cache(partial(_FusedIfEqual, images))


_COMPILING, _LOADING = 30.0, 4.0  # seconds, for the programs of one size; with those on the disk
_SAVED = 2.5e-7  # seconds a pixel
_ready: set[tuple[int, int]] = set()
_compiled_here: set[tuple[Fuse, int]] = set()


@cache
def has_compiler() -> bool:
    """Whether torch would find a C++ compiler."""
    return any(map(shutil.which, (os.environ.get("CXX") or "g++", "g++", "clang++")))


def pays(images: int, size: int, n: int) -> bool:
    """Whether programs for groups of so many images of `size` pixels are there already, or take
    less time to get than they will save on `n` images.
    """
    if (images, size) in _ready:
        return True
    saved = n * size**2 * _SAVED / torch.get_num_threads()
    if saved < _LOADING or not has_compiler():
        return False
    if saved < _COMPILING and not _marker(images, size).exists():
        return False
    _ready.add((images, size))
    return True


def compile_here(fuse: Fuse, images: int, size: int, work: Callable[[], object]) -> None:
    """Does `work`, by which everything is compiled, in the thread that calls, but only once.

    An interruption of the program arrives here and ends it; it would have to wait for a thread of
    another core to finish.
    """
    if (fuse, size) in _compiled_here:
        return
    with one_thread():
        work()
    _compiled_here.add((fuse, size))
    with suppress(OSError):  # then later processes will think that compiling takes longer
        _marker(images, size).touch()


def _marker(images: int, size: int) -> Path:
    """A file beside torch's compiled programs that says that ours are among them."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / f"cxrtut-phantom-{_version()}-{images}-{size}"


@cache
def _version() -> str:
    """Of torch and of everything that is compiled here."""
    source = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(torch.__version__.encode() + source).hexdigest()[:16]


def _same(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class _Program:
    """A loop over a group of images; it writes into the planes that follow its arguments.

    So the groups need not be joined afterwards, which would carry every plane through the memory
    a second time.
    """

    run: Callable[..., object]
    makes: list[Tensor]  # planes like those it writes


class _Fused:
    """Arithmetic that is compiled for the shapes it meets.

    The loops always run over `images` images: more are done in groups, and in the last group its
    last image is repeated as often as need be. So there is one program, and the same image bit for
    bit whatever is rendered beside it.
    """

    def __init__(self, images: int, arithmetic: Arithmetic) -> None:
        self._images, self._arithmetic = images, arithmetic
        self._names: list[tuple[str, ...]] = []  # used of each draws; () for a tensor
        self._programs: dict[tuple[torch.Size, ...], _Program] = {}
        self._lock = threading.Lock()

    def __call__(self, *arguments: Tensor | Draws) -> Planes:
        with self._lock:  # what one thread prepares, the others wait for
            self._names = self._names or self._names_used(arguments)
        tensors = self._tensors(arguments)
        shapes = tuple(tensor.shape[1:] for tensor in tensors)
        with self._lock:
            if shapes not in self._programs:
                self._programs[shapes] = self._compiled(tensors)
        program, made, n = self._programs[shapes], [], len(tensors[0])
        for like in program.makes:
            made.append(like.new_empty(n, *like.shape[1:]))
        whole = n - n % self._images
        for start in range(0, whole, self._images):
            rows = slice(start, start + self._images)
            program.run(*(tensor[rows] for tensor in tensors), *(plane[rows] for plane in made))
        if whole < n:
            repeated = torch.arange(whole, whole + self._images).clamp(max=n - 1)
            some = [like.new_empty(like.shape) for like in program.makes]
            program.run(*(tensor[repeated] for tensor in tensors), *some)
            for plane, part in zip(made, some, strict=True):
                plane[whole:] = part[: n - whole]
        return tuple(made)

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

    def _compiled(self, tensors: list[Tensor]) -> _Program:
        from torch._inductor import compile as compile_graph
        from torch.fx.experimental.proxy_tensor import make_fx

        rows = torch.zeros(self._images, dtype=torch.int64)
        tensors = [tensor[rows] for tensor in tensors]
        makes = [plane.new_empty(plane.shape) for plane in self._on_tensors(*tensors)]

        def into_planes(*arguments: Tensor) -> tuple[()]:
            planes = self._on_tensors(*arguments[: len(tensors)])
            for plane, result in zip(arguments[len(tensors) :], planes, strict=True):
                plane.copy_(result)
            return ()

        graph = make_fx(into_planes, tracing_mode="fake")(*tensors, *makes)
        try:
            run = compile_graph(graph, [*tensors, *makes], options=_OPTIONS)
        except Exception as error:
            raise RuntimeError(
                "compiled=True needs a C++ compiler that torch can use (g++, or the one that the "
                f"environment variable CXX names); compiling {self._arithmetic.__name__} failed: "
                f"{error}"
            ) from error
        return _Program(run, makes)


class _FusedIfEqual(_Fused):
    """Arithmetic that is compiled where that is possible and changes no bit."""

    def _compiled(self, tensors: list[Tensor]) -> _Program:
        rows = torch.arange(self._images).clamp(max=len(tensors[0]) - 1)
        group = [tensor[rows] for tensor in tensors]
        written = self._on_tensors(*group)

        def as_written_into_planes(*arguments: Tensor) -> None:
            planes = self._on_tensors(*arguments[: len(tensors)])
            for plane, result in zip(arguments[len(tensors) :], planes, strict=True):
                plane.copy_(result)

        try:
            program = super()._compiled(tensors)
        except RuntimeError:  # a compiler that torch can't use
            return _Program(as_written_into_planes, [torch.empty_like(p) for p in written])
        program.run(*group, *program.makes)
        equal = all(map(torch.equal, program.makes, written))
        return program if equal else _Program(as_written_into_planes, program.makes)
