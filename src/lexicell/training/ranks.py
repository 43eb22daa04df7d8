"""What processes of one run tell each other: sums, and rows gathered with their gradients.

A gradient is averaged over processes (by DDP and by FSDP2 alike). So each process returns a loss whose mean over
processes is the loss of the global batch: a share is summed over its own cells, divided by the global number, and
multiplied by the number of processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum over processes, without gradient; all must call it."""
    summed = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(summed)
    return summed


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes one after the other: (b, ...) -> (processes * b, ...).

    Every process must have as many. The gradient of a row is summed over the processes that used it.
    """
    return _GatherRows.apply(rows) if world_size() > 1 else rows  # type: ignore[no-untyped-call]


class _GatherRows(torch.autograd.Function):
    """All-gather, whose backward pass sums over processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """Gather."""
        ctx.n_rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Sum what all processes found for each row, and take the own ones."""
        total = sum_over_ranks(gradients[0].contiguous())
        return total[rank() * ctx.n_rows : (rank() + 1) * ctx.n_rows]
