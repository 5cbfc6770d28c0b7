"""Are the losses and the gradient of a step finite, and if not, which rows were in it?"""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

ROWS = "rows"
_SHOWN, _CHARACTERS = 5, 40


class StepWatch:
    """Looks at the losses and the gradient of a step before the optimiser does.

    Losses stay on their device until the gradient is there too, so that a step costs one wait for
    the device, and all processes come to the same answer.

    Args:
        accelerator: The run's.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rows: list[list[str]] = []
        self.losses: list[Tensor] = []

    def begin(self, rows: list[list[str]]) -> None:
        """A step begins; ``rows`` tell of the rows of each of its batches."""
        self.rows, self.losses = rows, []

    def add(self, loss: Tensor) -> None:
        """The loss of the next batch."""
        self.losses.append(loss.detach())

    def is_finite(self, norm: Tensor | float) -> bool:
        """Whether the losses of all processes and the norm of the gradient are."""
        norm = torch.as_tensor(norm, device=self.losses[0].device)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        scaler = self.accelerator.scaler
        if scaler is not None and scaler.get_scale() > 1:
            norm = torch.zeros_like(norm)  # fp16 overflows now and then: the scaler sees to it
        numbers = torch.stack([*(loss.float() for loss in self.losses), norm.float()])
        return self._everywhere(torch.isfinite(numbers).all())

    def weights_are_finite(self, weights: Iterable[Tensor]) -> bool:
        """Whether all of them are, on all processes, which hold a part each where it is shared."""
        own = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
        return self._everywhere(torch.stack([torch.isfinite(part).all() for part in own]).all())

    def describe(self) -> str:
        """What is not finite in the step, and on which rows; all processes must ask."""
        batches = [(float(loss), rows) for loss, rows in zip(self.losses, self.rows, strict=True)]
        if self.accelerator.num_processes > 1:
            batches = gather_object(batches)
        bad = [(loss, rows) for loss, rows in batches if not math.isfinite(loss)]
        what = f"the loss is {bad[0][0]}" if bad else "the gradient is not finite, but the loss is,"
        told = [row for _, rows in bad or batches for row in rows]
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        return f"{what} on the batch of rows {', '.join(told[:_SHOWN])}{more} (from 0)"

    def _everywhere(self, fine: Tensor) -> bool:
        if self.accelerator.num_processes > 1:
            bad = self.accelerator.reduce((~fine).float(), "sum")
            return bad.item() == 0
        return bool(fine)


class _Told:
    """A collator whose batches also tell of their rows: ``rows``, Q strings."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.collate(rows), ROWS: [_tell(row) for row in rows]}


def with_rows_told(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Let a loader's batches say which rows they were made of."""
    inner = getattr(loader, "base_dataloader", loader)
    inner.collate_fn = _Told(inner.collate_fn)
    return loader


def _tell(row: dict[str, Any]) -> str:
    """Its number, its source where there are several, and how its query begins."""
    query = row["query"]
    cut = query if len(query) <= _CHARACTERS else f"{query[:_CHARACTERS]}..."
    source = f" of train_files[{row['source']}]" if "source" in row else ""
    return f"{row['row']}{source} ({json.dumps(cut, ensure_ascii=False)})"
