"""Rows in, one batch of tensors out. Each docstring shows the batch."""

from collators.contrastive import ContrastiveCollator
from collators.pairs import GroupCollator, PairCollator, RerankerDistillationCollator
from collators.texts import EmbedderDistillationCollator, ScoredPairCollator

__all__ = [
    "ContrastiveCollator",
    "EmbedderDistillationCollator",
    "GroupCollator",
    "PairCollator",
    "RerankerDistillationCollator",
    "ScoredPairCollator",
]
