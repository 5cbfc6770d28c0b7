"""The interface of a search index, and exact search by the embedder's similarity."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from evaluation.search.top_k import TopK
from mining.search.encode import Vectors

# Shapes: Q queries of one call, D documents that are searched, B of a block, H dimensions.

# Larger blocks are hardly faster, and fragment memory more.
DOCUMENTS_AT_ONCE = 2**13

Ranking = list[tuple[int, float]]  # (place, score) of documents, best first


class Index(Protocol):
    """Finds documents for queries; both are given by number. Equal scores are ordered by place."""

    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """The best documents for each query from ``start`` to before ``stop``, best first."""

    def scores(self, query: int, places: Sequence[int]) -> list[float]:
        """The scores of given documents, searchable or not."""


class VectorIndex:
    """Exact search by dot product of prepared vectors. Implements ``Index``.

    Args:
        queries: Vectors of all queries.
        documents: Vectors of all documents, of which the first ``searchable`` are searched.
        searchable: D.
        device: Where to compute.
    """

    def __init__(
        self, queries: Vectors, documents: Vectors, searchable: int, device: torch.device
    ) -> None:
        self.queries = queries
        self.documents = documents
        self.searchable = searchable
        self.device = device

    @torch.inference_mode()
    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """See ``Index``."""
        asked = self.queries.slice(start, stop).to(self.device)  # [Q, H]
        best = TopK(asked, asked.norm(dim=1), depth)
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
