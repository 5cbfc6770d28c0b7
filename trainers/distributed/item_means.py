"""Means of metrics over the items of many batches, on all processes."""

from collections import defaultdict

import torch
from accelerate import Accelerator
from torch import Tensor


class ItemMeans:
    """Sums up metrics batch by batch, on their device, and gives their means when asked."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.clear()
        self._before: dict[str, list[Tensor]] = {}

    def add(self, name: str, value: Tensor, items: Tensor) -> None:
        """Add the mean of a metric over the ``items`` of one batch; all are scalars []."""
        sums = self._sums[name]
        sums[0] = sums[0] + value.detach().float() * items
        sums[1] = sums[1] + items

    def begin_step(self) -> None:
        """Remember the sums before a step, for ``undo_step``."""
        self._before = {name: list(sums) for name, sums in self._sums.items()}

    def undo_step(self) -> None:
        """Forget what was added since the step began."""
        self.clear()
        self._sums.update(self._before)

    def clear(self) -> None:
        """Forget everything."""
        zero = torch.zeros((), device=self.accelerator.device)
        self._sums: dict[str, list[Tensor]] = defaultdict(lambda: [zero, zero])

    def pop(self) -> dict[str, float]:
        """The means since the last call; a collective operation."""
        means = {}
        for name, sums in self._sums.items():
            total = self.accelerator.reduce(torch.stack(sums), "sum")
            means[name] = (total[0] / total[1]).item()
        self.clear()
        return means
