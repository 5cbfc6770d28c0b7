"""Arithmetic: tensors in, one scalar out. One objective per file."""

from losses.bce import BCELoss
from losses.contrastive import ContrastiveLoss
from losses.cosent import CoSENTLoss
from losses.listwise import ListwiseLoss
from losses.mse import MSELoss
from losses.pairwise import PairwiseLoss
from losses.weighted_mse import WeightedMSELoss

__all__ = [
    "BCELoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "ListwiseLoss",
    "MSELoss",
    "PairwiseLoss",
    "WeightedMSELoss",
]
