"""Compare embeddings by their cosine or their dot product, in losses, search and serving."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

# Shapes: N texts, Q queries, D documents, H dimensions of an embedding.

Similarity = Literal["cosine", "dot"]


def for_dot_product(embeddings: Tensor, similarity: Similarity) -> Tensor:
    """Prepare embeddings [N, H] so that their dot products are the similarity.

    Exact search and indexes then only ever compute dot products.
    """
    return F.normalize(embeddings, dim=-1) if similarity == "cosine" else embeddings


def pairwise(queries: Tensor, documents: Tensor, similarity: Similarity) -> Tensor:
    """The similarity of each query [N, H] with the document [N, H] beside it: [N]."""
    if similarity == "cosine":
        return F.cosine_similarity(queries, documents, dim=-1)
    return (queries * documents).sum(dim=-1)


def all_pairs(queries: Tensor, documents: Tensor, similarity: Similarity) -> Tensor:
    """The similarity of every query [Q, H] with every document [D, H]: [Q, D]."""
    return for_dot_product(queries, similarity) @ for_dot_product(documents, similarity).T
