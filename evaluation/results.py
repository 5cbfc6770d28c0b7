"""From measured rankings to what is told about them: one object for JSON, tables and the report."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from evaluation.comparison import compare
from evaluation.data import PairData, RetrievalData
from evaluation.measure import Ranked
from evaluation.metrics import Run
from evaluation.pair_comparison import Scores, compare_statistic
from evaluation.pair_metrics import pair_statistics

Results = dict[str, Any]

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
    results: Results = {
        **about,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "queries": len(data.qrels),
        "documents": len(data.documents),
        "main_metric": main,
        "metrics": {name: {TUNED: float(values.mean())} for name, values in tuned.values.items()},
        "scores": {name: _score_samples(found.run, data) for name, found in ranked.items()},
    }
    if base is not None:
        for name, values in tuned.values.items():
            found = compare(base.values[name], values)._asdict()
            results["metrics"][name] = {BASE: found.pop("base"), TUNED: found.pop("tuned"), **found}
        results |= _moved(base, tuned, main, data)
    return results


def pair_results(scores: Mapping[str, Scores], data: PairData, about: Mapping[str, Any]) -> Results:
    """The same for judged pairs; ``scores`` are [N] by "fine-tuned" and "base"."""
    judged = np.array(data.relevances)
    statistics = pair_statistics(judged)
    metrics: dict[str, dict[str, float]] = {}
    for name, statistic in statistics.items():
        if BASE in scores:
            found = compare_statistic(statistic, scores[BASE], scores[TUNED], judged)._asdict()
            metrics[name] = {BASE: found.pop("base"), TUNED: found.pop("tuned"), **found}
        else:
            metrics[name] = {TUNED: statistic(scores[TUNED], judged)}
    middle = (judged.max() + judged.min()) / 2
    return {
        **about,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pairs": len(judged),
        "main_metric": next(iter(statistics)),
        "metrics": metrics,
        "scores": {
            name: {
                "relevant": _some(values[judged > middle]),
                "irrelevant": _some(values[judged <= middle]),
            }
            for name, values in scores.items()
        },
    }


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
