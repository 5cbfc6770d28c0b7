"""Evaluations during a run: metrics without a value, failures that must not cost the weights."""

import logging
import math
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerState

from trainers.config.arguments import TandemArguments

logger = logging.getLogger(__name__)


class EvaluationFailed(ValueError):
    """An evaluation raised; the message says why, and what is left of the run."""


class UndefinedMetrics:
    """Keeps metrics without a value away from JSON, from the best model and from the scheduler.

    Attributes:
        best: The metric that chooses the best model, as it is logged.
        reasons: Why metrics had no value at the last evaluation, by name.
    """

    def __init__(self, args: TandemArguments) -> None:
        self.best = f"eval_{(args.metric_for_best_model or '').removeprefix('eval_')}"
        self.reasons: dict[str, str] = {}

    def split_off(
        self, metrics: Mapping[str, float | str], state: TrainerState, main_process: bool
    ) -> dict[str, float]:
        """The metrics that have a value; the others go to the log and to ``trainer_state.json``."""
        defined: dict[str, float] = {}
        self.reasons = {}
        for name, value in metrics.items():
            if isinstance(value, str):
                self.reasons[name] = value
            elif not math.isfinite(value):
                self.reasons[name] = f"it is {value}"
            else:
                defined[name] = value
        if self.reasons:
            if main_process:
                self._warn(state.global_step)
            entry: Any = {
                "undefined": self.reasons,
                "epoch": state.epoch,
                "step": state.global_step,
            }
            state.log_history.append(entry)
        return defined

    def _warn(self, step: int) -> None:
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, names in by_reason.items():
            logger.warning("step %d: undefined: %s (%s)", step, ", ".join(names), reason)
        if self.best in self.reasons:
            logger.warning(
                "step %d: without %s (metric_for_best_model) this model is not compared with "
                "others, and early stopping does not count it", step, self.best,
            )  # fmt: skip

    def warn_of_no_best(self, state: TrainerState) -> None:
        """Say at the end of a run that no evaluation could choose a best model."""
        if state.best_model_checkpoint is None:
            logger.warning(
                "load_best_model_at_end: no evaluation gave %s a value, so that the best model is "
                "unknown; the model is that of the last step", self.best,
            )  # fmt: skip


def describe(error: Exception) -> str:
    """An error in one line; with its place in the code unless it is a user's mistake."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {text}"
