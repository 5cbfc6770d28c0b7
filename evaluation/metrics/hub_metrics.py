"""Our metrics as metrics of the ``evaluate`` library, for pipelines that are built on it.

For ``evaluate.combine``, ``add_batch`` and ``compute`` in other projects. Our own evaluation calls
``ranking`` and ``pairs`` directly: it needs a value per query, and thousands of resamples, where
``evaluate`` returns one number and passes all input through Arrow (ten times slower on 100,000
pairs) and a writable cache folder; and ``scripts/evaluate.py`` stands before it on every script's
path.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, List, Value

from evaluation.metrics.pairs import BINARY, GRADED
from evaluation.metrics.ranking import check_metrics, per_query

STATISTICS = GRADED | BINARY


class RankingMetric(evaluate.Metric):  # type: ignore[misc]
    """A ranking metric by its name; names are as in ``evaluation.metrics.ranking``.

    A prediction is the ranking of a query, ``{"documents": [ids], "scores": [floats]}``, in
    any order; a reference is its judgements, ``{"documents": [ids], "relevances":
    [floats]}``. Ids are strings. ``compute`` gives the mean over the queries:

    >>> both = evaluate.combine([RankingMetric("ndcg@10"), RankingMetric("mrr@10")])
    >>> both.add_batch(
    ...     predictions=[{"documents": ["d1", "d2"], "scores": [0.9, 0.4]}],
    ...     references=[{"documents": ["d2"], "relevances": [1.0]}],
    ... )
    >>> {name: round(value, 2) for name, value in both.compute().items()}
    {'ndcg@10': 0.63, 'mrr@10': 0.5}

    Args:
        metric: Such as ``ndcg@10``.
        relevant_from: See ``per_query``.
        options: Of ``evaluate.Metric``: ``keep_in_memory``, ``num_process``, ``process_id``, ...
    """

    def __init__(self, metric: str, relevant_from: float | None = None, **options: Any) -> None:
        check_metrics([metric])
        self.metric, self.relevant_from = metric, relevant_from
        super().__init__(config_name=metric, **options)

    def _info(self) -> evaluate.MetricInfo:
        documents = List(Value("string"))
        numbers = List(Value("float64"))
        return evaluate.MetricInfo(
            description=f"{self.metric} of rankings, with the numbers of trec_eval",
            citation="",
            features=Features(
                predictions={"documents": documents, "scores": numbers},
                references={"documents": documents, "relevances": numbers},
            ),
        )

    def _compute(
        self, *, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        run = {f"{at}": _by_id(found, "scores", at) for at, found in enumerate(predictions)}
        qrels = {f"{at}": _by_id(judged, "relevances", at) for at, judged in enumerate(references)}
        values = per_query(run, qrels, [self.metric], self.relevant_from)
        return {self.metric: float(values[self.metric].mean())}


class PairMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of scored pairs by its name: spearman, pearson, auc, average_precision, accuracy.

    Predictions are scores, references are judgements; see ``evaluation.metrics.pairs``.

    Args:
        metric: Such as ``spearman``.
        options: Of ``evaluate.Metric``.
    """

    def __init__(self, metric: str, **options: Any) -> None:
        if metric not in STATISTICS:
            raise ValueError(
                f"there is no metric {metric!r} of pairs, only {', '.join(STATISTICS)}"
            )
        self.metric = metric
        super().__init__(config_name=metric, **options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"{self.metric} of scores of pairs",
            citation="",
            features=Features(predictions=Value("float64"), references=Value("float64")),
        )

    def _compute(
        self, *, predictions: Sequence[float], references: Sequence[float]
    ) -> dict[str, float]:
        scores, judged = (np.array(list(values)) for values in (predictions, references))
        return {self.metric: STATISTICS[self.metric](scores, judged)}


def _by_id(documents: Mapping[str, Any], field: str, at: int) -> dict[str, float]:
    """Turn two columns into one mapping."""
    ids, numbers = documents["documents"], documents[field]
    if len(ids) != len(numbers):
        raise ValueError(
            f"query number {at}: there must be as many {field} as documents, got {len(numbers)} "
            f"and {len(ids)}"
        )
    found = dict(zip(ids, numbers, strict=True))
    if len(found) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"query number {at}: the document {twice!r} is listed twice")
    return found
