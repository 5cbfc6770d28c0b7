"""InfoNCE: pick each query's own document out of all the documents of the batch."""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: Q queries, D documents, H dimensions of an embedding.


def similarities(queries: Tensor, documents: Tensor) -> Tensor:
    """Cosine of every query with every document: [Q, H], [D, H] -> [Q, D], in fp32."""
    queries = F.normalize(queries.float(), dim=-1)
    documents = F.normalize(documents.float(), dim=-1)
    return queries @ documents.T


@torch.no_grad()
def in_batch_accuracy(
    queries: Tensor, documents: Tensor, positives: Tensor, excluded: Tensor
) -> Tensor:
    """Share of queries whose own document scores above all others; arguments as in the loss."""
    scores = similarities(queries, documents).masked_fill(excluded, float("-inf"))
    return (scores.argmax(dim=1) == positives).float().mean()


class OtherQueries(NamedTuple):
    """What each positive document is compared with in the symmetric loss.

    Args:
        queries: Embeddings [A, H].
        own: [Q]; ``queries[own[i]]`` is query i.
        excluded: bool [Q, A]; queries to which document i is relevant as well.
    """

    queries: Tensor
    own: Tensor
    excluded: Tensor

    @classmethod
    def of_batch(cls, queries: Tensor, positives: Tensor, excluded: Tensor) -> Self:
        """The queries of the batch itself; arguments as in the loss."""
        own = torch.arange(len(positives), device=positives.device)
        relevant = excluded[:, positives] | (positives[:, None] == positives[None, :])  # [A, Q]
        relevant[own, own] = False
        return cls(queries, own, relevant.T)


class ContrastiveLoss(nn.Module):
    """Cross-entropy over the cosines of every query with every document (InfoNCE).

    ``mean over i of -log(exp(s[i, p_i] / T) / sum over j of exp(s[i, j] / T))``, after van den
    Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018). A query's
    own document is a negative for all other queries, so that a larger batch is a harder task.

    Args:
        temperature: T; divides the cosines. Lower is sharper: hard negatives weigh more.
        symmetric: Also pick the query out of all queries for each positive document, and take
            the mean of both directions.
    """

    def __init__(self, temperature: float = 0.05, symmetric: bool = False) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature
        self.symmetric = symmetric

    def forward(
        self,
        queries: Tensor,
        documents: Tensor,
        positives: Tensor,
        excluded: Tensor,
        others: OtherQueries | None = None,
    ) -> Tensor:
        """Return the mean over the queries.

        Args:
            queries: Embeddings [Q, H]; need not be normalised.
            documents: Embeddings [D, H] of the different documents of the batch.
            positives: [Q]; ``documents[positives[i]]`` belongs to query i.
            excluded: bool [Q, D]; documents that are no negatives for a query, because they
                are known to be relevant to it too.
            others: For the symmetric loss: the queries that a document is to tell its own from;
                None: ``queries``.
        """
        forward = self._pick(queries, documents, positives, excluded)
        if not self.symmetric:
            return forward
        if others is None:
            others = OtherQueries.of_batch(queries, positives, excluded)
        backward = self._pick(documents[positives], others.queries, others.own, others.excluded)
        return (forward + backward) / 2

    def _pick(self, anchors: Tensor, candidates: Tensor, own: Tensor, excluded: Tensor) -> Tensor:
        """Cross-entropy of each anchor's own candidate against all that are not excluded."""
        scores = similarities(anchors, candidates) / self.temperature
        return F.cross_entropy(scores.masked_fill(excluded, float("-inf")), own)
