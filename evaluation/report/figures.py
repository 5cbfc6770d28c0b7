"""Figures of results: base against fine-tuned, and the distributions of scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from encoders.kinds import KINDS
from evaluation.report.curves import Log, draw_run
from evaluation.report.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Drawing,
    describe,
    draw,
    figure_words,
    horizontal_grid,
)
from evaluation.report.fonts import can_draw
from evaluation.report.wording import WORDS, Language, Words
from evaluation.results import BASE, TUNED, MetricResult, Results, ScoreSamples

# Names of all figures that a report may have.
FIGURES = ("comparison", "scores", "loss", "learning_rate", "in_batch_accuracy",
           "evaluation_metrics")  # fmt: skip
BINS = 40
NAME_KEPT = 44  # characters of a model's name in a legend


def draw_figures(results: Results | None, log: Log | None, language: Language) -> list[Drawing]:
    """Draw all figures for which there is something to show, the comparison first."""
    found: list[Drawing | None] = []
    if results is not None:
        bars = draw_bars(results, language) if results.defined() else None
        found = [bars, draw_scores(results, language)]
    return [*(drawing for drawing in found if drawing), *draw_run(log or [], language)]


def draw_bars(results: Results, language: Language) -> Drawing:
    """Draw each defined metric of base and fine-tuned, with the interval of the difference."""
    metrics, compared = results.defined(), results.compared
    words, page = figure_words(language), WORDS[language]
    labels = {which: model_label(results, which, words) for which in results.models}

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        plot_bars(axes, metrics, labels)
        axes.set_title(words["bars" if compared else "bars_alone"])
        figure.legend(loc="outside lower left")

    said = [
        page["bar"].format(
            metric=name,
            values=", ".join(f"{page[which]} {value:.3f}" for which, value in found.values.items()),
        )
        for name, found in metrics.items()
    ]
    return draw(
        "comparison",
        describe(page["bars" if compared else "bars_alone"], said, page),
        plot,
        height=1.3 + (0.62 if compared else 0.4) * len(metrics),
        caption=page["bars_caption"] if compared else "",
    )


def model_label(results: Results, which: str, words: Words) -> str:
    """Base or fine-tuned, with the end of its name, if the fonts have its characters."""
    name = "/".join(results.models[which].rstrip("/").split("/")[-2:])
    name = name if len(name) <= NAME_KEPT else f"…{name[-NAME_KEPT:]}"
    if not name or not can_draw(name):
        return words[which]
    return f"{words[which]}: {name}".replace("$", r"\$")  # between two of them stands a formula


def plot_bars(axes: Axes, metrics: Mapping[str, MetricResult], labels: Mapping[str, str]) -> None:
    """Lay one bar, or base above fine-tuned, for each metric, the first metric on top."""
    places = np.arange(len(metrics), dtype=np.float64)
    comparisons = [found.comparison for found in metrics.values() if found.comparison]
    compared = bool(comparisons)
    thick = 0.36 if compared else 0.55
    shift = thick / 2 + 0.02 if compared else 0.0
    tuned = np.array([found.values[TUNED] for found in metrics.values()], dtype=np.float64)
    ends = tuned
    if compared:
        base, low, high = np.array([(c.base, c.low, c.high) for c in comparisons]).T
        axes.barh(places - shift, base, thick, color=GREY, label=labels[BASE])
        label_ends(axes, base, places - shift, base)
        ends = np.maximum(tuned, base + high)
    axes.barh(places + shift, tuned, thick, color=BLUE, label=labels[TUNED])
    label_ends(axes, ends, places + shift, tuned)
    if compared:
        arms = np.clip([tuned - (base + low), (base + high) - tuned], 0, None)
        axes.errorbar(tuned, places + shift, xerr=arms, fmt="none", ecolor=INK, capsize=3, lw=1.3)
    axes.set_yticks(places, list(metrics), color=INK)
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, axes.get_xlim()[0]), max(1.0, float(ends.max())) * 1.13)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.0])
    axes.grid(visible=False, axis="y")
    axes.tick_params(length=0)


def label_ends(
    axes: Axes, ends: NDArray[np.float64], places: NDArray[np.float64], values: NDArray[np.float64]
) -> None:
    """Write the values behind the ends of their bars."""
    for end, place, value in zip(ends, places, values, strict=True):
        at = (max(float(end), 0.0), float(place))
        axes.annotate(
            f"{value:.3f}", at, (5, 0), textcoords="offset points", va="center", fontsize=9
        )


def draw_scores(results: Results, language: Language) -> Drawing | None:
    """Draw how the scores of relevant and irrelevant pairs are spread, a panel per model."""
    # A model may have no score on either side: a first stage that found nothing.
    scores = {
        w: results.scores[w] for w in (BASE, TUNED) if any(results.scores.get(w, {}).values())
    }
    if not scores:
        return None
    words, page = figure_words(language), WORDS[language]
    items = "items_pairs" if results.task == "pairs" else "items_documents"

    def plot(figure: Figure) -> None:
        # Similarities have one scale; the range of logits is each model's own.
        one_scale = not KINDS[results.kind].logits
        panels = figure.subplots(len(scores), 1, squeeze=False, sharex=one_scale)[:, 0]
        figure.suptitle(
            words["scores"].format(items=words[items]), x=0.02, ha="left", fontsize=11.5
        )
        for axes, (which, samples) in zip(panels, scores.items(), strict=True):
            plot_scores(axes, samples, words)
            axes.set_title(words[which], fontsize=9.5, pad=4)
        panels[-1].set_xlabel(words["score"])
        panels[0].legend()

    said = [
        page["median"].format(model=page[which], **{k: median(v) for k, v in samples.items()})
        for which, samples in scores.items()
    ]
    title = page["scores"].format(items=page[items])
    return draw(
        "scores",
        describe(title, said, page),
        plot,
        height=1.2 + 1.6 * len(scores),
        caption=page["scores_caption"],
    )


def plot_scores(axes: Axes, scores: ScoreSamples, words: Words) -> None:
    """Two histograms, each of shares of its own kind."""
    every = [value for values in scores.values() for value in values]
    edges = np.histogram_bin_edges(every, bins=BINS)
    for kind, color in (("irrelevant", ORANGE), ("relevant", BLUE)):
        values = np.array(scores[kind])
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            shape: dict[str, Any] = {"bins": edges, "weights": weights, "color": color}
            axes.hist(values, histtype="stepfilled", alpha=0.3, **shape)
            axes.hist(values, histtype="step", linewidth=1.5, label=words[kind], **shape)
    axes.set_ylabel(words["share"])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    horizontal_grid(axes)


def median(values: Sequence[float]) -> str:
    """The median as text, or a dash."""
    return f"{np.median(values):.3f}" if len(values) else "–"
