"""All-gather with gradients, for tensors whose first dimension differs between processes."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_gather, all_reduce, get_rank, get_world_size

from common.similarity import widen

# Shapes: n rows of this process, N rows of all processes.


class Gathering:
    """Where each process's rows are in a gathered tensor.

    Creating one is a collective operation.

    Args:
        count: n, which may differ between processes.
        device: Of the tensors to gather.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        own = torch.tensor([count], device=device)
        counts = [torch.zeros_like(own) for _ in range(get_world_size())]
        all_gather(counts, own)
        self.counts = [int(each) for each in counts]
        self.start = sum(self.counts[: get_rank()])
        self.own = slice(self.start, self.start + count)

    def gather(self, rows: Tensor) -> Tensor:
        """[n, ...] to [N, ...], process after process; vectors of tokens [n, L, H] to the widest L.

        The gradient of a row is summed over all processes, as if one had computed everything.
        """
        if rows.dim() == 3:
            widths = Gathering(rows.shape[1], rows.device).counts
            rows = widen(rows, max(widths))
        gathered: Tensor = _Gather.apply(rows, self.counts, self.own)  # type: ignore[no-untyped-call]
        return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], own: slice) -> Tensor:
        ctx.own = own
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        all_gather(found, padded)
        return torch.cat([each[:count] for each, count in zip(found, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        summed = gradient.contiguous()
        all_reduce(summed)
        return summed[ctx.own], None, None
