"""Search indexes: by vectors, exact or approximate (FAISS), and by words (BM25)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.bm25 import BM25, best_hits
from evaluation.search.faiss_index import build_index, import_faiss
from evaluation.search.top_k import TopK
from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.search.encode import Vectors

# Shapes: Q queries of one call, D documents that are searched, B of a block, H dimensions.

# Those kinds of ``build_index`` that the same vectors always give the same index of, and that save
# something over exact search.
FaissKind = Literal["ivf", "ivf_sq8"]
# RaggedLists that are searched: of a small corpus, a sixteenth of all lists would be a poor search.
_FEWEST_LISTS = 8

# Larger blocks are hardly faster, and fragment memory more.
DOCUMENTS_AT_ONCE = 2**13
_TEXTS_AT_ONCE = 1000
_SCORES_AT_ONCE = 2**24  # 64 MiB of float32

Ranking = list[tuple[int, float]]  # (place, score) of documents, best first


class Index(Protocol):
    """Finds documents for queries; both are given by number. Equal scores are ordered by place."""

    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """The best documents for each query from ``start`` to before ``stop``, best first."""

    def scores(self, query: int, places: Sequence[int]) -> list[float]:
        """The scores of given documents, searchable or not."""


@dataclass
class VectorIndex:
    """Exact search by dot product of prepared vectors. Implements ``Index``.

    Args:
        queries: Vectors of all queries.
        documents: Vectors of all documents, of which the first ``searchable`` are searched.
        searchable: D.
        device: Where to compute.
    """

    queries: Vectors
    documents: Vectors
    searchable: int
    device: torch.device

    @torch.inference_mode()
    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """See ``Index``."""
        query_vectors = self.queries.slice(start, stop).to(self.device)  # [Q, H]
        best = TopK(query_vectors, query_vectors.norm(dim=1), depth)
        for first in range(0, self.searchable, DOCUMENTS_AT_ONCE):
            last = min(first + DOCUMENTS_AT_ONCE, self.searchable)
            block = self.documents.slice(first, last).to(self.device)  # [B, H]
            places = torch.arange(first, last, device=self.device)
            best.add(block, places, float(block.norm(dim=1).max()))
        return best.rankings()

    def scores(self, query: int, places: Sequence[int]) -> list[float]:
        """See ``Index``."""
        one = self.queries.slice(query, query + 1)
        return products(one, self.documents.at(list(places)))


def products(one: Tensor, others: Tensor) -> list[float]:
    """Dot products of one vector [1, H] with others [N, H], rounded as ``search`` rounds them."""
    found: list[float] = (one.double() * others).sum(dim=1).float().tolist()
    return found


@dataclass
class FaissIndex(VectorIndex):
    """Approximate search: FAISS chooses the candidates; their scores are exact.

    Args:
        file: The index, from ``write_index``.
    """

    file: Path

    def __post_init__(self) -> None:
        self.index = import_faiss().read_index(str(self.file))
        self.index.nprobe = min(self.index.nlist, max(_FEWEST_LISTS, self.index.nprobe))

    @torch.inference_mode()
    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """See ``Index``. A ranking may lack documents that an exact search would find."""
        query_vectors = self.queries.slice(start, stop)
        _, found = self.index.search(query_vectors.numpy(), min(depth, self.searchable))
        rankings = []
        for one, places in zip(query_vectors, np.sort(found, axis=1), strict=True):
            kept = places[places >= 0].tolist()  # -1: no more were found
            scores = products(one[None], self.documents.at(kept))
            ranking = sorted(zip(kept, scores, strict=True), key=lambda hit: (-hit[1], hit[0]))
            rankings.append(ranking)
        return rankings

    def recall(self, sample: range, depth: int) -> float:
        """The share of the exact search's documents that are found, over some queries."""
        shares = []
        for query in sample:
            found = {place for place, _ in self.search(query, query + 1, depth)[0]}
            exact = {place for place, _ in super().search(query, query + 1, depth)[0]}
            shares.append(len(found & exact) / len(exact))
        return sum(shares) / len(shares)


def write_index(
    documents: Vectors, searchable: int, kind: FaissKind, file: Path, show_progress: bool
) -> None:
    """Write the index of the first ``searchable`` documents; the same vectors give the same one."""
    index = build_index(_Rows(documents, searchable), kind, show_progress)
    beside = file.with_suffix(".part")
    import_faiss().write_index(index, str(beside))
    beside.replace(file)


class _Rows:
    """The first vectors, read as an array is."""

    def __init__(self, vectors: Vectors, count: int) -> None:
        self.vectors = vectors
        self.shape = (count, vectors.slice(0, 1).shape[1])

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> Tensor:
        if isinstance(chosen, slice):
            return self.vectors.slice(chosen.start, chosen.stop)
        return self.vectors.at(chosen.tolist())


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
        for start in range(0, len(self), _TEXTS_AT_ONCE):
            yield from self.corpus.slice(start, start + _TEXTS_AT_ONCE)
