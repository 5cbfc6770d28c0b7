"""Search by BM25, for mining without a model."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.bm25 import BM25
from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.search.index import Ranking

# Shapes: Q queries of one call, D documents of the corpus.

_SLICE = 1000
_SCORES_AT_ONCE = 2**24  # 64 MiB of float32


class LexicalIndex:
    """BM25 over all documents of a corpus; the searchable ones are found. See ``Index``.

    Args:
        queries: Read when they are searched for.
        corpus: Its words are held in memory.
    """

    def __init__(self, queries: Queries, corpus: Corpus) -> None:
        self.queries = queries
        self.searchable = corpus.searchable
        self.bm25 = _DenseBM25(_Texts(corpus))
        self.at_once = max(1, _SCORES_AT_ONCE // len(corpus))

    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """Equal scores are ordered by place; documents without a word of the query are no hits."""
        rankings = []
        for first in range(start, stop, self.at_once):
            texts = self.queries.texts(first, min(first + self.at_once, stop))
            for row in self.bm25.dense(texts)[:, : self.searchable]:
                rankings.append(_best(row, depth))
        return rankings

    def scores(self, query: int, places: Sequence[int]) -> list[float]:
        """0 for documents without a word of the query."""
        (row,) = self.bm25.dense(self.queries.texts(query, query + 1))
        found: list[float] = row[list(places)].tolist()
        return found


class _DenseBM25(BM25):
    def dense(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """The scores of all documents [Q, D]."""
        counts = self._vectorizer.transform(queries).astype(np.float32)
        scores: NDArray[np.float32] = (counts @ self._weights).toarray()
        return scores


def _best(scores: NDArray[np.float32], depth: int) -> Ranking:
    depth = min(depth, len(scores))
    threshold = np.partition(scores, -depth)[-depth] if depth else np.inf
    places = np.flatnonzero((scores >= threshold) & (scores > 0))
    places = places[np.argsort(-scores[places], kind="stable")][:depth]
    return list(zip(places.tolist(), scores[places].tolist(), strict=True))


class _Texts(Sequence[str]):
    """A corpus as a sequence that is read while it is gone through."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, place: Any) -> Any:
        return self.corpus.at([place])[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _SLICE):
            yield from self.corpus.slice(start, start + _SLICE)
