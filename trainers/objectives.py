"""Table of objectives: for each, the model, the rows, the loss, the collator and the trainer.

To add one: write its loss in ``losses/`` (with a test against a naive loop), export it there, and
add its row here. The whole checklist is in docs/extending.md.
"""

from typing import Any, NamedTuple

from torch import nn

from collators import (
    ContrastiveCollator,
    EmbedderDistillationCollator,
    GroupCollator,
    PairCollator,
    RerankerDistillationCollator,
    ScoredPairCollator,
)
from encoders.kinds import Kind
from loaders.shapes.rows import Shape
from losses import (
    ADRMSELoss,
    BCELoss,
    ContrastiveLoss,
    CoSENTLoss,
    DistillationLoss,
    EmbedderDistillationLoss,
    EmbedderMarginMSELoss,
    LambdaLoss,
    ListMLELoss,
    ListwiseLoss,
    MarginMSELoss,
    MSELoss,
    MultiVectorContrastiveLoss,
    MultiVectorDistillationLoss,
    MultiVectorMarginMSELoss,
    PairwiseLoss,
    WeightedMSELoss,
)
from trainers.base import BaseTrainer
from trainers.contrastive import ContrastiveTrainer
from trainers.reranker import RerankerTrainer
from trainers.similarity import SimilarityTrainer


class Objective(NamedTuple):
    """An objective: which model learns from which rows, by which loss, collator and trainer.

    Args:
        model: The kind of model it trains.
        shapes: The shapes of rows it takes; files of another shape are converted to the first.
        loss: Its parameters are the recipe's ``loss_args``.
        collator: Its fields are filled from the arguments of the same names.
        trainer: Passes the batch through the model to the loss.
        needs_negatives: Whether rows without any negative teach it nothing.
        needs_scores: Whether rows must have a teacher's scores.
    """

    model: Kind
    shapes: tuple[Shape, ...]
    loss: type[nn.Module]
    collator: Any
    trainer: type[BaseTrainer]
    needs_negatives: bool = False
    needs_scores: bool = False


PAIR: Shape = "scored_pair"
POSITIVE: Shape = "positive_pair"
GROUP: Shape = "candidate_group"

OBJECTIVES: dict[str, Objective] = {
    "weighted_mse": Objective(
        "embedder", (PAIR,), WeightedMSELoss, ScoredPairCollator, SimilarityTrainer
    ),
    "cosent": Objective("embedder", (PAIR,), CoSENTLoss, ScoredPairCollator, SimilarityTrainer),
    "contrastive": Objective(
        "embedder", (POSITIVE,), ContrastiveLoss, ContrastiveCollator, ContrastiveTrainer
    ),
    "bce": Objective(
        "reranker", (PAIR, GROUP), BCELoss, PairCollator, RerankerTrainer, needs_negatives=True
    ),
    "mse": Objective("reranker", (PAIR,), MSELoss, PairCollator, RerankerTrainer),
    "pairwise": Objective(
        "reranker", (GROUP,), PairwiseLoss, GroupCollator, RerankerTrainer, needs_negatives=True
    ),
    "listwise": Objective(
        "reranker", (GROUP,), ListwiseLoss, GroupCollator, RerankerTrainer, needs_negatives=True
    ),
    "lambda_loss": Objective(
        "reranker", (GROUP,), LambdaLoss, GroupCollator, RerankerTrainer, needs_negatives=True
    ),
    "listmle": Objective(
        "reranker", (GROUP,), ListMLELoss, GroupCollator, RerankerTrainer, needs_negatives=True
    ),
    "distillation": Objective(
        "embedder",
        (GROUP,),
        EmbedderDistillationLoss,
        EmbedderDistillationCollator,
        SimilarityTrainer,
        needs_scores=True,
    ),
    "margin_mse": Objective(
        "embedder",
        (GROUP,),
        EmbedderMarginMSELoss,
        EmbedderDistillationCollator,
        SimilarityTrainer,
        needs_scores=True,
    ),
    "reranker_distillation": Objective(
        "reranker",
        (GROUP,),
        DistillationLoss,
        RerankerDistillationCollator,
        RerankerTrainer,
        needs_scores=True,
    ),
    "reranker_margin_mse": Objective(
        "reranker",
        (GROUP,),
        MarginMSELoss,
        RerankerDistillationCollator,
        RerankerTrainer,
        needs_scores=True,
    ),
    "reranker_adr_mse": Objective(
        "reranker",
        (GROUP,),
        ADRMSELoss,
        RerankerDistillationCollator,
        RerankerTrainer,
        needs_scores=True,
    ),
    "multi_vector_contrastive": Objective(
        "multi_vector",
        (POSITIVE,),
        MultiVectorContrastiveLoss,
        ContrastiveCollator,
        ContrastiveTrainer,
    ),
    "multi_vector_distillation": Objective(
        "multi_vector",
        (GROUP,),
        MultiVectorDistillationLoss,
        EmbedderDistillationCollator,
        SimilarityTrainer,
        needs_scores=True,
    ),
    "multi_vector_margin_mse": Objective(
        "multi_vector",
        (GROUP,),
        MultiVectorMarginMSELoss,
        EmbedderDistillationCollator,
        SimilarityTrainer,
        needs_scores=True,
    ),
}
