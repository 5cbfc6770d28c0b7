"""Similarity of embeddings, as the model states it; a corpus that is searched by it, exactly."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.bm25 import BM25, best_places, tokenize
from common.similarity import Similarity, TokenSimilarity

# Shapes: N texts, D documents, H dimensions of an embedding.


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows [N, H] divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def for_dot_product(vectors: np.ndarray, similarity: Similarity | TokenSimilarity) -> np.ndarray:
    """Rows [N, H] whose dot products are the similarity; those of tokens as they are."""
    return unit_length(vectors) if similarity == "cosine" else vectors


def similarities(one: np.ndarray, other: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Similarities of rows [N, H] with those beside them [N, H], or with one row [1, H]: [N]."""
    products = for_dot_product(one, similarity) * for_dot_product(other, similarity)
    found: np.ndarray = products.sum(axis=1)
    # Rounding may put the cosine of a vector with itself just above 1.
    if similarity == "cosine":
        found = found.clip(-1, 1)
    return found


class Corpus:
    """Documents and their embeddings.

    Args:
        texts: Of D documents.
        vectors: [D, H].
        similarity: The embedder's.
        ids: Of the documents, if they have any.
        bm25_weight: Of BM25 beside the similarity (``fusion.json``); 0: none.
    """

    def __init__(
        self,
        texts: Sequence[str],
        vectors: np.ndarray,
        similarity: Similarity,
        ids: Sequence[str] | None = None,
        bm25_weight: float = 0.0,
    ) -> None:
        self.texts = texts
        self.vectors = for_dot_product(vectors, similarity)
        self.similarity = similarity
        self.ids = ids
        self.bm25_weight = bm25_weight
        # Texts without a single word share none with any query.
        has_words = bm25_weight > 0 and any(map(tokenize, texts))
        self._bm25 = BM25(texts) if has_words else None

    def search(self, query: np.ndarray, text: str, count: int) -> list["Hit"]:
        """The documents that are best for a query, given by embedding [H] and text, best first.

        Of equal ones the earlier, whatever the count, so that pages fit together.
        """
        similar = self.vectors @ for_dot_product(query[None], self.similarity)[0]  # [D]
        scores = similar
        if self._bm25 is not None:
            scores = similar + self.bm25_weight * self._bm25.scores([text])[0]
        chosen = best_places(scores, count)
        return [Hit(int(at), float(similar[at]), float(scores[at])) for at in chosen]


class Hit(NamedTuple):
    """A document that was found: its number, its similarity, and that with BM25's score."""

    number: int
    similarity: float
    score: float
