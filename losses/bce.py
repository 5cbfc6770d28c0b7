"""Binary cross-entropy: is this document relevant to this query?"""

from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: P pairs of query and document.


class BCELoss(nn.Module):
    """Weighted mean of the cross-entropy between sigmoid(score) and relevance.

    ``-sum(w * (rel * log(p) + (1 - rel) * log(1 - p))) / sum(w)`` with ``p = sigmoid(score)``.
    Relevances between 0 and 1 are soft labels. A row of weight 2 counts as two rows.
    """

    def forward(self, scores: Tensor, relevances: Tensor, weights: Tensor) -> Tensor:
        """Compare row by row; ``scores`` (raw logits), ``relevances``, ``weights`` are [P]."""
        losses = F.binary_cross_entropy_with_logits(scores.float(), relevances, reduction="none")
        return (weights * losses).sum() / weights.sum()
