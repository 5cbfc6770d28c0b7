"""Summarise rankings or pair scores as ``Results``: metrics, comparison, examples, samples."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import numpy as np

from evaluation.data.sets import PairData, RetrievalData
from evaluation.measure import EvaluatedRun, PairScores
from evaluation.metrics.comparison import Comparison, compare, compare_statistic
from evaluation.metrics.pairs import MetricValue, UndefinedMetric, pair_statistics
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


def ranking_results(
    ranked: Mapping[str, EvaluatedRun], data: RetrievalData, subject: Subject
) -> Results:
    """Summarise rankings.

    Args:
        ranked: By "fine-tuned" and, for a comparison, "base".
        data: What was measured on.
        subject: What was measured.
    """
    tuned, base = ranked[TUNED], ranked.get(BASE)
    main = next(iter(tuned.values))

    def difference(name: str) -> Comparison | None:
        return base and compare(base.values[name], tuned.values[name])

    return Results(
        **vars(subject),
        created=_now(),
        counts={"queries": len(data.qrels), "documents": len(data.documents)},
        main_metric=main,
        metrics=_metrics({which: found.means() for which, found in ranked.items()}, difference),
        scores={which: _score_samples(found.run, data) for which, found in ranked.items()},
        changed_queries={} if base is None else _changed_queries(base, tuned, main, data),
    )


def pair_results(scores: Mapping[str, PairScores], data: PairData, subject: Subject) -> Results:
    """Summarise the scores of judged pairs; the arguments are as in ``ranking_results``."""
    judged = data.judged()
    statistics = pair_statistics(judged)
    tuned, base = scores[TUNED], scores.get(BASE)

    def difference(name: str) -> Comparison | None:
        return base and compare_statistic(statistics[name], base.of(name), tuned.of(name), judged)

    middle = (judged.max() + judged.min()) / 2
    return Results(
        **vars(subject),
        created=_now(),
        counts={"pairs": len(judged)},
        main_metric=next(iter(statistics)),
        metrics=_metrics(
            {which: found.metric_values(judged) for which, found in scores.items()}, difference
        ),
        scores={
            which: {
                "relevant": _sample(found.shown[judged > middle]),
                "irrelevant": _sample(found.shown[judged <= middle]),
            }
            for which, found in scores.items()
        },
    )


def _metrics(
    figures: Mapping[str, Mapping[str, MetricValue]], difference: Callable[[str], Comparison | None]
) -> dict[str, MetricResult]:
    """Each metric's values by model; where one or the difference is undefined, the reason."""
    metrics: dict[str, MetricResult] = {}
    for name in figures[TUNED]:
        own = {which: figures[which][name] for which in (BASE, TUNED) if which in figures}
        reasons = {which: found for which, found in own.items() if isinstance(found, str)}
        values = {w: None if isinstance(found, str) else found for w, found in own.items()}
        if not reasons:
            try:
                metrics[name] = MetricResult(values, difference(name))
            except UndefinedMetric as reason:
                metrics[name] = MetricResult(values, undefined=str(reason))
            continue
        told = [f"{which}: {reason}" for which, reason in reasons.items()]
        if len(reasons) == len(own) and len(set(reasons.values())) == 1:
            told = [reasons[TUNED]]
        metrics[name] = MetricResult(values, undefined="; ".join(told))
    return metrics


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _changed_queries(
    base: EvaluatedRun, tuned: EvaluatedRun, metric: str, data: RetrievalData
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
