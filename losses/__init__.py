"""Losses: tensors in, one scalar out; nothing here knows a model or a process.

A loss is a mean over the rows, weighted rows or groups of its batch, so that a trainer can weight
batches. Two class attributes tell the trainers more, where they are true:

- ``compares_all_pairs``: every row is compared with every other, so that the rows of all processes
  have to be gathered first (``CoSENTLoss``);
- ``needs_different_relevances``: a group of equally relevant candidates teaches nothing
  (``PairwiseLoss``, ``ListwiseLoss``, ``LambdaLoss``, ``ListMLELoss``).
"""

from losses.adr_mse import ADRMSELoss
from losses.contrastive import ContrastiveLoss, MultiVectorContrastiveLoss
from losses.distillation import (
    DistillationLoss,
    EmbedderDistillationLoss,
    EmbedderMarginMSELoss,
    MarginMSELoss,
    MultiVectorDistillationLoss,
    MultiVectorMarginMSELoss,
)
from losses.groups import ListwiseLoss, PairwiseLoss
from losses.lambda_loss import LambdaLoss
from losses.listmle import ListMLELoss
from losses.matryoshka import MatryoshkaLoss
from losses.pointwise import BCELoss, MSELoss
from losses.scored_pairs import CoSENTLoss, WeightedMSELoss

__all__ = [
    "ADRMSELoss",
    "BCELoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "DistillationLoss",
    "EmbedderDistillationLoss",
    "EmbedderMarginMSELoss",
    "LambdaLoss",
    "ListMLELoss",
    "ListwiseLoss",
    "MSELoss",
    "MarginMSELoss",
    "MatryoshkaLoss",
    "MultiVectorContrastiveLoss",
    "MultiVectorDistillationLoss",
    "MultiVectorMarginMSELoss",
    "PairwiseLoss",
    "WeightedMSELoss",
]
