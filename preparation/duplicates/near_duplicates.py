"""Detect near-duplicates by containment of word trigrams."""

from collections.abc import Iterable

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from common.bm25 import tokenize

# Letters: N texts, S shingles (runs of three words).

_SHINGLE = 3
_BLOCK_ROWS = 256


def shingles(text: str) -> list[str]:
    """Return the word trigrams of a text; a shorter text is one shingle."""
    words = tokenize(text)
    if len(words) < _SHINGLE:
        return [" ".join(words)]
    return [" ".join(words[i : i + _SHINGLE]) for i in range(len(words) - _SHINGLE + 1)]


def similar_pairs(texts: Iterable[str], threshold: float) -> Iterable[tuple[int, int, float]]:
    """Yield (i, j, similarity) with j < i for texts as alike as ``threshold``, ordered by i, j.

    The similarity is the share of the shorter text's shingles that the other one holds too, so
    a text and an extended copy of it are fully alike. In [0, 1].
    """
    vectorizer = HashingVectorizer(
        analyzer=shingles, n_features=2**30, binary=True, norm=None, alternate_sign=False
    )
    hashed = vectorizer.transform(texts)  # [N, 2**30]
    _, columns, counts = np.unique(hashed.indices, return_inverse=True, return_counts=True)
    sizes = np.diff(hashed.indptr)
    matrix = sparse.csr_matrix(  # [N, S]
        (np.ones(len(columns), dtype=np.float32), columns, hashed.indptr),
        shape=(hashed.shape[0], len(counts)),
    )[:, counts > 1]  # a shingle of one text alone cannot make it alike to another
    transposed = matrix.T.tocsr()
    for start in range(0, hashed.shape[0], _BLOCK_ROWS):
        shared = (matrix[start : start + _BLOCK_ROWS] @ transposed).tocoo()  # [rows, N]
        rows = shared.row + start
        similarity = shared.data / np.minimum(sizes[rows], sizes[shared.col])
        found = np.flatnonzero((shared.col < rows) & (similarity >= threshold))
        for place in found[np.lexsort((shared.col[found], rows[found]))]:
            yield int(rows[place]), int(shared.col[place]), float(similarity[place])
