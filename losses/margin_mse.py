"""MarginMSE: match a teacher's margins between a positive and the other candidates."""

import math

from torch import Tensor, nn

from common.similarity import Similarity, pairwise

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups, H
# dimensions of an embedding.


class MarginMSELoss(nn.Module):
    """Squared error of the margins between a group's first candidate and each of the others.

    ``mean over groups of mean over i > 0 of (scale * (s_0 - s_i) - (t_0 - t_i))**2``, after
    Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation" (2020). The first candidate is a positive. A group of one candidate adds 0.

    Args:
        scale: Multiplies the student's scores. A cosine has margins of at most 2: with a teacher
            that gives logits, set this to the size of its margins.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.scale = scale

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups; arguments as in ``DistillationLoss``."""
        scores = scores.float()
        padded = scores.new_zeros(mask.shape).masked_scatter(mask, scores)  # [G, C]
        errors = self.scale * (padded[:, :1] - padded) - (relevances[:, :1] - relevances)
        errors = (errors**2).masked_fill(~mask, 0.0)  # 0 for the first candidate itself
        return (errors.sum(dim=1) / (mask.sum(dim=1) - 1).clamp(min=1)).mean()


class EmbedderMarginMSELoss(nn.Module):
    """The same for an embedder: the student's scores are similarities of embeddings.

    Args:
        scale: Multiplies the similarities; see ``MarginMSELoss``.
        similarity: "cosine" or "dot".
    """

    def __init__(self, scale: float = 1.0, similarity: Similarity = "cosine") -> None:
        super().__init__()
        self.similarity = similarity
        self.loss = MarginMSELoss(scale)

    def forward(
        self, queries: Tensor, documents: Tensor, relevances: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the mean over the groups; arguments as in ``CosineDistillationLoss``."""
        scores = pairwise(queries.float(), documents.float(), self.similarity)  # [P]
        loss: Tensor = self.loss(scores, relevances, mask)
        return loss
