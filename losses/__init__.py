"""Arithmetic: tensors in, one scalar out. One objective per file."""

from losses.bce import BCELoss
from losses.contrastive import ContrastiveLoss
from losses.cosent import CoSENTLoss
from losses.distillation import CosineDistillationLoss, DistillationLoss
from losses.listwise import ListwiseLoss
from losses.margin_mse import CosineMarginMSELoss, MarginMSELoss
from losses.matryoshka import MatryoshkaLoss
from losses.mse import MSELoss
from losses.pairwise import PairwiseLoss
from losses.weighted_mse import WeightedMSELoss

__all__ = [
    "BCELoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "CosineDistillationLoss",
    "CosineMarginMSELoss",
    "DistillationLoss",
    "ListwiseLoss",
    "MSELoss",
    "MarginMSELoss",
    "MatryoshkaLoss",
    "PairwiseLoss",
    "WeightedMSELoss",
]
