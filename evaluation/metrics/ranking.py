"""Ranking metrics (NDCG, recall, MRR, MAP, ...), with the numbers of ``trec_eval``.

For all of them, as in ``trec_eval -c``:

- Documents are ordered by falling score, equal scores by falling id (see ``order``).
- A document without a judgement is not relevant, and neither is one judged 0 or less. A negative
  relevance is no penalty: its gain is 0.
- A query without a relevant document counts 0, and so does one without a ranking.
- A ranking shorter than k is not padded, but precision@k still divides by k.
- Queries of the run without judgements are ignored.

Notation: rel_i is the relevance of the document at place i, counted from 1; hit_i is 1 if that
document is relevant, else 0; R is the number of relevant documents, found or not. Without a
cut-off, k is the length of the ranking (for the ideal one of NDCG: of all judged documents).
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[str, float]  # document id -> score
Run = Mapping[str, Scores]  # query id -> its documents
Qrels = Mapping[str, Mapping[str, float]]  # query id -> document id -> relevance
Values = NDArray[np.float64]  # one value per query: [Q]

# Shapes: Q queries, K places of the longest ranking, R judged documents of the most judged query.
DEFAULT_METRICS = ("ndcg@10", "recall@10", "mrr@10", "map@10")
LARGEST_EXPONENT = 1_000  # of an exponential gain; a float64 ends at 2^1024


class Rankings(NamedTuple):
    """Rankings of Q queries beside their judgements; short rows are padded with 0."""

    gains: NDArray[np.float64]  # [Q, K] relevance at each place, 0 where that is not above 0
    hits: NDArray[np.bool_]  # [Q, K] whether the document at each place is relevant
    ideal: NDArray[np.float64]  # [Q, R] the relevances of all judged documents, falling
    relevant: NDArray[np.int64]  # [Q] number of relevant documents


def ndcg(rankings: Rankings, k: int | None) -> Values:
    """Return DCG@k of the ranking / DCG@k of the ideal one [Q], with linear gain (``ndcg_cut``).

    DCG@k = Σ_{i=1..k} max(rel_i, 0) / log2(i + 1). The ideal ranking has all judged documents by
    falling relevance. (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002.)
    """
    return _share(_dcg(rankings.gains[:, :k]), _dcg(rankings.ideal[:, :k]))


def ndcg_exp(rankings: Rankings, k: int | None) -> Values:
    """Return NDCG@k [Q] with exponential gain: 2^rel_i - 1 in place of rel_i.

    High grades weigh more; for grades 0 and 1 it is ``ndcg``. (Burges et al., ICML 2005.)

    Raises:
        ValueError: A relevance for which the gain is no number.
    """
    largest = rankings.ideal.max()
    if largest > LARGEST_EXPONENT:
        raise ValueError(
            f"ndcg_exp: the relevance {largest:g} is too large for a gain of 2^relevance (at most "
            f"{LARGEST_EXPONENT}); use ndcg, or make the relevances smaller"
        )
    found, ideal = np.exp2(rankings.gains) - 1, np.exp2(rankings.ideal) - 1
    return _share(_dcg(found[:, :k]), _dcg(ideal[:, :k]))


def recall(rankings: Rankings, k: int | None) -> Values:
    """Return Σ_{i=1..k} hit_i / R [Q]: the share of the relevant documents that is found."""
    return _share(rankings.hits[:, :k].sum(axis=1), rankings.relevant)


def precision(rankings: Rankings, k: int | None) -> Values:
    """Return Σ_{i=1..k} hit_i / k [Q] (``P``)."""
    assert k is not None
    values: Values = rankings.hits[:, :k].sum(axis=1) / k
    return values


def reciprocal_rank(rankings: Rankings, k: int | None) -> Values:
    """Return 1 / i of the first hit among the first k places [Q], 0 if there is none.

    ``trec_eval``'s ``recip_rank`` on rankings cut at k. Its mean over the queries is MRR@k.
    """
    hits = rankings.hits[:, :k]
    return _share(hits.max(axis=1), hits.argmax(axis=1) + 1)


def average_precision(rankings: Rankings, k: int | None) -> Values:
    """Return Σ_{i=1..k} hit_i · precision@i / R [Q] (``map_cut``): all relevant ones count in R.

    Its mean over the queries is MAP@k.
    """
    hits = rankings.hits[:, :k]
    precisions = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)  # [Q, k]
    return _share(_sum(hits * precisions), rankings.relevant)


def hit_rate(rankings: Rankings, k: int | None) -> Values:
    """Return 1 where one of the first k documents is relevant, else 0 [Q] (``success``)."""
    values: Values = rankings.hits[:, :k].max(axis=1).astype(np.float64)
    return values


METRICS: dict[str, Callable[[Rankings, int | None], Values]] = {
    "ndcg": ndcg,
    "ndcg_exp": ndcg_exp,
    "recall": recall,
    "precision": precision,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "hit_rate": hit_rate,
}
UNCUT = ("ndcg", "ndcg_exp", "mrr", "map")  # make sense on the whole ranking too


def per_query(
    run: Run,
    qrels: Qrels,
    metrics: Sequence[str] = DEFAULT_METRICS,
    relevant_from: float | None = None,
) -> dict[str, Values]:
    """Return each metric as one value per query [Q], in the order of ``qrels``.

    The mean of an array is the metric over the queries.

    Args:
        run: The documents found for each query, with their scores.
        qrels: The judged documents of each query.
        metrics: Such as ``ndcg@10``; see ``check_metrics``.
        relevant_from: The relevance from which a document is relevant to the metrics that know
            only relevant or not (all but NDCG); None: above 0.

    Raises:
        ValueError: A metric that does not exist, no judgement at all, a run of other queries, a
            score that is NaN or a relevance that is not finite (query and document are named).
    """
    check_metrics(metrics)
    cuts = {name: _parse(name) for name in metrics}
    if not qrels:
        raise ValueError("there are no judgements (qrels): nothing can be measured")
    if run and run.keys().isdisjoint(qrels):
        raise ValueError(
            f"the run and the judgements have no query in common: the run has "
            f"{next(iter(run))!r}, the judgements have {next(iter(qrels))!r}; compare their ids"
        )
    ends = [k for _, k in cuts.values()]
    depth = None if None in ends else max(k for k in ends if k is not None)
    rankings = _rankings(run, qrels, depth, relevant_from)
    return {name: METRICS[base](rankings, k) for name, (base, k) in cuts.items()}


def undefined_metrics(
    qrels: Qrels, metrics: Sequence[str], relevant_from: float | None = None
) -> dict[str, str]:
    """The metrics that have no value because no query has a relevant document, with the reason.

    Where some queries have one, the others count 0, as in ``trec_eval -c``.
    """
    highest = max((r for judged in qrels.values() for r in judged.values()), default=0.0)
    reasons = {}
    for name in metrics:
        graded = relevant_from is None or name.startswith("ndcg")
        if not (highest > 0 if graded else highest >= (relevant_from or 0)):
            reasons[name] = f"no query has a relevant document: no judgement exceeds {highest:g}"
    return reasons


def order(scores: Scores) -> list[str]:
    """Return document ids by falling score; equal scores by falling id, as ``trec_eval`` does.

    Scores are compared as float32, which is what ``trec_eval`` keeps of them: scores that differ
    only after the seventh digit are equal. Ids are compared by code point.

    Raises:
        ValueError: A score is NaN; the document is named.
    """
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite
        values = np.array(list(scores.values()), dtype=np.float64).astype(np.float32)
    if np.isnan(values).any():
        document = list(scores)[int(np.isnan(values).argmax())]
        raise ValueError(f"the score of document {document!r} is NaN: the model has diverged")
    ranked = sorted(zip(values.tolist(), scores, strict=True), reverse=True)
    return [document for _, document in ranked]


def check_metrics(names: Sequence[str]) -> None:
    """Refuse names of metrics that do not exist.

    Raises:
        ValueError: There is no name, or an unknown one; the message suggests the nearest one.
    """
    if not names:
        raise ValueError(f"no metric is given; {_VALID}")
    for name in names:
        base, k = _parse(name)
        if base not in METRICS or (k is None and (base not in UNCUT or name != base)):
            close = difflib.get_close_matches(base.lower(), METRICS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}@{k or 10}? " if close else ""
            raise ValueError(f"there is no metric {name!r}; {hint}{_VALID}")


_VALID = (
    f"metrics are {', '.join(f'{base}@k' for base in METRICS)} with a number k from 1, and "
    f"{', '.join(UNCUT)} of the whole ranking"
)


def _parse(name: str) -> tuple[str, int | None]:
    """``ndcg@10`` -> (``ndcg``, 10); None where there is no cut-off, or none that is a number."""
    base, _, cut = name.partition("@")
    return base, int(cut) if re.fullmatch("[1-9][0-9]*", cut) else None


def _rankings(run: Run, qrels: Qrels, depth: int | None, relevant_from: float | None) -> Rankings:
    """Look up the judgements of the first ``depth`` documents of each query."""
    found, judged = [], []
    for query, relevances in qrels.items():
        _check_relevances(query, relevances)
        try:
            ranking = order(run.get(query, {}))[:depth]
        except ValueError as error:
            raise ValueError(f"query {query!r}: {error}") from None
        found.append([relevances.get(document, math.nan) for document in ranking])
        judged.append(sorted(relevances.values(), reverse=True))
    places, ideal = _pad(found), _pad(judged)

    def is_relevant(relevances: Values) -> NDArray[np.bool_]:  # never for NaN: not judged
        return relevances > 0 if relevant_from is None else relevances >= relevant_from

    return Rankings(
        gains=np.where(places > 0, places, 0.0),
        hits=is_relevant(places),
        ideal=np.where(ideal > 0, ideal, 0.0),
        relevant=is_relevant(ideal).sum(axis=1),
    )


def _pad(rows: Sequence[Sequence[float]]) -> Values:
    """Put rows of different lengths into one array [Q, longest], at least one wide, with NaN."""
    lengths = np.array([len(row) for row in rows])
    padded = np.full((len(rows), max(1, lengths.max())), math.nan)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = [x for row in rows for x in row]
    return padded


def _check_relevances(query: str, relevances: Mapping[str, float]) -> None:
    for document, relevance in relevances.items():
        if not math.isfinite(relevance):
            where = f"query {query!r}: the relevance of document {document!r}"
            raise ValueError(f"{where} is {relevance}; it must be a finite number")


def _dcg(gains: Values) -> Values:
    """Σ gain_i / log2(i + 1) over the places of each row: [Q, K] -> [Q]."""
    return _sum(gains / np.log2(np.arange(gains.shape[1]) + 2))


def _sum(values: Values) -> Values:
    """Sum each row from left to right: [Q, K] -> [Q].

    ``sum`` adds in an order that depends on K. Then the same ranking would have values that differ
    in the last bit beside longer ones, and count as won or lost.
    """
    return values.cumsum(axis=1)[:, -1]


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """``part / whole``, 0 where ``whole`` is 0."""
    shares: Values = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
    return shares
