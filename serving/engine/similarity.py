"""Similarity of embeddings, as the model states it; a corpus that is searched by it, exactly."""

from collections.abc import Sequence

import numpy as np

from common.similarity import Similarity

# Shapes: N texts, D documents, H dimensions of an embedding.


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows [N, H] divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def for_dot_product(vectors: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Rows [N, H] whose dot products are the similarity."""
    return unit_length(vectors) if similarity == "cosine" else vectors


def similarities(one: np.ndarray, other: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Of rows [N, H] with the rows beside them [N, H], or with one row [1, H]: [N]."""
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
    """

    def __init__(
        self,
        texts: Sequence[str],
        vectors: np.ndarray,
        similarity: Similarity,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.texts = texts
        self.vectors = for_dot_product(vectors, similarity)
        self.similarity = similarity
        self.ids = ids

    def nearest(self, query: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
        """Numbers and similarities of the documents most similar to a query [H], best first."""
        scores = self.vectors @ for_dot_product(query[None], self.similarity)[0]  # [D]
        count = min(count, len(scores))
        chosen = np.argpartition(-scores, count - 1)[:count]
        chosen = chosen[np.lexsort((chosen, -scores[chosen]))]
        return chosen.tolist(), scores[chosen]
