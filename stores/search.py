"""Search a table by meaning, by words, or by both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.bm25 import tokenize
from stores.filters import Filter
from stores.store import Hit, Table

# Shapes: H dimensions of a vector, T tokens of a query.

Mode = Literal["dense", "bm25", "hybrid"]
DEPTH = 100  # documents that each of two searches finds at least, before they are fused
# Of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RANK_CONSTANT = 60


@dataclass(frozen=True)
class SearchResult:
    """A document that a search found.

    Args:
        id: Its id.
        score: What it is ordered by.
        similarity: Of its vector; None: not computed.
        bm25: Its score; None: not computed.
    """

    id: str
    score: float
    similarity: float | None = None
    bm25: float | None = None


def search(
    table: Table,
    vector: NDArray[np.float32] | None,
    text: str,
    k: int,
    *,
    mode: Mode = "dense",
    where: Filter | None = None,
    bm25_weight: float = 0.0,
    exact: bool = False,
) -> list[SearchResult]:
    """The k best documents, best first.

    Args:
        table: What is searched.
        vector: Of the query, [H] or [T, H]; only a search by words does without.
        text: The query, without a prompt.
        k: How many.
        mode: "dense": by similarity; "bm25": by words; "hybrid": by both.
        where: What documents must fulfil.
        bm25_weight: hybrid: the score is the similarity + weight × BM25; 0: documents are ordered
            by reciprocal ranks.
        exact: Without an index of the vectors.
    """
    words = tokenize(text)
    if mode == "bm25":
        return [SearchResult(*hit, bm25=hit.score) for hit in table.search_words(words, k, where)]
    assert vector is not None
    if mode == "dense":
        hits = table.search(vector, k, where, exact=exact)
        return [SearchResult(*hit, similarity=hit.score) for hit in hits]
    depth = max(k, DEPTH)
    similar = table.search(vector, depth, where, exact=exact)
    by_words = table.search_words(words, depth, where)
    if not bm25_weight:
        return _by_ranks(similar, by_words)[:k]
    similarities, scores = dict(similar), dict(by_words)
    # What only one of them has found needs the other score too.
    if missing := [found for found in scores if found not in similarities]:
        similarities |= dict(table.search(vector, len(missing), ids=missing, exact=True))
    if missing := [found for found in similarities if found not in scores]:
        scores |= dict(table.search_words(words, len(missing), ids=missing))
    fused = [
        SearchResult(
            found, value + bm25_weight * scores.get(found, 0.0), value, scores.get(found, 0.0)
        )
        for found, value in similarities.items()
    ]
    return sorted(fused, key=lambda each: (-each.score, each.id))[:k]


def _by_ranks(similar: Sequence[Hit], by_words: Sequence[Hit]) -> list[SearchResult]:
    """By the sum of 1 / (60 + rank) over both lists."""
    points: dict[str, float] = {}
    for hits in (similar, by_words):
        for rank, hit in enumerate(hits, 1):
            points[hit.id] = points.get(hit.id, 0.0) + 1 / (RANK_CONSTANT + rank)
    similarities, scores = dict(similar), dict(by_words)
    found = [
        SearchResult(each, score, similarities.get(each), scores.get(each))
        for each, score in points.items()
    ]
    return sorted(found, key=lambda each: (-each.score, each.id))
