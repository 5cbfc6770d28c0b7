"""A step that would bring NaN into the model is not taken; weights that have it are not saved."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from trainers.guards.step_watch import ROWS, StepWatch, with_rows_told

if TYPE_CHECKING:
    from trainers.config.arguments import TandemArguments

logger = logging.getLogger(__name__)


class NotFiniteError(ValueError):
    """A run that cannot go on; the message gives the step, its rows, and the last checkpoint."""


class FiniteTrainer(Trainer):
    """A ``Trainer`` that stops at a loss or gradient that is not finite, or skips the step.

    Which of the two says ``on_bad_loss``. Weights that are not finite always stop it, and are never
    written. The processes of a run decide alike.
    """

    args: "TandemArguments"
    model: nn.Module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch = StepWatch(self.accelerator)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """``Trainer``'s, with word of the rows in its batches."""
        return with_rows_told(super().get_train_dataloader())

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """``Trainer``'s, with that word taken out again."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.watch.begin([batch.pop(ROWS) for batch in batches])
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """``Trainer``'s, seen by the watch."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self.watch.add(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """``Trainer`` asks between the last backward of a step and the optimiser."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.watch.is_finite(norm):
            return norm
        step = f"step {self.state.global_step + 1}: {self.watch.describe()}"
        if not self.watch.weights_are_finite(model.parameters()):
            raise self._stopped(f"{step}, as the weights are not finite; lower learning_rate")
        if self.args.on_bad_loss == "error":
            raise self._stopped(
                f'{step}; look at them, lower learning_rate, or set on_bad_loss to "skip" to go '
                "on without such batches"
            )
        self.skip_step(model, step)
        return None

    def skip_step(self, model: nn.Module, reason: str) -> None:
        """Without gradients the optimiser leaves weights, and what it knows of them, alone."""
        model.zero_grad(set_to_none=True)
        if self.is_world_process_zero():
            logger.warning("%s; skipped (on_bad_loss)", reason)
        self.log({"skipped_steps": self.skipped_steps + 1})

    @property
    def skipped_steps(self) -> int:
        """Steps that were skipped in the run, those before a resume too."""
        return sum("skipped_steps" in entry for entry in self.state.log_history)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """``Trainer``'s, but weights that are not finite are not written."""
        self.check_weights()
        super().save_model(output_dir, _internal_call)

    def check_weights(self) -> None:
        """Raise ``NotFiniteError`` if the weights are not finite."""
        if not self.watch.weights_are_finite(self.model.parameters()):
            step = self.state.global_step
            remedy = "lower learning_rate" if step else "model_name_or_path must name another model"
            raise self._stopped(
                f"step {step}: the weights are not finite, and are not saved; {remedy}"
            )

    def _stopped(self, reason: str) -> NotFiniteError:
        last = get_last_checkpoint(str(self.args.output_dir))
        found = "there is no checkpoint yet" if last is None else f"the last checkpoint is {last}"
        return NotFiniteError(f"{reason}; {found}")
