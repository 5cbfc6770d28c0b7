"""ListMLE: the likelihood of a group's order of relevance under the model's scores."""

import torch
from torch import Tensor, nn

from losses.scores import by_group, check_positive

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


class ListMLELoss(nn.Module):
    """The negative log-likelihood of the order of relevance, by the Plackett-Luce model.

    ``mean over groups of -sum_i w_i * (s_i - log(exp(s_i) + sum_{rel_j < rel_i} exp(s_j)))``, after
    Xia et al., "Listwise Approach to Learning to Rank" (2008). With ``position_aware``,
    ``w_i = 2^(n - r_i) - 1``, divided by their sum, for a candidate at place ``r_i`` of ``n`` in
    the order of relevance (Lan et al., "Position-Aware ListMLE", 2014); else 1. Equally relevant
    candidates are not compared with each other, and share the mean weight of their places. A group
    whose candidates are all equally relevant adds 0.

    Args:
        position_aware: Whether the top of the order counts more.
        temperature: T; divides the scores.
    """

    # A group of equally relevant candidates teaches nothing; trainers count such steps.
    needs_different_relevances = True

    def __init__(self, position_aware: bool = True, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.position_aware, self.temperature = position_aware, temperature

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups; arguments as in ``PairwiseLoss``."""
        scores = by_group(scores.float() / self.temperature, mask)  # [G, C]
        lower = (relevances[:, None, :] < relevances[:, :, None]) & mask[:, None, :]
        itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        rivals = scores[:, None, :].expand_as(lower).masked_fill(~(lower | itself), float("-inf"))
        losses = rivals.logsumexp(dim=2) - scores  # [G, C]; 0 for the least relevant
        if self.position_aware:
            losses = losses * position_weights(relevances, mask)
        return losses.masked_fill(~mask, 0.0).sum(dim=1).mean()


def position_weights(relevances: Tensor, mask: Tensor) -> Tensor:
    """``2^(n - r) - 1`` for rank r in the order of relevance, summing to 1 in a group: [G, C]."""
    order = relevances.masked_fill(~mask, float("-inf")).argsort(dim=1, descending=True)
    places = order.argsort(dim=1) + 1.0
    count = mask.sum(dim=1, keepdim=True)
    weights = ((-places).exp2() - (-count.float()).exp2()).masked_fill(~mask, 0.0)  # times 2^-n
    equal = (relevances[:, :, None] == relevances[:, None, :]) & mask[:, None, :]
    weights = (equal * weights[:, None, :]).sum(dim=2) / equal.sum(dim=2).clamp(min=1)
    weights = weights.masked_fill(~mask, 0.0)
    # Of a single candidate, whose weight is 0, the sum is too.
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
