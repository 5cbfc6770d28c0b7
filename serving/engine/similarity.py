"""Similarity of embeddings, by the cosine or the dot product, as the model states."""

import numpy as np

from common.similarity import Similarity

# Shapes: N texts, H dimensions of an embedding.


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
    found = products.sum(axis=1)
    # Rounding may put the cosine of a vector with itself just above 1.
    return found.clip(-1, 1) if similarity == "cosine" else found
