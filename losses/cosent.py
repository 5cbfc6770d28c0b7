"""CoSENT: order pairs of texts by their cosine as people ordered them by relevance."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: B pairs, H dimensions of an embedding.


class CoSENTLoss(nn.Module):
    """Log-sum-exp over all pairs of rows whose cosines stand in the wrong order.

    ``log(1 + sum over rel_i > rel_j of w_i * w_j * exp((cos_j - cos_i) / temperature))``,
    after Su, "CoSENT: a more efficient sentence vector scheme than Sentence-BERT" (2022,
    kexue.fm/archives/8847). Only the order of the relevances matters, not their distance. A row
    of weight 2 counts as two rows.

    Args:
        temperature: Divides the cosines; 0.05 is the paper's scale of 20.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(
        self, queries: Tensor, documents: Tensor, relevances: Tensor, weights: Tensor
    ) -> Tensor:
        """Compare every row with every other; arguments as in ``WeightedMSELoss``.

        A batch whose relevances are all equal carries no order and gives 0.
        """
        cosines = F.cosine_similarity(queries.float(), documents.float(), dim=-1)  # [B]
        wrong = (cosines[None, :] - cosines[:, None]) / self.temperature  # [B, B]: i above j
        wrong = wrong + weights.log()[:, None] + weights.log()[None, :]
        ordered = relevances[:, None] > relevances[None, :]
        wrong = wrong.masked_fill(~ordered, float("-inf")).flatten()
        # The leading 0 is the 1 in log(1 + ...); it also keeps an unordered batch finite.
        return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), dim=0)
