"""Lexical search (BM25), for mining without a model."""

from collections.abc import Iterator, Sequence
from typing import Any

from common.bm25 import BM25, best_hits
from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.search.index import Ranking

_SLICE = 1000
_SCORES_AT_ONCE = 2**24  # 64 MiB of float32


class LexicalIndex:
    """BM25 over all documents of a corpus, of which only the searchable ones are found.

    Implements ``Index``.

    Args:
        queries: Read when they are searched for.
        corpus: Read once; the index with its word counts stays in memory.
    """

    def __init__(self, queries: Queries, corpus: Corpus) -> None:
        self.queries = queries
        self.searchable = corpus.searchable
        self.bm25 = BM25(_Texts(corpus))
        self.at_once = max(1, _SCORES_AT_ONCE // len(corpus))

    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """See ``Index``. Documents that share no word with the query are no hits."""
        rankings = []
        for first in range(start, stop, self.at_once):
            texts = self.queries.texts(first, min(first + self.at_once, stop))
            for row in self.bm25.scores(texts)[:, : self.searchable]:
                rankings.append(best_hits(row, depth))
        return rankings

    def scores(self, query: int, places: Sequence[int]) -> list[float]:
        """See ``Index``. 0 for documents that share no word with the query."""
        (row,) = self.bm25.scores(self.queries.texts(query, query + 1))
        found: list[float] = row[list(places)].tolist()
        return found


class _Texts(Sequence[str]):
    """A corpus as a sequence of texts, read slice by slice."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, place: Any) -> Any:
        return self.corpus.at([place])[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _SLICE):
            yield from self.corpus.slice(start, start + _SLICE)
