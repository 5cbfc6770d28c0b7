"""Pairwise ranking: of two candidates of a query, score the more relevant one higher."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

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
        scores = scores.float()
        scores = scores.new_zeros(mask.shape).masked_scatter(mask, scores)  # [G, C]
        margins = scores[:, :, None] - scores[:, None, :]  # [G, C, C]: s_i - s_j
        gains = (relevances[:, :, None] - relevances[:, None, :]).clamp(min=0)
        gains = gains * (mask[:, :, None] & mask[:, None, :])
        losses = F.softplus(-margins) if self.margin is None else F.relu(self.margin - margins)
        pairs = (gains > 0).sum(dim=(1, 2)).clamp(min=1)  # [G]
        return ((gains * losses).sum(dim=(1, 2)) / pairs).mean()
