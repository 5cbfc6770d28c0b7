"""Train a reranker: pointwise (BCE, MSE), pairwise, listwise, or on a teacher's scores."""

from typing import Any

from torch import Tensor, nn

from trainers.base import BaseTrainer
from trainers.guards.idle_steps import EQUAL_IN_EACH_GROUP, ONE_CANDIDATE_EACH, groups_differ


class RerankerTrainer(BaseTrainer):
    """Scores pairs of query and document; batches from ``PairCollator`` or ``GroupCollator``."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Score all pairs in one forward pass and compare the scores with the targets."""
        loss, outputs = compute_reranker_loss(self, model, inputs, self.loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def compute_reranker_loss(
    trainer: BaseTrainer, model: nn.Module, inputs: dict[str, Any], loss: nn.Module, num_items: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scaled loss of a batch, and its scores (raw logits) [P]."""
    targets = {name: value for name, value in inputs.items() if name != "texts"}
    if getattr(loss, "needs_different_relevances", False):
        trainer.record_signal(
            groups_differ(targets["relevances"], targets["mask"]), EQUAL_IN_EACH_GROUP
        )
    elif "mask" in targets:
        trainer.record_signal((targets["mask"].sum(dim=1) > 1).any(), ONE_CANDIDATE_EACH)
    scores = model(**inputs["texts"])  # [P]
    return trainer.scale_loss(loss(scores, **targets), inputs, num_items), {"scores": scores}
