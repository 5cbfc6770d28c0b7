"""How a loss compares two embeddings: by their cosine or by their dot product."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Similarity = Literal["cosine", "dot"]

# Both compute in fp32: under autocast, scores divided by a small temperature need its precision.


def similarity_matrix(
    queries: Tensor, documents: Tensor, similarity: Similarity = "cosine"
) -> Tensor:
    """Compare every query with every document: [Q, H], [D, H] -> [Q, D]."""
    queries, documents = queries.float(), documents.float()
    if similarity == "cosine":
        queries, documents = F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)
    return queries @ documents.T


def pair_similarities(
    queries: Tensor, documents: Tensor, similarity: Similarity = "cosine"
) -> Tensor:
    """Compare each query with the document of the same index: [P, H], [P, H] -> [P]."""
    queries, documents = queries.float(), documents.float()
    if similarity == "cosine":
        return F.cosine_similarity(queries, documents, dim=-1)
    return (queries * documents).sum(dim=-1)
