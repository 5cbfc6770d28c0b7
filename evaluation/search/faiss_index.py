"""Approximate search with FAISS (an extra), for corpora too large for an exact search."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from evaluation.metrics.ranking import order

# Shapes: Q queries, D documents, H width of a vector, L lists of an inverted file.

IndexKind = Literal["flat", "ivf", "ivf_sq8", "hnsw"]

DOCUMENTS_AT_ONCE = 2**16
LEARNED_FROM = 64  # documents for each list
# How an inverted file codes its vectors, and the fewest documents of a list on average.
CODES: dict[str, tuple[str, int]] = {"ivf": ("Flat", 64), "ivf_sq8": ("SQ8", 39)}
PROBED = 16  # one of 16 lists is searched
NEIGHBOURS = 32  # of each document in the graph
WIDTH = 128  # of the search in the graph


def build_index(documents: Any, kind: IndexKind, show_progress: bool = False) -> Any:
    """Return a FAISS index of vectors that are compared by dot product.

    - ``flat``: compares everything; exact but for the rounding of scores.
    - ``ivf``: documents in 4·sqrt(D) lists of near ones, of which a query searches a sixteenth.
      Little more memory than the vectors; the lists are learned first.
    - ``ivf_sq8``: the same with one byte for each dimension, a quarter of the memory.
    - ``hnsw``: a graph of near documents. The fastest search, the slowest to build, and memory
      for 64 more numbers per document.

    Args:
        documents: [D, H] in float32: a tensor, an array, which may be a ``numpy.memmap``, or
            anything else that has a ``shape`` and is read by slices and by arrays of numbers.
        kind: ``flat``, ``ivf``, ``ivf_sq8`` or ``hnsw``.
        show_progress: Show a progress bar.

    Raises:
        ValueError: FAISS is not installed, or there is no such kind.
    """
    faiss = import_faiss()
    count, width = documents.shape
    if kind == "flat":
        index = faiss.IndexFlatIP(width)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = index.hnsw.efSearch = WIDTH
    elif kind in CODES:
        index = _trained_lists(documents, kind)
    else:
        raise ValueError(f"index: {kind!r} is not one of flat, ivf, ivf_sq8, hnsw")
    with tqdm(total=count, desc="building the index", disable=not show_progress) as bar:
        for start in range(0, count, DOCUMENTS_AT_ONCE):
            block = _rows(documents[start : min(start + DOCUMENTS_AT_ONCE, count)])
            index.add(block)
            bar.update(len(block))
    return index


def _trained_lists(documents: Any, kind: IndexKind) -> Any:
    """An inverted file whose lists are learned, and which is still empty."""
    faiss = import_faiss()
    count, width = documents.shape
    codes, shortest = CODES[kind]
    lists = max(1, min(round(4 * count**0.5), count // shortest))
    index = faiss.index_factory(width, f"IVF{lists},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = -(-lists // PROBED)
    # Evenly spaced, not drawn: the same vectors give the same index.
    examples = np.linspace(0, count - 1, min(count, LEARNED_FROM * lists))
    index.train(_rows(documents[examples.round().astype(np.int64)]))
    return index


def search_index(
    index: Any, queries: Tensor, ids: Sequence[str], k: int, *, query_ids: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return for each query its k best documents with their scores, best first.

    An index that is not ``flat`` may miss some, and may find fewer than k. Equal scores are
    ordered by falling id, but FAISS chooses which of them are among the first k.

    Args:
        index: From ``build_index``.
        queries: [Q, H].
        ids: D, of the documents in the order in which they are in the index.
        k: How many documents to find.
        query_ids: Q.
    """
    scores, places = index.search(_rows(queries), min(k, index.ntotal))  # [Q, k] both
    run = {}
    for query, found, row in zip(query_ids, scores.tolist(), places.tolist(), strict=True):
        # -1 stands where nothing was found.
        scored = {ids[at]: score for at, score in zip(row, found, strict=True) if at >= 0}
        run[query] = {document: scored[document] for document in order(scored)}
    return run


def import_faiss() -> Any:
    """The module.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise ValueError(
            "a FAISS index was asked for, and FAISS is not installed: "
            "pip install -c constraints.txt -e '.[faiss]'"
        ) from None
    return faiss


def _rows(vectors: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors, dtype=np.float32)
