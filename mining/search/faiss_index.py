"""Approximate search with FAISS, for corpora that are too large to compare with every query."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mining.search.encode import Vectors
from mining.search.index import DOCUMENTS_AT_ONCE, Ranking, VectorIndex, products

# Letters: D documents, C clusters of them.

_EXAMPLES = 64  # documents of each cluster that it is trained on
_FEWEST = 39  # documents of a cluster, below which FAISS warns
_SEARCHED = 1 / 16  # of all clusters; the share of the documents that a query is compared with


class FaissIndex(VectorIndex):
    """Finds candidates in the nearest of 4·√D clusters, and scores them exactly.

    A document takes one byte for each dimension (``IVF,SQ8``) in memory.

    Args:
        queries, documents, searchable, device: See ``VectorIndex``.
        file: The index; built if it is not there.
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
        self.faiss = require_faiss()
        self.index = self.faiss.read_index(str(file))
        clusters = self.index.nlist
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


def build_index(documents: Vectors, searchable: int, file: Path, show_progress: bool) -> None:
    """Write the index of the first ``searchable`` documents; the same vectors give the same one."""
    faiss = require_faiss()
    width = documents.slice(0, 1).shape[1]
    clusters = max(1, min(round(4 * searchable**0.5), searchable // _FEWEST))
    factory = f"IVF{clusters},SQ8"
    index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    count = min(searchable, _EXAMPLES * clusters)
    examples = np.linspace(0, searchable - 1, count).round().astype(np.int64)
    index.train(documents.at(examples.tolist()).numpy())
    with tqdm(total=searchable, desc="building the index", disable=not show_progress) as bar:
        for start in range(0, searchable, DOCUMENTS_AT_ONCE):
            block = documents.slice(start, min(start + DOCUMENTS_AT_ONCE, searchable))
            index.add(block.numpy())
            bar.update(len(block))
    beside = file.with_suffix(".part")
    faiss.write_index(index, str(beside))
    beside.replace(file)


def require_faiss() -> Any:
    """The module.

    Raises:
        ValueError: It is not installed.
    """
    if find_spec("faiss") is None:
        raise ValueError("--faiss needs FAISS; pip install -c constraints.txt -e '.[faiss]'")
    import faiss

    return faiss
