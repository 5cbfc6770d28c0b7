"""Matryoshka: embeddings whose first dimensions are good embeddings by themselves."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Shapes: B rows of a batch, H dimensions of an embedding.


class MatryoshkaLoss(nn.Module):
    """The weighted sum of a loss over prefixes of the embeddings.

    ``sum over m of w_m * loss(q[:m], d[:m])``, after Kusupati et al., "Matryoshka Representation
    Learning" (2022). Each prefix is compared by its own cosine.

    Args:
        loss: A loss of query and document embeddings.
        dims: Lengths m of the prefixes; H itself is one of them if the whole is to be good too.
        weights: w_m of each; None: 1, as in the paper.
    """

    def __init__(
        self, loss: nn.Module, dims: Sequence[int], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.loss = loss
        self.dims = list(dims)
        self.weights = [1.0] * len(self.dims) if weights is None else list(weights)
        assert len(self.weights) == len(self.dims)

    def forward(
        self, queries: Tensor, documents: Tensor, *args: Any, others: Any = None, **kwargs: Any
    ) -> Tensor:
        """Return the sum.

        Args:
            queries: Embeddings [B, H].
            documents: Embeddings of the other side.
            args: Handed on to the loss.
            others: ``OtherQueries`` of ``ContrastiveLoss``, with embeddings of their own.
            kwargs: Handed on to the loss.
        """
        terms = []
        for dim, weight in zip(self.dims, self.weights, strict=True):
            if others is not None:
                kwargs["others"] = others._replace(queries=others.queries[:, :dim])
            loss = self.loss(queries[:, :dim], documents[:, :dim], *args, **kwargs)
            terms.append(weight * loss)
        return torch.stack(terms).sum()
