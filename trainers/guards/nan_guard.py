"""NaN guard: no step with a non-finite loss or gradient is taken, no such weights are saved."""

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import TrainerState
from transformers.trainer_utils import get_last_checkpoint

from trainers.config.arguments import TandemArguments

_ROW_NAMES = "row_names"  # key of a batch
_MOST_SHOWN, _MOST_CHARACTERS = 5, 40


class NonFiniteError(ValueError):
    """A run that cannot go on; the message gives the step, its rows, and the last checkpoint."""


class NaNGuard:
    """Checks the losses and the gradient of a step before the optimizer sees them.

    Losses stay on their device until the gradient is there too, so that a step synchronises with
    the device once. All processes come to the same answer.

    Args:
        args: The run's; ``on_bad_loss`` says whether a bad step stops the run or is skipped.
        accelerator: The run's.
    """

    def __init__(self, args: TandemArguments, accelerator: Accelerator) -> None:
        self.args, self.accelerator = args, accelerator
        self.row_names: list[list[str]] = []
        self.losses: list[Tensor] = []

    def name_rows(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Let a loader's batches name their rows, for messages; ``begin_step`` takes that out."""
        inner = getattr(loader, "base_dataloader", loader)
        inner.collate_fn = partial(_with_row_names, inner.collate_fn)
        return loader

    def begin_step(self, batches: list[dict[str, Any]]) -> None:
        """Start a step of these batches, and take the names of their rows out of them."""
        self.row_names, self.losses = [batch.pop(_ROW_NAMES) for batch in batches], []

    def add_loss(self, loss: Tensor) -> None:
        """Note the loss of the step's next batch."""
        self.losses.append(loss.detach())

    def find_bad_step(self, model: nn.Module, norm: Tensor | float, step: int) -> str | None:
        """What is not finite in a step that is to be skipped; None: the step may be taken.

        Args:
            model: For its weights.
            norm: Of the step's gradient.
            step: Its number, for the message.

        Raises:
            NonFiniteError: On all processes, if the run must stop.
        """
        if self._is_finite(norm):
            return None
        reason = f"step {step}: {self._describe()}"
        if not self._weights_are_finite(model):
            raise self._stop(f"{reason}, as the weights are not finite; lower learning_rate")
        if self.args.on_bad_loss == "error":
            raise self._stop(
                f'{reason}; check them, lower learning_rate, or set on_bad_loss to "skip" to skip '
                "such steps"
            )
        return reason

    def check_weights(self, model: nn.Module, step: int) -> None:
        """Refuse to save weights that are not finite.

        Raises:
            NonFiniteError: On all processes.
        """
        if not self._weights_are_finite(model):
            remedy = "lower learning_rate" if step else "model_name_or_path must name another model"
            raise self._stop(
                f"step {step}: the weights are not finite, and are not saved; {remedy}"
            )

    def _is_finite(self, norm: Tensor | float) -> bool:
        norm = torch.as_tensor(norm, device=self.losses[0].device)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        scaler = self.accelerator.scaler
        if scaler is not None and scaler.get_scale() > 1:
            # fp16 gradients overflow now and then; the scaler skips those steps by itself.
            norm = torch.zeros_like(norm)
        numbers = torch.stack([*(loss.float() for loss in self.losses), norm.float()])
        return self._on_all_processes(torch.isfinite(numbers).all())

    def _weights_are_finite(self, model: nn.Module) -> bool:
        own = [w.to_local() if isinstance(w, DTensor) else w for w in model.parameters()]
        return self._on_all_processes(torch.stack([w.isfinite().all() for w in own]).all())

    def _on_all_processes(self, finite: Tensor) -> bool:
        bad = self.accelerator.reduce((~finite).float(), "sum")
        return bool(bad.item() == 0)

    def _describe(self) -> str:
        """What is not finite in the step, and on which rows; a collective operation."""
        batches = gather_object(
            [(float(loss), rows) for loss, rows in zip(self.losses, self.row_names, strict=True)]
        )
        bad = [(loss, rows) for loss, rows in batches if not math.isfinite(loss)]
        what = f"the loss is {bad[0][0]}" if bad else "the gradient is not finite, but the loss is,"
        rows = [row for _, names in bad or batches for row in names]
        more = f" and {len(rows) - _MOST_SHOWN} more" if len(rows) > _MOST_SHOWN else ""
        return f"{what} on the batch of rows {', '.join(rows[:_MOST_SHOWN])}{more} (from 0)"

    def _stop(self, reason: str) -> NonFiniteError:
        last = get_last_checkpoint(str(self.args.output_dir))
        found = "there is no checkpoint yet" if last is None else f"the last checkpoint is {last}"
        return NonFiniteError(f"{reason}; {found}")


def count_skipped(state: TrainerState) -> int:
    """Steps skipped in the run, those before a resume included."""
    return sum("skipped_steps" in entry for entry in state.log_history)


def _with_row_names(
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    return {**collate(rows), _ROW_NAMES: [_row_name(row) for row in rows]}


def _row_name(row: dict[str, Any]) -> str:
    """Its number, its source where there are several, and the beginning of its query."""
    query = row["query"]
    if len(query) > _MOST_CHARACTERS:
        query = f"{query[:_MOST_CHARACTERS]}..."
    source = f" of train_files[{row['source']}]" if "source" in row else ""
    return f"{row['row']}{source} ({json.dumps(query, ensure_ascii=False)})"
