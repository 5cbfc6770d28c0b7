"""Exact search by dot product, block by block, in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.search.top_k import TopK

# Shapes: Q queries, D documents, H width of a vector; B documents of a block.

Vectors = Tensor | NDArray[Any]

DOCUMENTS_AT_ONCE = 2**14
QUERIES_AT_ONCE = 2**10  # times documents: 64 MiB of scores


@torch.inference_mode()
def search(
    queries: Tensor,
    documents: Vectors | Iterable[Vectors],
    ids: Sequence[str],
    k: int,
    *,
    query_ids: Sequence[str],
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, float]]:
    """Return for each query its k best documents with their scores, best first.

    The score is the dot product (of unit vectors: the cosine), computed in float64 and rounded to
    float32. So the result does not depend on the blocks, and equal vectors have equal scores. Equal
    scores are ordered by falling id, as ``trec_eval`` does, also where a tie reaches over the
    k-th place. Fewer than k documents: all of them.

    Args:
        queries: [Q, H].
        documents: [D, H], a tensor or an array (a ``numpy.memmap`` need not fit in memory), or
            its rows in blocks, [any, H] each.
        ids: D, of the documents.
        k: How many documents to find.
        query_ids: Q.
        device: Where to compute.

    Raises:
        ValueError: A vector is not finite (its id is named), an id is repeated, or numbers or
            widths do not fit together.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    _check_ids(query_ids, len(queries), "queries")
    norms = check_finite(queries, query_ids, "query").to(device)
    queries = queries.to(device, torch.float32)
    found = [
        TopK(part, lengths, k)
        for part, lengths in zip(
            queries.split(QUERIES_AT_ONCE), norms.split(QUERIES_AT_ONCE), strict=True
        )
    ]
    falling = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)  # ties: by falling id
    places = torch.empty(len(ids), dtype=torch.int64)
    places[torch.tensor(falling, dtype=torch.int64)] = torch.arange(len(ids))
    seen = 0
    for block in _blocks(documents, queries.shape[1]):
        own = slice(seen, seen + len(block))
        seen = own.stop
        if seen > len(ids):
            raise ValueError(f"there are more documents than the {len(ids)} ids for them")
        longest = float(check_finite(block, ids[own], "document").max())
        block = block.to(device)
        for part in found:
            part.add(block, places[own].to(device), longest)
    _check_ids(ids, seen, "documents")
    rankings = (ranking for part in found for ranking in part.rankings())
    return {
        query: {ids[falling[place]]: score for place, score in ranking}
        for query, ranking in zip(query_ids, rankings, strict=True)
    }


def check_finite(vectors: Tensor, ids: Sequence[str], name: str) -> Tensor:
    """Return the length of each vector: [N, H] -> [N].

    Raises:
        ValueError: A vector has NaN or infinity, or is so long that a product may be infinite.
    """
    lengths: Tensor = vectors.norm(dim=1)
    if not bool(lengths.isfinite().all()):
        wrong = (~lengths.isfinite()).nonzero()[:, 0].tolist()
        raise ValueError(
            f"the vectors of {len(wrong)} texts contain NaN or infinity (the first is the {name} "
            f"{ids[wrong[0]]!r}): the model has diverged"
        )
    return lengths


def _blocks(documents: Vectors | Iterable[Vectors], width: int) -> Iterator[Tensor]:
    """Float32 blocks [B, H] of at most ``DOCUMENTS_AT_ONCE`` documents."""
    pieces = [documents] if isinstance(documents, Tensor | np.ndarray) else documents
    for given in pieces:
        if given.ndim != 2 or given.shape[1] != width:
            raise ValueError(
                f"queries have {width} dimensions, but the documents' vectors have the shape "
                f"{tuple(given.shape)}; both must come from the same model"
            )
        for start in range(0, len(given), DOCUMENTS_AT_ONCE):
            block = given[start : start + DOCUMENTS_AT_ONCE]
            # An array is copied: torch does not take one that is read-only, as files may be.
            tensor = block if isinstance(block, Tensor) else torch.from_numpy(np.array(block))
            yield tensor.to(torch.float32)


def _check_ids(ids: Sequence[str], count: int, name: str) -> None:
    if len(ids) != count:
        raise ValueError(f"there are {count} {name} and {len(ids)} ids for them")
    if len(set(ids)) < count:
        raise ValueError(f"the ids of the {name} are not unique")
