"""The order of the data and every random number, as pure functions of seed, epoch and step.

Nothing of it has to be saved: to resume at step s is to begin with batch s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Order = Callable[[int, int], Int[Tensor, " n"]]
"""(seed, epoch) -> the rows of one pass, in order."""


def generator(*key: int | str) -> torch.Generator:
    """A generator on the CPU that belongs to the key and to nothing else."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Inside, torch's global generators (of the CPU and all GPUs) belong to the key; outside, they
    are as they were. For what can only draw globally: the initial weights of `torch.nn`, dropout.
    """
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(generator(*key).initial_seed())
        yield


def shuffled(rows: Int[Tensor, " n"]) -> Order:
    """Every row once in each epoch."""

    def order(seed: int, epoch: int) -> Int[Tensor, " n"]:
        return rows[torch.randperm(len(rows), generator=generator("order", seed, epoch))]

    return order


@dataclass(frozen=True, eq=False)
class Balanced:
    """Rows of two groups in turn: first, second, first, ...; see `balanced`.

    Attributes:
        first, second: rows of the groups.
        n: of each in an epoch.
        group: rows that belong together; a share of a batch that cut them apart would begin with
            the second.
    """

    first: Int[Tensor, " n"]
    second: Int[Tensor, " m"]
    n: int
    group: int = 2

    def __call__(self, seed: int, epoch: int) -> Int[Tensor, " k"]:
        """The rows of one pass."""
        draw = generator("balanced", seed, epoch)
        pair = []
        for rows in (self.first, self.second):
            rounds = [
                torch.randperm(len(rows), generator=draw) for _ in range(-(-self.n // len(rows)))
            ]
            pair.append(rows[torch.cat(rounds)[: self.n]])
        return torch.stack(pair, 1).flatten()


def balanced(
    first: Int[Tensor, " n"], second: Int[Tensor, " m"], *, largest: bool = False
) -> Balanced:
    """Rows of two groups in turn: first, second, first, ...; any even share of a batch is half and
    half.

    An epoch has each row of the smaller group once and as many of the larger, another selection
    each time; with `largest`, each row of the larger group once, and the smaller is repeated.

    Raises:
        ValueError: a group is empty.
    """
    if not len(first) or not len(second):
        raise ValueError(
            f"expected two groups with images, got {len(first)} in the first and {len(second)} in "
            "the second"
        )
    sizes = len(first), len(second)
    return Balanced(first, second, max(sizes) if largest else min(sizes))


def uniforms(
    n: int, count: int, *, seed: int, step: int, position: int
) -> Float[Tensor, "n count"]:
    """Numbers in [0, 1) for the n images of one phase (its position in the step), on the CPU."""
    if not count:
        return torch.empty(n, 0)
    return torch.rand(n, count, generator=generator("draws", seed, step, position))


def split_by(rows: Int[Tensor, " n"], is_second: Bool[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """The rows where the flag is off, and those where it is on."""
    return rows[~is_second], rows[is_second]
