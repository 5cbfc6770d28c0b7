"""How two embeddings are compared: by the cosine or the dot product, as the model's folder says."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

# Shapes: N texts, H dimensions of an embedding.

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
