"""A search index with given vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.text_digest import text_keys
from mining.cache.vectors import VectorCache
from mining.search.encode import Vectors
from mining.search.index import VectorIndex

CPU = torch.device("cpu")


def vector_index(
    folder: Path, queries: NDArray[Any], documents: NDArray[Any], searchable: int
) -> VectorIndex:
    """Search with these vectors [.., H], brought to unit length."""
    sides = []
    for side, vectors in (("queries", queries), ("documents", documents)):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        keys = text_keys(f"{side} {number}" for number in range(len(unit)))
        with VectorCache(folder / side, unit.shape[1]) as cache:
            cache.append(keys, unit.astype(np.float32))
            cache.refresh()
            sides.append(Vectors(cache, cache.find(keys)))
    return VectorIndex(sides[0], sides[1], searchable, CPU)
