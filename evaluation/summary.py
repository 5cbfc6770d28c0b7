"""Summarise rankings or pair scores as ``Results``: metrics, comparison, examples, samples."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import numpy as np

from evaluation.data.sets import PairData, RetrievalData
from evaluation.measure import PairScores, Ranked
from evaluation.metrics.comparison import compare
from evaluation.metrics.pair_comparison import compare_statistic
from evaluation.metrics.pairs import Figure, UndefinedMetric, pair_statistics
from evaluation.metrics.ranking import Run
from evaluation.results import (
    BASE,
    TUNED,
    ChangedQuery,
    MetricResult,
    Results,
    ScoreSamples,
    Subject,
)

MOST_QUERIES = 10  # that gained most, and that lost most
MOST_SCORES = 2_000  # of a sample; enough to draw a distribution
MOST_CHARACTERS = 1_000  # of a document that is shown


def ranking_results(ranked: Mapping[str, Ranked], data: RetrievalData, subject: Subject) -> Results:
    """Summarise rankings.

    Args:
        ranked: By "fine-tuned" and, for a comparison, "base".
        data: What was measured on.
        subject: What was measured.
    """
    tuned, base = ranked[TUNED], ranked.get(BASE)
    main = next(iter(tuned.values))
    means = {which: found.means() for which, found in ranked.items()}
    metrics: dict[str, MetricResult] = {}
    for name, values in tuned.values.items():
        found = metric_result({which: mean[name] for which, mean in means.items()})
        if base is not None and found.undefined is None:
            if len(values) < 2:
                reason = "the interval of a difference needs at least 2 queries"
                found = MetricResult(found.values, undefined=reason)
            else:
                found = MetricResult(found.values, compare(base.values[name], values))
        metrics[name] = found
    return Results(
        **vars(subject),
        created=_now(),
        counts={"queries": len(data.qrels), "documents": len(data.documents)},
        main_metric=main,
        metrics=metrics,
        scores={which: _score_samples(found.run, data) for which, found in ranked.items()},
        changed_queries={} if base is None else _changed_queries(base, tuned, main, data),
    )


def pair_results(scores: Mapping[str, PairScores], data: PairData, subject: Subject) -> Results:
    """Summarise the scores of judged pairs; the arguments are as in ``ranking_results``."""
    judged = data.judged()
    statistics = pair_statistics(judged)
    figures = {which: found.figures(judged) for which, found in scores.items()}
    metrics: dict[str, MetricResult] = {}
    for name, statistic in statistics.items():
        found = metric_result({which: own[name] for which, own in figures.items()})
        if BASE in scores and found.undefined is None:
            base, tuned = (scores[which].of(name) for which in (BASE, TUNED))
            try:
                comparison = compare_statistic(statistic, base, tuned, judged)
                found = MetricResult(found.values, comparison)
            except UndefinedMetric as reason:
                found = MetricResult(found.values, undefined=str(reason))
        metrics[name] = found
    middle = (judged.max() + judged.min()) / 2
    return Results(
        **vars(subject),
        created=_now(),
        counts={"pairs": len(judged)},
        main_metric=next(iter(statistics)),
        metrics=metrics,
        scores={
            which: {
                "relevant": _sample(found.shown[judged > middle]),
                "irrelevant": _sample(found.shown[judged <= middle]),
            }
            for which, found in scores.items()
        },
    )


def metric_result(figures: Mapping[str, Figure]) -> MetricResult:
    """A metric's values by model; where one is undefined, None and the reason."""
    reasons = {which: found for which, found in figures.items() if isinstance(found, str)}
    values = {
        which: None if isinstance(found := figures[which], str) else found
        for which in (BASE, TUNED)
        if which in figures
    }
    if not reasons:
        return MetricResult(values)
    if len(set(reasons.values())) == 1 and len(reasons) == len(figures):
        return MetricResult(values, undefined=next(iter(reasons.values())))
    told = (f"{which}: {reason}" for which, reason in reasons.items())
    return MetricResult(values, undefined="; ".join(told))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _changed_queries(
    base: Ranked, tuned: Ranked, metric: str, data: RetrievalData
) -> dict[str, list[ChangedQuery]]:
    """The queries that gained most and lost most."""
    before, after = base.values[metric], tuned.values[metric]
    order = np.argsort(after - before, kind="stable")
    queries = list(data.qrels)

    def changed(places: Iterable[int], sign: int) -> list[ChangedQuery]:
        return [
            ChangedQuery(
                queries[at],
                data.queries[queries[at]],
                float(before[at]),
                float(after[at]),
                _most_relevant(queries[at], data),
            )
            for at in places
            if (after[at] - before[at]) * sign > 0
        ]

    return {
        "gained": changed(order[::-1][:MOST_QUERIES], 1),
        "lost": changed(order[:MOST_QUERIES], -1),
    }


def _most_relevant(query: str, data: RetrievalData) -> str:
    judged = data.qrels[query]
    best = max(judged, key=lambda document: judged[document], default=None)
    return data.documents[best][:MOST_CHARACTERS] if best in data.documents else ""


def _score_samples(run: Run, data: RetrievalData) -> ScoreSamples:
    """Scores of relevant documents, and of others that were found."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for query, scores in run.items():
        judged = data.qrels.get(query, {})
        for document, score in scores.items():
            found[data.is_relevant(judged.get(document, 0))].append(score)
    return {"relevant": _sample(found[True]), "irrelevant": _sample(found[False])}


def _sample(values: Iterable[float]) -> list[float]:
    """At most ``MOST_SCORES`` of them, evenly spaced from the lowest to the highest."""
    ordered = np.sort(np.fromiter(values, dtype=np.float64))
    if len(ordered) > MOST_SCORES:
        ordered = ordered[np.linspace(0, len(ordered) - 1, MOST_SCORES).round().astype(int)]
    return [round(float(value), 6) for value in ordered]
