"""Several processes that train as one: each has its share of the batch, gradients are averaged.

Started by `torchrun`. No wrapper around a network: one flat all-reduce for each phase, which also
holds for a gradient penalty (a `DistributedDataParallel` raises there, since the last bias has no
gradient).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each of its processes."""


class BatchSizeError(ValueError):
    """A size of a batch that the processes or the images do not allow; says which they would."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size` of them. One process alone is rank 0 of 1, and nothing is sent."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This rank's rows of a batch.

        Raises:
            BatchSizeError: the batch cannot be cut into equal shares.
        """
        if batch_size % self.size:
            raise BatchSizeError(
                f"batch_size: expected a multiple of {self.size} processes, got {batch_size}"
            )
        n = batch_size // self.size
        return slice(self.rank * n, (self.rank + 1) * n)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces each gradient by its mean over the ranks.

        A parameter that has a gradient on some rank counts as zero on the others (one met no box in
        its share). One that has none anywhere stays without: as zero it would let Adam's momentum
        move what the phase does not touch. Which is which is agreed on by the processors, over
        gloo, so that nothing waits for a GPU.
        """
        if self.size == 1:
            return
        moving = [p for p in parameters if p.requires_grad]
        has_gradient = torch.tensor([p.grad is not None for p in moving], dtype=torch.uint8)
        dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
        chosen = [p for p, there in zip(moving, has_gradient.tolist(), strict=True) if there]
        if not chosen:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in chosen]
        flat = torch.cat([g.flatten().float() for g in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([p.numel() for p in chosen])
        for parameter, part in zip(chosen, parts, strict=True):
            # in the parameter's layout: see `performance.set_fused`
            parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))

    def average_batch_norms(self, networks: Iterable[nn.Module]) -> None:
        """Replaces the running statistics of batch norms by their mean over the ranks. Every other
        buffer (a mask, a reference, a pool of images) is each rank's own.
        """
        if self.size == 1:
            return
        chosen = [b for network in networks for b in _statistics(network)]
        if not chosen:
            return
        flat = torch.cat([b.flatten().float() for b in chosen])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([b.numel() for b in chosen])
        for buffer, part in zip(chosen, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=device)) > 0)

    def broadcast_parameters(self, networks: Iterable[nn.Module]) -> None:
        """Every rank takes the weights and buffers of rank 0."""
        if self.size == 1:
            return
        for network in networks:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, 0)

    def gather(self, state: Any) -> list[Any]:
        """What each rank has, on every rank."""
        if self.size == 1:
            return [state]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, state)
        return gathered

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()


def own_buffers(network: nn.Module) -> dict[str, Tensor]:
    """What a network holds that is neither trained nor averaged: each rank has its own."""
    shared = {id(tensor) for tensor in [*network.parameters(), *_statistics(network)]}
    state = network.state_dict(keep_vars=True)
    return {key: tensor.cpu() for key, tensor in state.items() if id(tensor) not in shared}


def _statistics(network: nn.Module) -> list[Tensor]:
    """The running means and variances of its batch norms."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]


def _started_by_torchrun() -> bool:
    """Whether this is one of several processes; warns if it seems so and something is missing."""
    several = os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")
    missing = [name for name in TORCHRUN if not os.environ.get(name)]
    if several and missing:
        warnings.warn(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} not set: this "
            "process trains alone; torchrun starts several that train together",
            stacklevel=4,
        )
    return several and not missing


@contextmanager
def init_distributed(device: torch.device | str) -> Iterator[tuple[Ranks, torch.device]]:
    """This process among those of `torchrun`, and its device; alone where there is no `torchrun`.

    A cluster sets some of torchrun's variables for programs that know nothing of each other; only
    all of them together count. On CUDA each process takes the GPU of its local rank and NCCL, on a
    CPU gloo.
    """
    device = torch.device(device)
    if not _started_by_torchrun():
        yield Ranks(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # What the processors agree on goes over gloo also where gradients go over NCCL
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
