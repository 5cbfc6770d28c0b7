"""Losses of an embedder on scored pairs: their similarities, or only the order of these."""

import torch
from torch import Tensor, nn

from common.similarity import Similarity, pairwise
from losses.scores import check_positive

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


class CoSENTLoss(nn.Module):
    """Log-sum-exp over all pairs of rows whose similarities are in the wrong order.

    ``log(1 + sum over rel_i > rel_j of w_i * w_j * exp((s_j - s_i) / temperature))``,
    after Su, "CoSENT: a more efficient sentence vector scheme than Sentence-BERT" (2022,
    kexue.fm/archives/8847). Only the order of the relevances matters, not their distance. A row
    of weight 2 counts as two rows.

    Args:
        temperature: Divides the similarities; 0.05 is the paper's scale of 20.
        similarity: "cosine" or "dot".
    """

    # Several processes gather their rows before this loss: it is no mean over single rows.
    compares_all_pairs = True

    def __init__(self, temperature: float = 0.05, similarity: Similarity = "cosine") -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature
        self.similarity = similarity

    def forward(
        self, queries: Tensor, documents: Tensor, relevances: Tensor, weights: Tensor
    ) -> Tensor:
        """Compare every row with every other; arguments as in ``WeightedMSELoss``.

        A batch whose relevances are all equal carries no order and gives 0.
        """
        similarities = pairwise(queries.float(), documents.float(), self.similarity)  # [B]
        # [B, B]: by how much row j is above row i; wrong where row i is more relevant.
        wrong = (similarities[None, :] - similarities[:, None]) / self.temperature
        wrong = wrong + weights.log()[:, None] + weights.log()[None, :]
        ordered = relevances[:, None] > relevances[None, :]
        wrong = wrong.masked_fill(~ordered, float("-inf")).flatten()
        # The leading 0 is the 1 in log(1 + ...); it also keeps an unordered batch finite.
        return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), dim=0)
