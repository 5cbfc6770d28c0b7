"""Weighted MSE: regress the similarity of two texts on their judged relevance."""

from torch import Tensor, nn

from common.similarity import Similarity, pairwise

# Shapes: B pairs, H dimensions of an embedding.


class WeightedMSELoss(nn.Module):
    """Weighted mean of the squared distance between similarity and relevance.

    ``sum(w * (s(q, d) - rel)**2) / sum(w)``. A pair of weight 2 counts as two pairs.

    Args:
        similarity: "cosine" or "dot".
    """

    def __init__(self, similarity: Similarity = "cosine") -> None:
        super().__init__()
        self.similarity = similarity

    def forward(
        self, queries: Tensor, documents: Tensor, relevances: Tensor, weights: Tensor
    ) -> Tensor:
        """Compare pair by pair.

        Args:
            queries: Embeddings [B, H]; need not be normalised.
            documents: Embeddings [B, H] of the texts they are paired with.
            relevances: Judged relevance [B], in [0, 1].
            weights: Importance [B] of each pair, above 0.
        """
        similarities = pairwise(queries.float(), documents.float(), self.similarity)  # [B]
        return (weights * (similarities - relevances) ** 2).sum() / weights.sum()
