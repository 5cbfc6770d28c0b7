"""Whether a run makes its model better: the base is measured before the first step."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import TrainerState

from encoders.backbone import Encoder
from evaluation.measure import Evaluated, Evaluator
from evaluation.metrics.comparison import Comparison
from trainers.config.arguments import TandemArguments
from trainers.guards.evaluations import EvaluationFailed, describe

logger = logging.getLogger(__name__)


class BaseComparison:
    """Compares the model of a run with the one it began with, by the first metric of ``evaluator``.

    The comparisons go to the log and to ``trainer_state.json``.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.base: Evaluated | None = None

    def begin(self, model: Encoder) -> None:
        """Measure the model before its first step.

        Raises:
            EvaluationFailed: It cannot be measured.
        """
        try:
            self.evaluator.few().evaluate(model)  # what cannot work is seen soon
            self.base = self.evaluator.evaluate(model)
            value = self.evaluator.metric_values(self.base)[self.evaluator.metrics[0]]
        except Exception as error:
            raise EvaluationFailed(
                f"the base cannot be measured on eval_file: {describe(error)}; nothing was trained"
            ) from error
        shown = value if isinstance(value, str) else format(value, ".4f")
        logger.info("base: %s %s", self.evaluator.metrics[0], shown)

    def compare(self, found: Evaluated, state: TrainerState) -> None:
        """Compare an evaluation of the model with the base's."""
        if self.base is None:  # an evaluation without training
            return
        try:
            compared = self.evaluator.compare(self.base, found)
        except ValueError:  # undefined, which is told of the metric itself
            return
        add_comparison(state, self.evaluator.metrics[0], compared)


def copy_new_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies, before training, of weights that the base lacks (a new head): they complete it."""
    names: Any = getattr(model, "new_weights", ())
    return {n: w.detach().cpu().clone() for n, w in model.state_dict().items() if n in names}


def add_comparison(state: TrainerState, metric: str, compared: Comparison) -> None:
    """Add a comparison with the base to the log and to ``trainer_state.json``."""
    own = {name: value for name, value in compared._asdict().items() if value is not None}
    entry: Any = {"base": {"metric": metric, **own}, "epoch": state.epoch}
    state.log_history.append(entry | {"step": state.global_step})
    logger.info("step %d: %s", state.global_step, in_words(entry["base"]))


def find_comparison(log: Sequence[Mapping[str, Any]], step: int) -> dict[str, Any] | None:
    """The latest comparison of the model of a step, in a ``log_history``."""
    found = [entry["base"] for entry in log if "base" in entry and entry["step"] == step]
    return found[-1] if found else None


def in_words(compared: Mapping[str, Any]) -> str:
    """A comparison in a line."""
    return (
        f"{compared['metric']} {compared['tuned']:.4f}, base {compared['base']:.4f}: "
        f"{compared['difference']:+.4f} [{compared['low']:+.4f}, {compared['high']:+.4f}]"
    )


def warning(compared: Mapping[str, Any], args: TandemArguments) -> str:
    """What is said of a model that is surely worse than its base."""
    what = "try a lower learning_rate, merge_with_base auto, or more and cleaner rows"
    if args.on_worse == "keep_base":
        what = "the base is saved instead (on_worse)"
    return f"the model is worse than its base on eval_file: {in_words(compared)}; {what}"
