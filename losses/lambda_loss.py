"""LambdaLoss: pairwise ranking, each pair weighted by what swapping it would change in NDCG."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.scores import by_group, check_positive

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


class LambdaLoss(nn.Module):
    """NDCG-Loss2++ of "The LambdaLoss Framework for Ranking Metric Optimization".

    By Wang et al. (2018). For every pair with ``rel_i > rel_j`` of a group, at the places ``p_i``
    and ``p_j`` of the order that the scores give, ``w_ij * log2(1 + exp(-(s_i - s_j) / T))``. With
    ``G = (2^rel - 1) / maxDCG`` and ``D(p) = log2(1 + p)``::

        w_ij = (mu * |1/D(d) - 1/D(d + 1)| + |1/D(p_i) - 1/D(p_j)|) * |G_i - G_j|
        d    = |p_i - p_j|

    The loss is the mean over the pairs of a group, then over the groups. A group whose candidates
    are all equally relevant adds 0.

    Args:
        k: Optimize NDCG@k: a pair counts if one of its candidates is among the best k by score;
            None: all do.
        mu: Weight of the first term (NDCG-Loss2) beside the second (LambdaRank).
        temperature: T; divides the scores.
    """

    # A group of equally relevant candidates teaches nothing; trainers count such steps.
    needs_different_relevances = True

    def __init__(self, k: int | None = None, mu: float = 10.0, temperature: float = 1.0) -> None:
        super().__init__()
        if k is not None and k < 1:
            raise ValueError(f"k must be at least 1, or null for all, got {k}")
        if not 0 <= mu < math.inf:
            raise ValueError(f"mu must be at least 0, got {mu}")
        check_positive(temperature=temperature)
        self.k, self.mu, self.temperature = k, mu, temperature

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups; arguments as in ``PairwiseLoss``."""
        scores = by_group(scores.float() / self.temperature, mask, float("-inf"))  # [G, C]
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        relevances = relevances.float().masked_fill(~mask, 0.0)
        ranked, real = relevances.gather(1, order), mask.gather(1, order)  # [G, C], by score
        weights = self._weights(ranked, relevances)  # [G, C, C]
        counted = (ranked[:, :, None] > ranked[:, None, :]) & real[:, :, None] & real[:, None, :]
        counted[:, self.k :, self.k :] &= self.k is None
        scores = scores.masked_fill(~real, 0.0)
        losses = F.softplus(scores[:, None, :] - scores[:, :, None]) / math.log(2)
        pairs = counted.sum(dim=(1, 2)).clamp(min=1)  # [G]
        return ((losses * weights * counted).sum(dim=(1, 2)) / pairs).mean()

    def _weights(self, ranked: Tensor, relevances: Tensor) -> Tensor:
        """``w_ij`` of relevances [G, C] in the order of the scores."""
        places = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
        inverse = 1 / torch.log2(places + 1.0)  # [C]: 1/D(p)
        ideal = relevances.sort(dim=1, descending=True).values.exp2() - 1
        best = (ideal * inverse)[:, : self.k].sum(dim=1, keepdim=True).clamp(min=1e-10)
        gains = (ranked.exp2() - 1) / best  # [G, C]
        apart = (places[:, None] - places[None, :]).abs()
        steps = (1 / torch.log2(apart + 1.0) - 1 / torch.log2(apart + 2.0)).abs()
        steps = steps.fill_diagonal_(0.0)
        swaps = (inverse[:, None] - inverse[None, :]).abs()
        return (self.mu * steps + swaps) * (gains[:, :, None] - gains[:, None, :]).abs()
