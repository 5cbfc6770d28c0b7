"""Weighted MSE: make the cosine of two texts equal their judged relevance."""

from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: B pairs, H dimensions of an embedding.


class WeightedMSELoss(nn.Module):
    """Weighted mean of the squared distance between cosine and relevance.

    ``sum(w * (cos(q, d) - rel)**2) / sum(w)``. A row of weight 2 counts as two rows.
    """

    def forward(
        self, queries: Tensor, documents: Tensor, relevances: Tensor, weights: Tensor
    ) -> Tensor:
        """Compare row by row.

        Args:
            queries: Embeddings [B, H]; need not be normalised.
            documents: Embeddings [B, H] of the texts they are paired with.
            relevances: Judged relevance [B], in [0, 1].
            weights: Importance [B] of each row, above 0.
        """
        cosines = F.cosine_similarity(queries.float(), documents.float(), dim=-1)  # [B]
        return (weights * (cosines - relevances) ** 2).sum() / weights.sum()
