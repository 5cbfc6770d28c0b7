"""ADR-MSE: distillation of a teacher's order, as an error of ranks that counts more at the top."""

import torch
from torch import Tensor, nn

from losses.scores import by_group, check_positive

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


class ADRMSELoss(nn.Module):
    """Mean squared error of approximate ranks, discounted by the teacher's rank.

    ``mean over groups of mean_i (r_i - a_i)^2 / log2(r_i + 1)``, where ``r_i`` is the rank of a
    candidate by the teacher (equal scores share the mean of their ranks) and
    ``a_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / T)`` its approximate rank by the student. After
    Schlatt et al., "Rank-DistiLLM" (2025). Only the order of the teacher's scores matters, so that
    they may be on any scale, those of a large language model's ranking included.

    Args:
        temperature: T; divides the student's scores. The lower, the nearer to true ranks.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups; arguments as in ``DistillationLoss``."""
        scores = by_group(scores.float() / self.temperature, mask)  # [G, C]
        others = mask[:, None, :]
        above = (scores[:, None, :] - scores[:, :, None]).sigmoid() * others
        approximate = 0.5 + above.sum(dim=2)  # sigmoid(0) of the candidate itself
        higher = ((relevances[:, None, :] > relevances[:, :, None]) & others).sum(dim=2)
        equal = ((relevances[:, None, :] == relevances[:, :, None]) & others).sum(dim=2)
        ranks = higher + (equal + 1) / 2
        losses = (ranks - approximate).square() / torch.log2(ranks + 1)
        losses = losses.masked_fill(~mask, 0.0)  # [G, C]; padding has ranks of its own
        return (losses.sum(dim=1) / mask.sum(dim=1)).mean()
