"""InfoNCE: pick each query's own document out of all the documents of the batch."""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.similarity import (
    AnySimilarity,
    Similarity,
    TokenSimilarity,
    all_pairs,
    for_dot_product,
    pairwise,
)
from losses.scores import check_positive

# Shapes: Q queries, D documents, A gathered queries, H dimensions of an embedding, G of a guide's.


@torch.no_grad()
def in_batch_accuracy(
    queries: Tensor,
    documents: Tensor,
    positives: Tensor,
    false_negative_mask: Tensor,
    similarity: AnySimilarity = "cosine",
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


class Guide(NamedTuple):
    """A guide model's embeddings of the same texts; their dot products are its similarity.

    Args:
        queries: [Q, G].
        documents: [D, G].
        gathered_queries: [A, G], beside ``GatheredQueries.queries``.
    """

    queries: Tensor
    documents: Tensor
    gathered_queries: Tensor


class ContrastiveLoss(nn.Module):
    """Cross-entropy over the similarities of every query with every document (InfoNCE).

    ``mean over i of -log(exp(s[i, p_i] / T) / sum over j of exp(s[i, j] / T))``, after van den
    Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018). A query's
    own document is a negative for all other queries, so that a larger batch is a harder task.

    With a margin, candidates of query i that are likely to be relevant to it are left out: those
    whose similarity is above ``s[i, p_i] - absolute_margin`` or above
    ``s[i, p_i] - relative_margin * abs(s[i, p_i])``. 0 leaves out what is more similar than the
    query's own document; below 0, only what is clearly more similar; above 0, also what is a
    little less so. The similarities are the model's own, or a guide model's (``guide_model``),
    after Solatorio, "GISTEmbed" (2024).

    Args:
        temperature: T; divides the similarities. Lower is sharper: hard negatives weigh more.
        symmetric: Also pick the query out of all queries for each positive document, and take
            the mean of both directions.
        similarity: "cosine" or "dot".
        absolute_margin: See above; null: no such bound.
        relative_margin: See above, below 1; null: no such bound.
        contrast_queries: The other queries are negatives of a query as well.
        contrast_documents: The similarities of a query's document with the other documents stand
            in its sum as well, so that they are pushed apart. With ``contrast_queries``: Li et al.,
            "Towards General Text Embeddings with Multi-stage Contrastive Learning" (2023).
        hardness: Added to the logit of each negative document, times its similarity, through which
            no gradient flows: hard ones weigh more. Lan et al., "LLaVE" (2025), eq. 5.
    """

    def __init__(
        self,
        temperature: float = 0.05,
        symmetric: bool = False,
        similarity: Similarity = "cosine",
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        contrast_queries: bool = False,
        contrast_documents: bool = False,
        hardness: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        if relative_margin is not None and not relative_margin < 1:
            raise ValueError(f"relative_margin must be below 1, got {relative_margin}")
        if not 0 <= hardness < math.inf:
            raise ValueError(f"hardness must be 0 or above, got {hardness}")
        self.temperature = temperature
        self.symmetric = symmetric
        self.similarity: AnySimilarity = similarity
        self.absolute_margin = absolute_margin
        self.relative_margin = relative_margin
        self.contrast_queries = contrast_queries
        self.contrast_documents = contrast_documents
        self.hardness = hardness

    @property
    def finds_false_negatives(self) -> bool:
        """Whether there is a margin."""
        return self.absolute_margin is not None or self.relative_margin is not None

    @property
    def has_other_negatives(self) -> bool:
        """Whether a query has other negatives than the documents of the batch."""
        return self.symmetric or self.contrast_queries or self.contrast_documents

    def forward(
        self,
        queries: Tensor,
        documents: Tensor,
        positives: Tensor,
        false_negative_mask: Tensor,
        gathered_queries: GatheredQueries | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """Return the mean over the queries.

        Args:
            queries: Embeddings [Q, H]; need not be normalised.
            documents: Embeddings [D, H] of the different documents of the batch.
            positives: int [Q]; ``documents[positives[i]]`` belongs to query i.
            false_negative_mask: bool [Q, D]; documents that would be negatives of a query but are
                known to be relevant to it too. They are left out of its sum.
            gathered_queries: For the symmetric loss and ``contrast_queries``: the queries that a
                document has to tell its own from; None: ``queries``.
            guide: By which similarities margins count; None: by the model's own.
        """
        others = gathered_queries
        if others is None:
            others = GatheredQueries.of_batch(queries, positives, false_negative_mask)
        # fp32 also under autocast: scores divided by a small temperature need its precision.
        queries, documents, asked = (
            for_dot_product(each.float(), self.similarity)
            for each in (queries, documents, others.queries)
        )
        own, rows = documents[positives], torch.arange(len(queries), device=queries.device)
        near = self._near(guide, positives, queries, documents, asked)

        similar = all_pairs(queries, documents, self._compared_by)
        mask = false_negative_mask | near("queries", "documents")
        mask[rows, positives] = False
        harder = self.hardness * similar.detach()
        harder[rows, positives] = 0
        logits = [(similar / self.temperature + harder).masked_fill(mask, float("-inf"))]
        if self.contrast_queries:
            mask = others.false_negative_mask | near("queries", "gathered_queries")
            mask[rows, others.own] = True
            logits.append(self._logits(queries, asked, mask))
        if self.contrast_documents:
            mask = false_negative_mask | near("positives", "documents")
            mask[rows, positives] = True
            logits.append(self._logits(own, documents, mask))
        forward = F.cross_entropy(torch.cat(logits, dim=1), positives)
        if not self.symmetric:
            return forward
        mask = others.false_negative_mask | near("gathered_queries", "positives", turned=True)
        mask[rows, others.own] = False
        backward = F.cross_entropy(self._logits(asked, own, mask.T).T, others.own)
        return (forward + backward) / 2

    @torch.no_grad()
    def widen_mask(
        self,
        queries: Tensor,
        documents: Tensor,
        positives: Tensor,
        false_negative_mask: Tensor,
        guide: Guide | None = None,
    ) -> Tensor:
        """The mask [Q, D] with the false negatives that the margins find; arguments as above."""
        asked, found = (
            for_dot_product(each.float(), self.similarity) for each in (queries, documents)
        )
        near = self._near(guide, positives, asked, found, asked)
        mask = false_negative_mask | near("queries", "documents")
        mask[torch.arange(len(queries), device=mask.device), positives] = False
        return mask

    @property
    def _compared_by(self) -> AnySimilarity:
        """The similarity of embeddings that ``for_dot_product`` has prepared."""
        return "dot" if self.similarity == "cosine" else self.similarity

    def _logits(self, anchors: Tensor, candidates: Tensor, mask: Tensor) -> Tensor:
        """Of anchors [Q, H] and candidates [D, H]; -inf where the mask [Q, D] is True."""
        similar = all_pairs(anchors, candidates, self._compared_by)
        return (similar / self.temperature).masked_fill(mask, float("-inf"))

    def _near(
        self, guide: Guide | None, positives: Tensor, *own_embeddings: Tensor
    ) -> Callable[..., Tensor]:
        """A function from the names of two sides to a mask of pairs too similar for negatives.

        The mask has a row for each query; ``turned``: for each document, which is named second.
        """
        if not self.finds_false_negatives:
            return lambda *_, **__: positives.new_zeros((), dtype=torch.bool)
        by = self._compared_by if guide is None else "dot"
        given = guide or Guide(*own_embeddings)
        sides = {name: side.detach() for name, side in given._asdict().items()}
        sides["positives"] = sides["documents"][positives]
        own = pairwise(sides["queries"], sides["positives"], by)[:, None]  # [Q, 1]
        limit = torch.full_like(own, float("inf"))
        if self.absolute_margin is not None:
            limit = own - self.absolute_margin
        if self.relative_margin is not None:
            limit = torch.minimum(limit, own - self.relative_margin * own.abs())

        def near(anchors: str, candidates: str, turned: bool = False) -> Tensor:
            similar = all_pairs(sides[anchors], sides[candidates], by)
            mask: Tensor = (similar.T if turned else similar) > limit
            return mask

        return near


class MultiVectorContrastiveLoss(ContrastiveLoss):
    """Cross-entropy over MaxSim of every query with every document, of a multi-vector encoder.

    As ``ContrastiveLoss``, with the similarity of Khattab and Zaharia, "ColBERT: Efficient and
    Effective Passage Search via Contextualized Late Interaction over BERT" (2020): for each token
    of a query the largest dot product with a token of the document, and the sum of these.

    Args:
        temperature: T; divides the similarities. A sum grows with the query: for "meanmaxsim" give
            this, divided by the tokens of a usual query.
        symmetric: As in ``ContrastiveLoss``.
        similarity: "maxsim" or "meanmaxsim", the mean of the query's tokens instead of their sum.
        absolute_margin: As in ``ContrastiveLoss``.
        relative_margin: As there.
        hardness: As there.
    """

    def __init__(
        self,
        temperature: float = 0.25,
        symmetric: bool = False,
        similarity: TokenSimilarity = "maxsim",
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        hardness: float = 0.0,
    ) -> None:
        super().__init__(
            temperature,
            symmetric,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            hardness=hardness,
        )
        self.similarity = similarity
