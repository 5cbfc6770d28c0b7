"""Search of settings: ranges in a recipe, and what a trial with values from them is worth."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainers.base import BaseTrainer

Form = Literal["log", "uniform", "choice"]
FORMS = ("log", "uniform", "choice")


@dataclass(frozen=True)
class Range:
    """A range of values: ``{"log": [1e-5, 2e-4]}``, ``{"choice": [16, 32]}``.

    Args:
        name: Of the setting; those of ``loss_args`` behind a dot.
        form: "log" and "uniform" draw between two ends, whole numbers if both are.
        values: The ends, or what to choose from.
    """

    name: str
    form: Form
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.form == "choice":
            if len(self.values) < 2:
                raise ValueError(f"{self.name}: choice needs two values or more")
            return
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(self.values) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
            raise ValueError(
                f"{self.name}: {self.form} takes two numbers, the lower first, got "
                f"{list(self.values)}"
            )
        if self.form == "log" and not numbers[0] > 0:
            raise ValueError(f"{self.name}: log needs a lower end above 0, got {numbers[0]}")

    def draw(self, trial: Any) -> Any:
        """The value of a trial of Optuna."""
        if self.form == "choice":
            return trial.suggest_categorical(self.name, self.values)
        is_whole = all(isinstance(end, int) for end in self.values)
        suggest = trial.suggest_int if is_whole else trial.suggest_float
        return suggest(self.name, *self.values, log=self.form == "log")


def find_ranges(recipe: Mapping[str, Any], prefix: str = "") -> list[Range]:
    """The ranges of a recipe, also inside its objects.

    Raises:
        ValueError: A range that cannot be.
    """
    return list(_ranges(recipe, prefix))


def _ranges(recipe: Mapping[str, Any], prefix: str) -> Iterator[Range]:
    for name, value in recipe.items():
        if not isinstance(value, Mapping):
            continue
        form = next(iter(value), None)
        # Lists: columns and label_map may have such names too.
        if len(value) == 1 and form in FORMS and isinstance(value[form], list):
            yield Range(prefix + name, cast(Form, form), tuple(value[form]))
        else:
            yield from _ranges(value, f"{prefix}{name}.")


def fill(recipe: Mapping[str, Any], values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The recipe with values, by the ranges' names, in their places."""
    filled: dict[str, Any] = copy.deepcopy(dict(recipe))
    for key, value in filled.items():
        name = prefix + key  # may have dots of its own, as in label_map
        if name in values:
            filled[key] = values[name]
        elif isinstance(value, Mapping):
            filled[key] = fill(value, values, f"{name}.")
    return filled


class TrialReporter(TrainerCallback):
    """Tells the study of each evaluation, and ends a run that it gives up.

    Args:
        trial: Of Optuna, on the main process; None elsewhere.
        metric: As in the log: "eval_ndcg@10".
    """

    def __init__(self, trial: Any, metric: str) -> None:
        self.trial, self.metric = trial, metric
        self.values: dict[int, float] = {}  # by step, of evaluations where it is defined
        self.pruned = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Report; the main process decides for all."""
        value, gives_up = kwargs["metrics"].get(self.metric), False
        if value is not None:
            self.values[state.global_step] = value
        if self.trial is not None and value is not None:
            self.trial.report(value, state.global_step)
            gives_up = self.trial.should_prune() and state.global_step < state.max_steps
        self.pruned |= broadcast(gives_up)
        control.should_training_stop |= self.pruned

    def value(self, state: TrainerState, takes_best: bool) -> float | None:
        """The metric of the saved model: at the run's last evaluation, or at its best."""
        best = state.best_global_step if takes_best else None
        return self.values.get(state.global_step if best is None else best)


def find_metric(metric: str | None, trainer: BaseTrainer) -> str:
    """What a trial is judged by: the metric asked for, or the first of ``eval_file``.

    Raises:
        ValueError: It is not measured.
    """
    measured = [] if trainer.evaluator is None else list(trainer.evaluator.metrics)
    known = measured + ["loss"] * (trainer.eval_dataset is not None)
    if not known:
        raise ValueError("eval_file: is missing in the recipe: the search chooses by its metrics")
    found = metric or next(iter(measured), None)
    if found not in known:
        raise ValueError(
            f"metric: {found} is not measured; give one of {', '.join(known)}"
            if found
            else "metric: the recipe measures nothing but the loss; give --metric loss"
        )
    return found


def broadcast(value: Any) -> Any:
    """The main process's value, on every process."""
    return broadcast_object_list([value])[0]
