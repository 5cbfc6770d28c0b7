"""Rows in, one batch of tensors out. Each docstring shows the batch."""

from collators.contrastive import ContrastiveCollator
from collators.groups import GroupCollator
from collators.pairs import PairCollator
from collators.scored_pairs import ScoredPairCollator
from collators.teacher_groups import EmbedderDistillationCollator, RerankerDistillationCollator

__all__ = [
    "ContrastiveCollator",
    "EmbedderDistillationCollator",
    "GroupCollator",
    "PairCollator",
    "RerankerDistillationCollator",
    "ScoredPairCollator",
]
