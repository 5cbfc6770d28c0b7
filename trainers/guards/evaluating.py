"""Evaluations of a run: they may fail, or have figures without a value, and cost no weights."""

import logging
import math
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import GreedyLR
from transformers.trainer_utils import get_last_checkpoint

from trainers.checkpoints.trainer import CheckpointTrainer
from trainers.checkpoints.write_errors import SavingFailed
from trainers.distributed.sharding import whole
from trainers.guards.nan_guard import FiniteTrainer, NotFiniteError

logger = logging.getLogger(__name__)


class Measure(Protocol):
    """Gives figures of a model by name: a number each, or the reason why there is none."""

    def __call__(self, model: Any) -> Mapping[str, float | str]: ...

    def few(self) -> "Measure":
        """The same on a few rows."""


class EvaluationFailed(ValueError):
    """An evaluation that could not be done; the message says why, and what is left of the run."""


class EvaluatingTrainer(FiniteTrainer, CheckpointTrainer):
    """A ``Trainer`` that measures its model, and that no evaluation deprives of its weights.

    Attributes:
        measure: Called with the model at every evaluation, on every process; may be None.
        undefined: What had no value at the last evaluation, with the reasons.
    """

    measure: Measure | None = None
    undefined: dict[str, str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.undefined = {}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """``Trainer``'s; before the last one of a run the final model is saved, if it is known.

        Raises:
            EvaluationFailed: Whatever went wrong; in training there is a checkpoint of this step.
        """
        last = self.is_in_train and self.state.global_step >= self.state.max_steps
        if last and not self.args.load_best_model_at_end:
            self.save_model(_internal_call=True)
        try:
            return super().evaluate(*args, **kwargs)
        except (NotFiniteError, SavingFailed):
            raise
        except Exception as error:
            failed = f"the evaluation after step {self.state.global_step} failed: {told(error)}"
            raise EvaluationFailed(f"{failed}; {self._what_is_left()}") from error

    def _what_is_left(self) -> str:
        """Save a checkpoint, and name it."""
        run = self.args.output_dir
        if not self.is_in_train:
            return f"the model of this step is in {run}"
        # Alone only: of several processes, not all may have come here.
        if self.args.world_size == 1 and self._step_saved != self.state.global_step:
            self._save_checkpoint(self.model, None)
        last = get_last_checkpoint(str(run))
        return "there is no checkpoint yet" if last is None else f"the last checkpoint is {last}"

    def measured(self, measure: Measure) -> dict[str, float | str]:
        """The figures of the model as it is now."""
        reshard = self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.reshard_after_forward
        model: nn.Module
        with whole(self.accelerator.unwrap_model(self.model), reshard) as model:
            return dict(measure(model))

    def keep_defined(self, figures: Mapping[str, float | str]) -> dict[str, float]:
        """Figures that have a value; the others are told in the log and in ``trainer_state.json``.

        JSON has no NaN, and nobody could compare by it.
        """
        self.undefined = {
            name: value if isinstance(value, str) else f"it is {value}"
            for name, value in figures.items()
            if isinstance(value, str) or not math.isfinite(value)
        }
        if self.undefined and self.is_world_process_zero():
            step, best = self.state.global_step, self._best_metric()
            for reason, names in _by_reason(self.undefined).items():
                logger.warning("step %d: undefined: %s (%s)", step, ", ".join(names), reason)
            if best in self.undefined:
                logger.warning(
                    "step %d: without %s (metric_for_best_model) this model is not compared with "
                    "others, and early stopping does not count it", step, best,
                )  # fmt: skip
        if self.undefined:
            epoch = self.state.epoch
            entry: Any = {
                "undefined": self.undefined,
                "epoch": epoch,
                "step": self.state.global_step,
            }
            self.state.log_history.append(entry)
        return {
            n: v for n, v in figures.items() if n not in self.undefined and not isinstance(v, str)
        }

    def _best_metric(self) -> str:
        return f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """``Trainer``'s, which does not know that a metric may have no value."""
        if self._best_metric() in self.undefined:
            return False
        return super()._determine_best_metric(metrics, trial)

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False
    ) -> dict[str, float]:
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)
        scheduler: Any = self.lr_scheduler
        waits = isinstance(scheduler, ReduceLROnPlateau | GreedyLR) and not skip_scheduler
        if waits and self._best_metric() in metrics:
            scheduler.step(metrics[self._best_metric()])
        return metrics

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """``Trainer``'s, with word of it where there is no best model to load at the end."""
        output = super().train(*args, **kwargs)
        unknown = self.args.load_best_model_at_end and self.state.best_model_checkpoint is None
        if unknown and self.is_world_process_zero():
            logger.warning(
                "load_best_model_at_end: no evaluation gave %s a value, so that the best model is "
                "not known; the model is that of the last step", self._best_metric(),
            )  # fmt: skip
        return output


def _by_reason(undefined: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in undefined.items():
        found.setdefault(reason, []).append(name)
    return found


def told(error: Exception) -> str:
    """An error in one line; one that is no user's mistake with its place."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {text}"
