"""Listwise ranking: match the softmax over a query's candidates to their relevances."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


class ListwiseLoss(nn.Module):
    """Cross-entropy between the softmax over a group's scores and its relevances.

    ``mean over groups of -sum_i (rel_i / sum_k rel_k) * log softmax(s / T)_i``; the softmax is
    ListNet's top-one probability (Cao et al., "Learning to Rank: From Pairwise Approach to
    Listwise Approach", 2007). With one positive of relevance 1 it is the usual cross-entropy. A
    group whose candidates are all equally relevant adds 0.

    Args:
        temperature: T; divides the scores.
    """

    # A group of equally relevant candidates teaches nothing; trainers count such steps.
    needs_different_relevances = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups; arguments as in ``PairwiseLoss``."""
        scores = scores.float() / self.temperature
        scores = scores.new_full(mask.shape, float("-inf")).masked_scatter(mask, scores)  # [G, C]
        log_probabilities = F.log_softmax(scores, dim=1).masked_fill(~mask, 0.0)
        relevances = relevances.masked_fill(~mask, 0.0)
        targets = relevances / relevances.sum(dim=1, keepdim=True).clamp(min=1e-12)
        highest = relevances.masked_fill(~mask, float("-inf")).amax(dim=1)
        lowest = relevances.masked_fill(~mask, float("inf")).amin(dim=1)
        losses = -(targets * log_probabilities).sum(dim=1)  # [G]
        return (losses * (highest > lowest)).mean()
