"""Losses of a reranker on the judged candidates of a query: two at a time, or all at once."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from losses.scores import by_group, check_positive

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


class PairwiseLoss(nn.Module):
    """RankNet over the candidates of each query, or a hinge with a margin.

    For every ordered pair (``rel_i > rel_j``) of a group:
    ``(rel_i - rel_j) * softplus(-(s_i - s_j))``, after Burges et al., "Learning to Rank using
    Gradient Descent" (2005), or, with a margin, ``(rel_i - rel_j) * max(0, margin - (s_i - s_j))``.
    The loss is the mean over the pairs of a group, then over the groups, so that a query with
    many candidates counts no more than one with few. A group whose candidates are all equally
    relevant adds 0.

    Args:
        margin: Score distance to reach; None means RankNet.
    """

    # A group of equally relevant candidates teaches nothing; trainers count such steps.
    needs_different_relevances = True

    def __init__(self, margin: float | None = None) -> None:
        super().__init__()
        if margin is not None and not 0 < margin < math.inf:
            raise ValueError(f"margin must be above 0, or null for RankNet, got {margin}")
        self.margin = margin

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups.

        Args:
            scores: Raw logits [P], group after group.
            relevances: [G, C], in [0, 1]; anything where ``mask`` is False.
            mask: bool [G, C]; True for candidates, False for padding. P of them are True.
        """
        scores = by_group(scores, mask)  # [G, C]
        margins = scores[:, :, None] - scores[:, None, :]  # [G, C, C]: s_i - s_j
        gains = (relevances[:, :, None] - relevances[:, None, :]).clamp(min=0)
        gains = gains * (mask[:, :, None] & mask[:, None, :])
        losses = F.softplus(-margins) if self.margin is None else F.relu(self.margin - margins)
        pairs = (gains > 0).sum(dim=(1, 2)).clamp(min=1)  # [G]
        return ((gains * losses).sum(dim=(1, 2)) / pairs).mean()


class ListwiseLoss(nn.Module):
    """Cross-entropy between the softmax over a group's scores and its relevances.

    ``mean over groups of -sum_i (rel_i / sum_k rel_k) * log softmax(s / T)_i``; the softmax is
    ListNet's top-one probability (Cao et al., "Learning to Rank: From Pairwise Approach to
    Listwise Approach", 2007). With one positive of relevance 1 it is the usual cross-entropy. A
    group whose candidates are all equally relevant adds 0.

    Args:
        temperature: T; divides the scores.
    """

    needs_different_relevances = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups; arguments as in ``PairwiseLoss``."""
        scores = by_group(scores.float() / self.temperature, mask, float("-inf"))  # [G, C]
        log_probabilities = F.log_softmax(scores, dim=1).masked_fill(~mask, 0.0)
        relevances = relevances.masked_fill(~mask, 0.0)
        targets = relevances / relevances.sum(dim=1, keepdim=True).clamp(min=1e-12)
        highest = relevances.masked_fill(~mask, float("-inf")).amax(dim=1)
        lowest = relevances.masked_fill(~mask, float("inf")).amin(dim=1)
        losses = -(targets * log_probabilities).sum(dim=1)  # [G]
        return (losses * (highest > lowest)).mean()
