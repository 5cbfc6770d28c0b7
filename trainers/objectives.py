"""What can be trained: one row per objective.

To add one: write its loss in ``losses/`` (and test it against a naive loop), add its row here,
and write a recipe in ``configs/``.
"""

from typing import Any, Literal, NamedTuple

from torch import nn

from collators import (
    ContrastiveCollator,
    EmbedderDistillationCollator,
    GroupCollator,
    PairCollator,
    RerankerDistillationCollator,
    ScoredPairCollator,
)
from losses import (
    BCELoss,
    ContrastiveLoss,
    CoSENTLoss,
    CosineDistillationLoss,
    CosineMarginMSELoss,
    DistillationLoss,
    ListwiseLoss,
    MarginMSELoss,
    MSELoss,
    PairwiseLoss,
    WeightedMSELoss,
)
from trainers.base import LossTrainer
from trainers.contrastive import ContrastiveTrainer
from trainers.reranker import RerankerTrainer
from trainers.similarity import OrderTrainer, SimilarityTrainer

Shape = Literal["scored_pair", "positive_pair", "candidate_group"]


class Objective(NamedTuple):
    """What one training run puts together.

    Args:
        model: The kind of model it trains.
        rows: The shapes of rows it can be given; files of another shape are turned into the first.
        needs_negatives: Whether rows without any negative teach it nothing.
        loss: Its parameters are the recipe's ``loss_args``.
        collator: Its fields are filled from the arguments of the same names.
        trainer: Carries the batch through the model to the loss.
        needs_scores: Whether rows must have a teacher's scores.
    """

    model: Literal["embedder", "reranker"]
    rows: tuple[Shape, ...]
    needs_negatives: bool
    loss: type[nn.Module]
    collator: Any
    trainer: type[LossTrainer]
    needs_scores: bool = False


PAIR: Shape = "scored_pair"
POSITIVE: Shape = "positive_pair"
GROUP: Shape = "candidate_group"

OBJECTIVES: dict[str, Objective] = {
    "weighted_mse": Objective(
        "embedder", (PAIR,), False, WeightedMSELoss, ScoredPairCollator, SimilarityTrainer
    ),
    "cosent": Objective("embedder", (PAIR,), False, CoSENTLoss, ScoredPairCollator, OrderTrainer),
    "contrastive": Objective(
        "embedder", (POSITIVE,), False, ContrastiveLoss, ContrastiveCollator, ContrastiveTrainer
    ),
    "bce": Objective("reranker", (PAIR, GROUP), True, BCELoss, PairCollator, RerankerTrainer),
    "mse": Objective("reranker", (PAIR,), False, MSELoss, PairCollator, RerankerTrainer),
    "pairwise": Objective("reranker", (GROUP,), True, PairwiseLoss, GroupCollator, RerankerTrainer),
    "listwise": Objective("reranker", (GROUP,), True, ListwiseLoss, GroupCollator, RerankerTrainer),
    "distillation": Objective(
        "embedder",
        (GROUP,),
        False,
        CosineDistillationLoss,
        EmbedderDistillationCollator,
        SimilarityTrainer,
        needs_scores=True,
    ),
    "margin_mse": Objective(
        "embedder",
        (GROUP,),
        False,
        CosineMarginMSELoss,
        EmbedderDistillationCollator,
        SimilarityTrainer,
        needs_scores=True,
    ),
    "reranker_distillation": Objective(
        "reranker",
        (GROUP,),
        False,
        DistillationLoss,
        RerankerDistillationCollator,
        RerankerTrainer,
        needs_scores=True,
    ),
    "reranker_margin_mse": Objective(
        "reranker",
        (GROUP,),
        False,
        MarginMSELoss,
        RerankerDistillationCollator,
        RerankerTrainer,
        needs_scores=True,
    ),
}
