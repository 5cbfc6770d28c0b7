"""Pointwise losses of a reranker: each pair's probability against its judged relevance."""

from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: P pairs of query and document.


class BCELoss(nn.Module):
    """Weighted mean of the cross-entropy between sigmoid(score) and relevance.

    ``-sum(w * (rel * log(p) + (1 - rel) * log(1 - p))) / sum(w)`` with ``p = sigmoid(score)``.
    Relevances between 0 and 1 are soft labels. A pair of weight 2 counts as two pairs.
    """

    def forward(self, scores: Tensor, relevances: Tensor, weights: Tensor) -> Tensor:
        """Compare pair by pair; ``scores`` (raw logits), ``relevances``, ``weights`` are [P]."""
        losses = F.binary_cross_entropy_with_logits(scores.float(), relevances, reduction="none")
        return (weights * losses).sum() / weights.sum()


class MSELoss(nn.Module):
    """``sum(w * (sigmoid(score) - rel)**2) / sum(w)``: a weighted regression on grades."""

    def forward(self, scores: Tensor, relevances: Tensor, weights: Tensor) -> Tensor:
        """Compare pair by pair; arguments as in ``BCELoss``."""
        errors = scores.float().sigmoid() - relevances
        return (weights * errors**2).sum() / weights.sum()
