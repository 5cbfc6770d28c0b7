"""Approximate search with FAISS, for corpora that are too large to compare with every query."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.search.faiss_index import build_index, import_faiss
from mining.search.encode import Vectors
from mining.search.index import Ranking, VectorIndex, products

# Shapes: D documents.

_SEARCHED = 1 / 16  # of all clusters; the share of the documents that a query is compared with


class FaissIndex(VectorIndex):
    """Finds candidates in the nearest of 4·√D clusters, and scores them exactly.

    The index (``ivf_sq8``) chooses the candidates; their scores come from the exact vectors.
    A document takes one byte for each dimension in memory.

    Args:
        queries, documents, searchable, device: See ``VectorIndex``.
        file: The index, from ``write_index``.
    """

    def __init__(
        self,
        queries: Vectors,
        documents: Vectors,
        searchable: int,
        device: torch.device,
        file: Path,
    ) -> None:
        super().__init__(queries, documents, searchable, device)
        self.index = import_faiss().read_index(str(file))
        clusters = self.index.nlist
        # At least 8: of a small corpus, a sixteenth of the clusters would be a poor search.
        self.index.nprobe = min(clusters, max(8, round(clusters * _SEARCHED)))

    @torch.inference_mode()
    def search(self, start: int, stop: int, depth: int) -> list[Ranking]:
        """See ``Index``. A ranking may lack documents that an exact search would find."""
        asked = self.queries.slice(start, stop)
        _, found = self.index.search(asked.numpy(), min(depth, self.searchable))
        rankings = []
        for one, places in zip(asked, np.sort(found, axis=1), strict=True):
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


def write_index(documents: Vectors, searchable: int, file: Path, show_progress: bool) -> None:
    """Write the index of the first ``searchable`` documents; the same vectors give the same one."""
    faiss = import_faiss()
    index = build_index(_Rows(documents, searchable), "ivf_sq8", show_progress)
    beside = file.with_suffix(".part")
    faiss.write_index(index, str(beside))
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
