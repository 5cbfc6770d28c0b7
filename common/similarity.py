"""Compare embeddings by their cosine or dot product, and the vectors of tokens by MaxSim."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# Shapes: N texts, Q queries, D documents, H dimensions of an embedding, L tokens of the longest.

Similarity = Literal["cosine", "dot"]
TokenSimilarity = Literal["maxsim", "meanmaxsim"]
AnySimilarity = Similarity | TokenSimilarity
PADDING = -1e9  # similarity of what is no token of a document; its square is finite
SIMILARITIES_AT_ONCE = 2**24  # of tokens


def for_dot_product(embeddings: Tensor, similarity: AnySimilarity) -> Tensor:
    """Prepare embeddings [N, H] so that their dot products are the similarity.

    Exact search and indexes then only ever compute dot products. Vectors of tokens stay as they
    are: MaxSim is of dot products, too.
    """
    return F.normalize(embeddings, dim=-1) if similarity == "cosine" else embeddings


def pairwise(queries: Tensor, documents: Tensor, similarity: AnySimilarity) -> Tensor:
    """The similarity of each query [N, H] with the document [N, H] beside it: [N].

    By MaxSim both are vectors of tokens, as ``token_vectors`` gives them.
    """
    if queries.dim() == 3:
        with _without_autocast(queries.device):
            similar = queries.float() @ documents.float().mT  # [N, L, M]
        return _sum_of_tokens(similar.max(dim=2).values, queries, similarity)
    if similarity == "cosine":
        return F.cosine_similarity(queries, documents, dim=-1)
    return (queries * documents).sum(dim=-1)


def all_pairs(queries: Tensor, documents: Tensor, similarity: AnySimilarity) -> Tensor:
    """The similarity of every query [Q, H] with every document [D, H]: [Q, D].

    By MaxSim both are vectors of tokens, as ``token_vectors`` gives them.
    """
    if queries.dim() == 2:
        return for_dot_product(queries, similarity) @ for_dot_product(documents, similarity).T
    tokens, best = queries.float().flatten(0, 1), []  # [Q * L, H + 1]
    # Block by block: of each, backward needs no more than which token was the most similar one.
    size = max(1, SIMILARITIES_AT_ONCE // (len(tokens) * documents.shape[1]))
    with _without_autocast(queries.device):
        for block in documents.float().split(size):
            similar = tokens @ block.flatten(0, 1).T
            best.append(similar.unflatten(1, block.shape[:2]).max(dim=2).values)
    similar = torch.cat(best, dim=1).unflatten(0, queries.shape[:2])  # [Q, L, D]
    return _sum_of_tokens(similar, queries, similarity)


def maxsim(query: Tensor, document: Tensor, similarity: TokenSimilarity) -> Tensor:
    """The similarity of the tokens of a query [L, H] and of a document [M, H]: []."""
    if not len(document):
        return torch.tensor(PADDING)
    with _without_autocast(query.device):
        total = (query @ document.T).max(dim=1).values.sum()
    return total / max(1, len(query)) if similarity == "meanmaxsim" else total


def token_vectors(vectors: Tensor, scored: Tensor, is_query: Tensor) -> Tensor:
    """Vectors of tokens as they are compared by MaxSim, which then needs no mask: [N, L, H + 1].

    MaxSim is the sum, over the tokens of a query, of the largest dot product with a token of the
    document. Of a query, the last column is 1 at the tokens that count, and all of the others are
    0, so that they add exactly 0. Of a document it is 0 at the tokens that count and ``PADDING`` at
    others, which are then never the most similar ones. The last position of a text is to be such
    that it does not count; see ``widen``.

    Args:
        vectors: [N, L, H].
        scored: bool [N, L]; the tokens that count.
        is_query: bool [N]; of documents, False.
    """
    side = is_query[:, None].to(vectors.dtype)
    last = torch.where(scored, side, (1 - side) * PADDING)
    return torch.cat([vectors * scored[..., None], last[..., None]], dim=-1)


def widen(vectors: Tensor, width: int) -> Tensor:
    """Vectors of tokens [N, L, H + 1] to [N, width, H + 1], by repeating the last position."""
    return torch.cat([vectors, vectors[:, -1:].expand(-1, width - vectors.shape[1], -1)], dim=1)


def _sum_of_tokens(best: Tensor, queries: Tensor, similarity: str) -> Tensor:
    """From the best similarity of each token, [Q, L, ...], to those of queries [Q, ...]."""
    found = best.sum(dim=1)
    if similarity == "maxsim":
        return found
    count = queries[..., -1].float().sum(dim=1).clamp(min=1)
    return found / count.view(-1, *[1] * (found.dim() - 1))


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Where products of fp32 stay fp32."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
