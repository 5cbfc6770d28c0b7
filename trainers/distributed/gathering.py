"""Rows of all processes in one tensor, with their gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_gather, all_reduce, get_rank, get_world_size

# Shapes: n rows of this process, N rows of all processes.


class Gathering:
    """Which rows of a gathered tensor are whose.

    Every process has to make one, at the same point of its work.

    Args:
        count: n; processes may have different numbers.
        device: Of the tensors to gather.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        own = torch.tensor([count], device=device)
        counts = [torch.zeros_like(own) for _ in range(get_world_size())]
        all_gather(counts, own)
        self.counts = [int(other) for other in counts]
        self.start = sum(self.counts[: get_rank()])
        self.own = slice(self.start, self.start + count)

    def gather(self, rows: Tensor) -> Tensor:
        """[n, ...] to [N, ...], process after process.

        The gradient of a row is the sum over all processes, as if one had computed everything.
        """
        gathered: Tensor = _Gather.apply(rows, self.counts, self.own)
        return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], own: slice) -> Tensor:
        ctx.own = own
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        all_gather(found, padded)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        summed = gradient.contiguous()
        all_reduce(summed)
        return summed[ctx.own], None, None
