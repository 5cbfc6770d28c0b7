"""Train a reranker: pointwise (BCE, MSE), pairwise, listwise, or on a teacher's scores."""

from typing import Any

from torch import Tensor, nn

from losses import ListwiseLoss, PairwiseLoss
from trainers.base import LossTrainer
from trainers.guards.idle_steps import ALIKE, ALONE, groups_differ


class RerankerTrainer(LossTrainer):
    """Scores pairs of query and document; batches from ``PairCollator`` or ``GroupCollator``."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Score all pairs in one forward and hold the scores against what the batch says."""
        targets = {name: value for name, value in inputs.items() if name != "texts"}
        if isinstance(self.loss, PairwiseLoss | ListwiseLoss):
            self.note_signal(groups_differ(targets["relevances"], targets["mask"]), ALIKE)
        elif "mask" in targets:
            self.note_signal((targets["mask"].sum(dim=1) > 1).any(), ALONE)
        scores = model(**inputs["texts"])  # [P]
        loss = self.share(self.loss(scores, **targets), inputs, num_items_in_batch)
        return (loss, {"scores": scores}) if return_outputs else loss
