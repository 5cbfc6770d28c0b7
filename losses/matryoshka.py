"""Matryoshka: train the first dimensions of an embedding to be embeddings by themselves."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Shapes: B rows of a batch, H dimensions of an embedding.


class MatryoshkaLoss(nn.Module):
    """The weighted sum of a loss over prefixes of the embeddings.

    ``sum over m of w_m * loss(q[:m], d[:m])``, after Kusupati et al., "Matryoshka Representation
    Learning" (2022). A prefix has a cosine of its own: the loss normalises it again.

    Args:
        loss: A loss of query and document embeddings.
        dims: Lengths m of the prefixes; include H to train the whole embedding too.
        weights: w_m of each; None: 1, as in the paper.
    """

    def __init__(
        self, loss: nn.Module, dims: Sequence[int], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.loss = loss
        # What the trainers ask a loss about, they ask of the one inside.
        self.similarity = getattr(loss, "similarity", "cosine")
        self.finds_false_negatives = getattr(loss, "finds_false_negatives", False)
        self.has_other_negatives = getattr(loss, "has_other_negatives", False)
        self.widen_mask = getattr(loss, "widen_mask", None)
        self.compares_all_pairs = getattr(loss, "compares_all_pairs", False)
        self.dims = list(dims)
        self.weights = [1.0] * len(self.dims) if weights is None else list(weights)
        assert len(self.weights) == len(self.dims)

    def forward(
        self,
        queries: Tensor,
        documents: Tensor,
        *args: Any,
        gathered_queries: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the sum.

        Args:
            queries: Embeddings [B, H].
            documents: Embeddings of the other side.
            args: Passed on to the loss.
            gathered_queries: ``GatheredQueries`` of ``ContrastiveLoss``, whose embeddings are
                cut as well.
            kwargs: Passed on to the loss.
        """
        terms = []
        for dim, weight in zip(self.dims, self.weights, strict=True):
            if gathered_queries is not None:
                prefixes = gathered_queries.queries[:, :dim]
                kwargs["gathered_queries"] = gathered_queries._replace(queries=prefixes)
            loss = self.loss(queries[:, :dim], documents[:, :dim], *args, **kwargs)
            terms.append(weight * loss)
        return torch.stack(terms).sum()
