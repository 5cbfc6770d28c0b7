"""Training curves: losses, learning rate, and the metrics of each evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from evaluation.report.drawing import SERIES, Drawing, describe, draw, figure_words, horizontal_grid
from evaluation.report.wording import WORDS, Language, Words

Log = Sequence[Mapping[str, Any]]  # the ``log_history`` of a run's trainer_state.json
Line = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps [N] and values [N]

# Logged by an evaluation, and no metric of the model.
TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
MANY = 60  # values of a curve, above which it has no dots, but its running mean beside it


def draw_run(log: Log, language: Language) -> list[Drawing]:
    """Draw losses, learning rate, in-batch accuracy and the metrics of each evaluation."""
    training, evaluation = "training_loss", "evaluation_loss"
    metrics = {
        key: key.removeprefix("eval_")
        for entry in log
        for key in entry
        if key.startswith("eval_")
        and not key.endswith(TIMES)
        and key not in ("eval_loss", "eval_in_batch_accuracy")
    }
    figures = {
        "loss": {"loss": training, "eval_loss": evaluation},
        "learning_rate": {"learning_rate": "learning_rate"},
        "in_batch_accuracy": {
            "in_batch_accuracy": training,
            "eval_in_batch_accuracy": evaluation,
        },
        "evaluation_metrics": metrics,
    }
    drawn = (draw_curves(name, log, keys, language) for name, keys in figures.items())
    return [drawing for drawing in drawn if drawing]


def draw_curves(name: str, log: Log, keys: Mapping[str, str], language: Language) -> Drawing | None:
    """Draw the curves logged under ``keys`` (with their labels); None if there are none."""
    lines = {label: line for key, label in keys.items() if len((line := series(log, key))[0])}
    if not lines:
        return None
    words, page = figure_words(language), WORDS[language]

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (label, line) in enumerate(lines.items()):
            style = "-" if at < len(SERIES) else "--"
            color, marker = SERIES[at % len(SERIES)], "o" if len(line[0]) <= MANY else ""
            axes.plot(*line, style, color=color, label=words.get(label, label), marker=marker)
            if label == "training_loss":
                plot_mean(axes, line, words["running_mean"], color)
        axes.set_title(words[name])
        axes.set_xlabel(words["step"])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
        if name == "learning_rate":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        else:
            axes.legend(ncols=2 if len(lines) > 3 else 1)
        horizontal_grid(axes)

    said = [curve_in_words(page.get(label, label), line, page) for label, line in lines.items()]
    return draw(name, describe(page[name], said, page), plot)


def series(log: Log, key: str) -> Line:
    """Steps and values logged as ``key``."""
    found = [(entry["step"], entry[key]) for entry in log if key in entry and "step" in entry]
    values = np.array(found, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def plot_mean(axes: Axes, line: Line, label: str, color: str) -> None:
    """Let a long curve, which is all noise, fade behind its running mean."""
    steps, values = line
    if len(steps) <= MANY:
        return
    axes.lines[-1].set(alpha=0.35, linewidth=1, label="_")
    width = len(values) // 20
    mean = np.convolve(values, np.ones(width) / width, mode="valid")
    start = width // 2
    axes.plot(steps[start : start + len(mean)], mean, color=color, label=label)


def curve_in_words(label: str, line: Line, words: Words) -> str:
    """Where a curve starts and where it ends."""
    steps, values = line
    said = words["at" if len(steps) == 1 else "from_to"]
    return said.format(
        name=label,
        first=f"{values[0]:.4g}",
        last=f"{values[-1]:.4g}",
        start=f"{steps[0]:.0f}",
        end=f"{steps[-1]:.0f}",
    )
