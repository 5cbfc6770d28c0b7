"""MSE for a reranker: make its probability equal the judged relevance."""

from torch import Tensor, nn

# Shapes: P pairs of query and document.


class MSELoss(nn.Module):
    """``sum(w * (sigmoid(score) - rel)**2) / sum(w)``: a weighted regression on grades."""

    def forward(self, scores: Tensor, relevances: Tensor, weights: Tensor) -> Tensor:
        """Compare row by row; ``scores`` (raw logits), ``relevances``, ``weights`` are [P]."""
        errors = scores.float().sigmoid() - relevances
        return (weights * errors**2).sum() / weights.sum()
