"""InfoNCE: pick each query's own document out of all the documents of the batch."""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.similarity import Similarity, all_pairs
from losses.scores import check_positive

# Shapes: Q queries, D documents, A gathered queries, H dimensions of an embedding.


@torch.no_grad()
def in_batch_accuracy(
    queries: Tensor,
    documents: Tensor,
    positives: Tensor,
    false_negative_mask: Tensor,
    similarity: Similarity = "cosine",
) -> Tensor:
    """Share of queries whose own document scores above all others; arguments as in the loss."""
    scores = all_pairs(queries.float(), documents.float(), similarity)
    scores = scores.masked_fill(false_negative_mask, float("-inf"))
    return (scores.argmax(dim=1) == positives).float().mean()


class GatheredQueries(NamedTuple):
    """The queries that the symmetric loss compares each positive document with.

    Args:
        queries: Embeddings [A, H], of all processes where there are several.
        own: int [Q]; ``queries[own[i]]`` is query i.
        false_negative_mask: bool [Q, A]; other queries to which document i is relevant as well.
    """

    queries: Tensor
    own: Tensor
    false_negative_mask: Tensor

    @classmethod
    def of_batch(cls, queries: Tensor, positives: Tensor, false_negative_mask: Tensor) -> Self:
        """The queries of the batch itself; arguments as in the loss."""
        own = torch.arange(len(positives), device=positives.device)
        # [A, Q]: query a knows document q as relevant, or has the very same positive.
        relevant = false_negative_mask[:, positives] | (positives[:, None] == positives[None, :])
        relevant[own, own] = False
        return cls(queries, own, relevant.T)


class ContrastiveLoss(nn.Module):
    """Cross-entropy over the similarities of every query with every document (InfoNCE).

    ``mean over i of -log(exp(s[i, p_i] / T) / sum over j of exp(s[i, j] / T))``, after van den
    Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018). A query's
    own document is a negative for all other queries, so that a larger batch is a harder task.

    Args:
        temperature: T; divides the similarities. Lower is sharper: hard negatives weigh more.
        symmetric: Also pick the query out of all queries for each positive document, and take
            the mean of both directions.
        similarity: "cosine" or "dot".
    """

    def __init__(
        self,
        temperature: float = 0.05,
        symmetric: bool = False,
        similarity: Similarity = "cosine",
    ) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature
        self.symmetric = symmetric
        self.similarity = similarity

    def forward(
        self,
        queries: Tensor,
        documents: Tensor,
        positives: Tensor,
        false_negative_mask: Tensor,
        gathered_queries: GatheredQueries | None = None,
    ) -> Tensor:
        """Return the mean over the queries.

        Args:
            queries: Embeddings [Q, H]; need not be normalised.
            documents: Embeddings [D, H] of the different documents of the batch.
            positives: int [Q]; ``documents[positives[i]]`` belongs to query i.
            false_negative_mask: bool [Q, D]; documents that would be negatives of a query but are
                known to be relevant to it too. They are left out of its sum.
            gathered_queries: For the symmetric loss: the queries that a document has to tell its
                own from; None: ``queries``.
        """
        forward = self._pick(queries, documents, positives, false_negative_mask)
        if not self.symmetric:
            return forward
        candidates = gathered_queries
        if candidates is None:
            candidates = GatheredQueries.of_batch(queries, positives, false_negative_mask)
        backward = self._pick(documents[positives], *candidates)
        return (forward + backward) / 2

    def _pick(self, anchors: Tensor, candidates: Tensor, own: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of each anchor's own candidate against all that are not masked."""
        # fp32 also under autocast: scores divided by a small temperature need its precision.
        scores = all_pairs(anchors.float(), candidates.float(), self.similarity) / self.temperature
        return F.cross_entropy(scores.masked_fill(mask, float("-inf")), own)
