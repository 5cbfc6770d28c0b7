"""Distillation: match a teacher's distribution over a query's candidates, or its margins."""

from torch import Tensor, nn
from torch.nn import functional as F

from common.similarity import AnySimilarity, Similarity, TokenSimilarity, pairwise
from losses.scores import by_group, check_positive

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups, H
# dimensions of an embedding.


class DistillationLoss(nn.Module):
    """Kullback-Leibler divergence from the teacher's ranking of a group to the student's.

    ``mean over groups of sum_i t_i * (log t_i - log s_i)`` with ``t = softmax(teacher / Tt)`` and
    ``s = softmax(student / T)`` over the candidates of the group, after Hinton et al., "Distilling
    the Knowledge in a Neural Network" (2015). It is 0 when the two softmaxes are equal.

    Args:
        temperature: T; divides the student's scores.
        teacher_temperature: Tt; divides the teacher's. 1.0 suits the logits of a reranker; scores
            from 0 to 1 differ too little for that: try 0.05.
    """

    def __init__(self, temperature: float = 1.0, teacher_temperature: float = 1.0) -> None:
        super().__init__()
        check_positive(temperature=temperature, teacher_temperature=teacher_temperature)
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups.

        Args:
            scores: The student's [P], group after group.
            relevances: The teacher's scores [G, C], on any scale; anything where ``mask`` is False.
            mask: bool [G, C]; True for candidates, False for padding. P of them are True.
        """
        lowest = float("-inf")
        padded = by_group(scores.float() / self.temperature, mask, lowest)  # [G, C]
        student = F.log_softmax(padded, dim=1).masked_fill(~mask, 0.0)
        teacher = (relevances.float() / self.teacher_temperature).masked_fill(~mask, lowest)
        teacher = F.log_softmax(teacher, dim=1).masked_fill(~mask, lowest)
        divergence = teacher.exp() * (teacher.masked_fill(~mask, 0.0) - student)  # [G, C]
        return divergence.sum(dim=1).mean()


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
        check_positive(scale=scale)
        self.scale = scale

    def forward(self, scores: Tensor, relevances: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over the groups; arguments as in ``DistillationLoss``."""
        padded = by_group(scores, mask)  # [G, C]
        errors = self.scale * (padded[:, :1] - padded) - (relevances[:, :1] - relevances)
        errors = (errors**2).masked_fill(~mask, 0.0)  # 0 for the first candidate itself
        return (errors.sum(dim=1) / (mask.sum(dim=1) - 1).clamp(min=1)).mean()


class EmbedderLoss(nn.Module):
    """A loss of scores whose student's scores are similarities of embeddings."""

    def __init__(self, loss: nn.Module, similarity: AnySimilarity) -> None:
        super().__init__()
        self.similarity = similarity
        self.loss = loss

    def forward(
        self, queries: Tensor, documents: Tensor, relevances: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the mean over the groups.

        Args:
            queries: Embeddings [P, H]; need not be normalised.
            documents: Embeddings [P, H] of the candidates they are paired with.
            relevances: As in ``DistillationLoss``.
            mask: As there.
        """
        scores = pairwise(queries.float(), documents.float(), self.similarity)  # [P]
        loss: Tensor = self.loss(scores, relevances, mask)
        return loss


class EmbedderDistillationLoss(EmbedderLoss):
    """Kullback-Leibler divergence from the teacher's ranking of a group to an embedder's.

    As ``DistillationLoss``, with similarities of embeddings as the student's scores.

    Args:
        temperature: T; divides the similarities.
        teacher_temperature: Tt; divides the teacher's scores; see ``DistillationLoss``.
        similarity: "cosine" or "dot".
    """

    def __init__(
        self,
        temperature: float = 0.05,
        teacher_temperature: float = 1.0,
        similarity: Similarity = "cosine",
    ) -> None:
        super().__init__(DistillationLoss(temperature, teacher_temperature), similarity)


class EmbedderMarginMSELoss(EmbedderLoss):
    """Squared error of the margins between the similarities of a group's candidates.

    As ``MarginMSELoss``, with similarities of embeddings as the student's scores.

    Args:
        scale: Multiplies the similarities; see ``MarginMSELoss``.
        similarity: "cosine" or "dot".
    """

    def __init__(self, scale: float = 1.0, similarity: Similarity = "cosine") -> None:
        super().__init__(MarginMSELoss(scale), similarity)


class MultiVectorDistillationLoss(EmbedderLoss):
    """Kullback-Leibler divergence from the teacher's ranking of a group to that by MaxSim.

    As ``DistillationLoss``, with similarities of a multi-vector encoder as the student's scores.

    Args:
        temperature: T; divides the similarities.
        teacher_temperature: Tt; divides the teacher's scores; see ``DistillationLoss``.
        similarity: "maxsim" or "meanmaxsim"; see ``MultiVectorContrastiveLoss``.
    """

    def __init__(
        self,
        temperature: float = 0.25,
        teacher_temperature: float = 1.0,
        similarity: TokenSimilarity = "maxsim",
    ) -> None:
        super().__init__(DistillationLoss(temperature, teacher_temperature), similarity)


class MultiVectorMarginMSELoss(EmbedderLoss):
    """Squared error of the margins between MaxSim of a group's candidates.

    As ``MarginMSELoss``, with similarities of a multi-vector encoder as the student's scores.

    Args:
        scale: Multiplies the similarities; see ``MarginMSELoss``.
        similarity: "maxsim" or "meanmaxsim"; see ``MultiVectorContrastiveLoss``.
    """

    def __init__(self, scale: float = 1.0, similarity: TokenSimilarity = "maxsim") -> None:
        super().__init__(MarginMSELoss(scale), similarity)
