"""Random numbers that belong to a patient, not to a batch.

Every number is a pure function of (seed, patient, visit, name of the quantity). Nothing depends on
which images are rendered together, in which order, or on which device: a *counter-based* generator
(Salmon et al., SC 2011). The mixing function is the finaliser of SplitMix64 (Steele et al., OOPSLA
2014) on 64-bit integers.

Bulk noise (detector noise, textures, vessel trees) is cut as windows out of one fixed bank of
normal numbers, at places that the counter-based generator chooses.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int

# By name: `np.random` is loaded on its first use, and a Ctrl-C in its loading can be lost.
from numpy.random import Generator, Philox
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, as a signed integer
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_BANK_SIZE = 2**21
_LARGE_BANK_SIZE = 2**24  # for windows of more than a quarter of the other one


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) shift of int64; torch's own shift copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def keys(seed: int, *identities: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """One 64-bit key per image from a seed and its identities (patient, visit, ...), int64."""
    key = torch.full_like(identities[0], (seed * 2 + 1) * 0x2545F4914F6CDD1D % 2**63)
    for identity in identities:
        key = _mix(key + (identity + 1) * _GOLDEN)
    return key


def _uniform(key: Int[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """53 random bits in (0, 1), float64: rounding to float32 later hides the last bit of any
    device.
    """
    return (_shift_right(_mix(key), 11).double() + 0.5) * 2.0**-53


@dataclass(frozen=True)
class Normal:
    """Normal law cut at `cut` standard deviations and at `low`, so that no patient is impossible.
    What is cut is redrawn, not piled up at the border: the inverse of the distribution function
    between both borders.
    """

    mean: float
    sd: float
    shape: tuple[int, ...] = ()
    cut: float = 2.2
    low: float = -math.inf

    def quantity(self, u: Tensor, v: Tensor) -> Tensor:
        least = max(-self.cut, (self.low - self.mean) / self.sd) if self.sd else -self.cut
        below, above = (0.5 * (1 + math.erf(z / math.sqrt(2))) for z in (least, self.cut))
        z = torch.special.ndtri(below + (above - below) * u).clamp(least, self.cut)
        return self.mean + self.sd * z


@dataclass(frozen=True)
class Uniform:
    """Uniform law on [low, high]."""

    low: float
    high: float
    shape: tuple[int, ...] = ()

    def quantity(self, u: Tensor, v: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class Chance:
    """1 with probability `p`, else 0."""

    p: float
    shape: tuple[int, ...] = ()

    def quantity(self, u: Tensor, v: Tensor) -> Tensor:
        return (u < self.p).double()


Law = Normal | Uniform | Chance


class Draws:
    """Named quantities of a group of images: `draws.name` is a tensor (B, *shape), float32.

    A selection (`take`) or another shape (`planes`) is made when a quantity is first asked for, so
    that drawing a few images costs only what they use.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor] | None = None,
        source: Draws | None = None,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._values, self._source, self._view = dict(values or {}), source, view

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            if self._source is None or self._view is None:
                raise KeyError(f"no quantity {name!r}; there are {sorted(self._values)}")
            self._values[name] = self._view(self._source[name])
        return self._values[name]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._values[name] = value

    def renamed(self, new_name: Callable[[str], str]) -> Draws:
        """The same quantities under other names."""
        return Draws({new_name(name): value for name, value in self._values.items()})

    def take(self, rows: Tensor | slice) -> Draws:
        """The quantities of some of the images."""
        return Draws(source=self, view=lambda value: value[rows])

    def names(self) -> tuple[str, ...]:
        """The quantities that it was given, or that were asked of it so far."""
        return tuple(sorted(self._values))

    def planes(self) -> Draws:
        """(B, *shape) -> (B, *shape, 1, 1), ready to broadcast against pixels (B, H, W)."""
        return Draws(source=self, view=lambda value: value[..., None, None])


def draw(laws: Mapping[str, Law], key: Int[Tensor, " B"]) -> Draws:
    """Draws every quantity of a table of laws for every key.

    A quantity's number depends on its key and its *name* only: adding a row to a table changes no
    other row.
    """
    names = list(laws)
    widths = [math.prod(laws[name].shape) for name in names]
    columns = torch.tensor(
        [
            zlib.crc32(name.encode()) * 4096 + column
            for name, width in zip(names, widths, strict=True)
            for column in range(width)
        ],
        device=key.device,
    )
    counter = key[:, None] + columns * _GOLDEN
    u, v = _uniform(counter), _uniform(counter ^ _MIX_2)
    draws, start = Draws(), 0
    for name, width in zip(names, widths, strict=True):
        part = slice(start, start + width)
        value = laws[name].quantity(u[:, part], v[:, part]).float()
        draws[name] = value.reshape(len(key), *laws[name].shape)
        start += width
    return draws


@cache
def _bank(device: torch.device, size: int) -> Tensor:
    generator = Generator(Philox(20190713))
    return torch.from_numpy(generator.standard_normal(size, dtype=np.float32)).to(device)


def noise(key: Int[Tensor, " B"], name: str, *shape: int) -> Float[Tensor, "B ..."]:
    """Standard normal numbers (B, *shape), cut out of the bank at a place chosen by key and
    name.
    """
    size = math.prod(shape)
    if size > _LARGE_BANK_SIZE // 16:
        raise ValueError(f"noise of {size} numbers an image; at most {_LARGE_BANK_SIZE // 16}")
    whole = _BANK_SIZE if 4 * size <= _BANK_SIZE else _LARGE_BANK_SIZE
    places = whole - size
    salted = _mix(key ^ zlib.crc32(name.encode()))
    start = _shift_right(salted, 1) % places
    return _bank(key.device, whole).unfold(0, size, 1)[start].reshape(len(key), *shape)
