"""Let a reranker put the best documents of a first stage in a new order."""

from encoders import Reranker
from evaluation.beir import RetrievalData
from evaluation.metrics import order
from evaluation.retrieval import Rankings


def rerank(
    reranker: Reranker,
    data: RetrievalData,
    rankings: Rankings,
    top_k: int,
    *,
    bf16: bool = False,
    max_length: int | None = None,
    show_progress: bool = False,
) -> dict[str, list[str]]:
    """Return the rankings with the first ``top_k`` documents of each query in the new order.

    Documents below ``top_k`` stay where they were. Equal scores: by falling document id.
    """
    pairs = [(query, document) for query in rankings for document in rankings[query][:top_k]]
    scores = reranker.score(
        [(data.queries[query], data.documents[document]) for query, document in pairs],
        bf16=bf16,
        max_length=max_length,
        raw=True,  # the sigmoid would make ties of the surest documents
        show_progress=show_progress,
    )
    if not scores.isfinite().all():
        raise ValueError("the reranker gives scores that are NaN or infinite: it has diverged")
    scored: dict[str, dict[str, float]] = {query: {} for query in rankings}
    for (query, document), score in zip(pairs, scores.tolist(), strict=True):
        scored[query][document] = score
    return {query: order(scored[query]) + list(rankings[query][top_k:]) for query in rankings}
