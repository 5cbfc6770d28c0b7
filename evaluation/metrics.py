"""How good one ranking is: NDCG, recall and reciprocal rank, with the numbers of ``trec_eval``.

Every metric takes a query's document ids, best first, and its judgements (document id ->
relevance, an integer; what is not judged is not relevant, and neither is 0 or less).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Judgements = Mapping[str, int]
Metric = Callable[[Sequence[str], Judgements, int], float]


def ndcg(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Return DCG@k / ideal DCG@k, in [0, 1]; 0 for a query without a relevant document.

    DCG@k = Σ_{i=1..k} rel_i / log2(i + 1): the gain is the relevance itself, not 2^rel - 1.
    The ideal ranking has all judged documents by falling relevance (``ndcg_cut``).
    """
    gains = [max(judgements.get(document, 0), 0) for document in ranking[:k]]
    ideal = sorted((relevance for relevance in judgements.values() if relevance > 0), reverse=True)
    return _dcg(gains) / _dcg(ideal[:k]) if ideal else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Return the share of the relevant documents among the first k; 0 where there are none."""
    relevant = _relevant(judgements)
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Return 1 / rank of the first relevant document, or 0 if the first k have none."""
    relevant = _relevant(judgements)
    for rank, document in enumerate(ranking[:k], start=1):
        if document in relevant:
            return 1.0 / rank
    return 0.0


METRICS: dict[str, Metric] = {"NDCG": ndcg, "Recall": recall, "MRR": reciprocal_rank}


def per_query(
    rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, Judgements], k: int = 10
) -> dict[str, NDArray[np.float64]]:
    """Return every metric, named like ``NDCG@10``, as one value per query, in the order of qrels.

    The mean of an array is the metric over the queries. A query without a ranking counts 0.
    """
    return {
        f"{name}@{k}": np.array(
            [metric(rankings.get(query, ()), judged, k) for query, judged in qrels.items()]
        )
        for name, metric in METRICS.items()
    }


def order(scores: Mapping[str, float]) -> list[str]:
    """Return document ids by falling score; equal scores by falling id, as ``trec_eval`` does."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def _relevant(judgements: Judgements) -> set[str]:
    return {document for document, relevance in judgements.items() if relevance > 0}


def _dcg(gains: Sequence[int]) -> float:
    return float(np.sum(np.array(gains) / np.log2(np.arange(len(gains)) + 2)))
