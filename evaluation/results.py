"""From measured rankings to what is told about them: one object for JSON, tables and the report."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from evaluation.data.sets import PairData, RetrievalData
from evaluation.measure import PairScores, Ranked
from evaluation.metrics.comparison import Comparison, compare
from evaluation.metrics.pair_comparison import StatisticComparison, compare_statistic
from evaluation.metrics.pairs import Figure, UndefinedMetric, pair_statistics
from evaluation.metrics.ranking import Run

Results = dict[str, Any]
# "base" (if there is one) and "fine-tuned" are numbers or None; where both are there, "difference",
# "low", "high", "p_value" (of rankings also "wins", "losses", "ties"); "undefined" says what has no
# value, and why.
Metric = dict[str, Any]

TUNED, BASE = "fine-tuned", "base"
SHOWN = 10  # queries that gained most, and lost most
SCORES_KEPT = 2_000  # of a kind; enough to draw a distribution
TEXT_KEPT = 1_000  # characters of a document that is shown


def ranking_results(
    ranked: Mapping[str, Ranked], data: RetrievalData, about: Mapping[str, Any]
) -> Results:
    """Return what was measured of "fine-tuned", and how it differs from "base" if that is there.

    Args:
        ranked: By "fine-tuned" and "base".
        data: What was measured on.
        about: Further fields: kind, task, data, split, models.
    """
    tuned, base = ranked[TUNED], ranked.get(BASE)
    main = next(iter(tuned.values))
    means = {which: found.means() for which, found in ranked.items()}
    metrics: dict[str, Metric] = {}
    for name, values in tuned.values.items():
        found = metrics[name] = metric({which: mean[name] for which, mean in means.items()})
        if base is not None and "undefined" not in found:
            if len(values) < 2:
                found["undefined"] = "the interval of a difference needs at least 2 queries"
            else:
                found |= _difference(compare(base.values[name], values))
    results: Results = {
        **about,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "queries": len(data.qrels),
        "documents": len(data.documents),
        "main_metric": main,
        "metrics": metrics,
        "scores": {name: _score_samples(found.run, data) for name, found in ranked.items()},
    }
    return results if base is None else results | _moved(base, tuned, main, data)


def pair_results(
    scores: Mapping[str, PairScores], data: PairData, about: Mapping[str, Any]
) -> Results:
    """The same for judged pairs; ``scores`` are those of "fine-tuned" and "base"."""
    judged = data.judged()
    statistics = pair_statistics(judged)
    figures = {which: found.figures(judged) for which, found in scores.items()}
    metrics: dict[str, Metric] = {}
    for name, statistic in statistics.items():
        found = metrics[name] = metric({which: own[name] for which, own in figures.items()})
        if BASE in scores and "undefined" not in found:
            base, tuned = (scores[which].of(name) for which in (BASE, TUNED))
            try:
                found |= _difference(compare_statistic(statistic, base, tuned, judged))
            except UndefinedMetric as reason:
                found["undefined"] = str(reason)
    middle = (judged.max() + judged.min()) / 2
    return {
        **about,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pairs": len(judged),
        "main_metric": next(iter(statistics)),
        "metrics": metrics,
        "scores": {
            name: {
                "relevant": _some(found.shown[judged > middle]),
                "irrelevant": _some(found.shown[judged <= middle]),
            }
            for name, found in scores.items()
        },
    }


def metric(figures: Mapping[str, Figure]) -> Metric:
    """What is told of a metric: its value by model, null where it has none, and why."""
    reasons = {which: found for which, found in figures.items() if isinstance(found, str)}
    values: Metric = {
        which: None if which in reasons else figures[which]
        for which in (BASE, TUNED)
        if which in figures
    }
    if len(set(reasons.values())) == 1 and len(reasons) == len(figures):
        reasons = {"": next(iter(reasons.values()))}
    if reasons:
        told = (f"{which}: {reason}" if which else reason for which, reason in reasons.items())
        values["undefined"] = "; ".join(told)
    return values


def _difference(found: Comparison | StatisticComparison) -> Metric:
    """All of a comparison but the values of the two models."""
    return {name: value for name, value in found._asdict().items() if name not in ("base", "tuned")}


def _moved(base: Ranked, tuned: Ranked, metric: str, data: RetrievalData) -> Results:
    """The queries that gained most and lost most, with their texts."""
    before, after = base.values[metric], tuned.values[metric]
    order = np.argsort(after - before, kind="stable")
    queries = list(data.qrels)

    def told(places: Iterable[int], sign: int) -> list[dict[str, Any]]:
        return [
            {
                "query_id": queries[at],
                "query": data.queries[queries[at]],
                BASE: float(before[at]),
                TUNED: float(after[at]),
                "relevant": _best_judged(queries[at], data),
            }
            for at in places
            if (after[at] - before[at]) * sign > 0
        ]

    return {"gained": told(order[::-1][:SHOWN], 1), "lost": told(order[:SHOWN], -1)}


def _best_judged(query: str, data: RetrievalData) -> str:
    judged = data.qrels[query]
    best = max(judged, key=lambda document: judged[document], default=None)
    return data.documents[best][:TEXT_KEPT] if best in data.documents else ""


def _score_samples(run: Run, data: RetrievalData) -> dict[str, list[float]]:
    """Scores of relevant documents, and of others that were found."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for query, scores in run.items():
        judged = data.qrels.get(query, {})
        for document, score in scores.items():
            found[data.is_relevant(judged.get(document, 0))].append(score)
    return {"relevant": _some(found[True]), "irrelevant": _some(found[False])}


def _some(values: Iterable[float]) -> list[float]:
    """At most ``SCORES_KEPT`` of them, evenly taken from the lowest to the highest."""
    ordered = np.sort(np.fromiter(values, dtype=np.float64))
    if len(ordered) > SCORES_KEPT:
        ordered = ordered[np.linspace(0, len(ordered) - 1, SCORES_KEPT).round().astype(int)]
    return [round(float(value), 6) for value in ordered]
