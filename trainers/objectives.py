"""Table of objectives: for each, the model, the rows, the loss, the collator and the step.

To add one: write its loss in ``losses/`` (with a test against a naive loop), export it there, and
add its row here.
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
    BCELoss,
    ContrastiveLoss,
    CoSENTLoss,
    DistillationLoss,
    EmbedderDistillationLoss,
    EmbedderMarginMSELoss,
    ListwiseLoss,
    MarginMSELoss,
    MSELoss,
    PairwiseLoss,
    WeightedMSELoss,
)
from trainers.base import Step
from trainers.steps import contrastive_step, reranker_step, similarity_step


class Objective(NamedTuple):
    """What one training run puts together.

    Args:
        model: The kind of model it trains.
        shapes: The shapes of rows it takes; files of another shape are converted to the first.
        loss: Its parameters are the recipe's ``loss_args``.
        collator: Its fields are filled from the arguments of the same names.
        step: Passes the batch through the model to the loss.
        needs_negatives: Whether rows without any negative teach it nothing.
        needs_scores: Whether rows must have a teacher's scores.
        metrics: What its step records beside the loss.
    """

    model: Kind
    shapes: tuple[Shape, ...]
    loss: type[nn.Module]
    collator: Any
    step: Step
    needs_negatives: bool = False
    needs_scores: bool = False
    metrics: tuple[str, ...] = ()


PAIR: Shape = "scored_pair"
POSITIVE: Shape = "positive_pair"
GROUP: Shape = "candidate_group"

OBJECTIVES: dict[str, Objective] = {
    "weighted_mse": Objective(
        "embedder", (PAIR,), WeightedMSELoss, ScoredPairCollator, similarity_step
    ),
    "cosent": Objective("embedder", (PAIR,), CoSENTLoss, ScoredPairCollator, similarity_step),
    "contrastive": Objective(
        "embedder", (POSITIVE,), ContrastiveLoss, ContrastiveCollator,
        contrastive_step, metrics=("in_batch_accuracy",),
    ),
    "bce": Objective(
        "reranker", (PAIR, GROUP), BCELoss, PairCollator, reranker_step, needs_negatives=True
    ),
    "mse": Objective("reranker", (PAIR,), MSELoss, PairCollator, reranker_step),
    "pairwise": Objective(
        "reranker", (GROUP,), PairwiseLoss, GroupCollator, reranker_step, needs_negatives=True
    ),
    "listwise": Objective(
        "reranker", (GROUP,), ListwiseLoss, GroupCollator, reranker_step, needs_negatives=True
    ),
    "distillation": Objective(
        "embedder", (GROUP,), EmbedderDistillationLoss, EmbedderDistillationCollator,
        similarity_step, needs_scores=True,
    ),
    "margin_mse": Objective(
        "embedder", (GROUP,), EmbedderMarginMSELoss, EmbedderDistillationCollator,
        similarity_step, needs_scores=True,
    ),
    "reranker_distillation": Objective(
        "reranker", (GROUP,), DistillationLoss, RerankerDistillationCollator,
        reranker_step, needs_scores=True,
    ),
    "reranker_margin_mse": Objective(
        "reranker", (GROUP,), MarginMSELoss, RerankerDistillationCollator,
        reranker_step, needs_scores=True,
    ),
}  # fmt: skip
