"""Train an embedder on judged pairs: weighted MSE, CoSENT, and a teacher's scores."""

from typing import Any

from torch import Tensor, nn

from trainers.base import LossTrainer
from trainers.distributed.gathering import Gathering
from trainers.guards.idle_steps import ALONE, ONE_RELEVANCE


class SimilarityTrainer(LossTrainer):
    """Compares each query's embedding with that of its document.

    Batches are from ``ScoredPairCollator`` or, for distillation, ``EmbedderDistillationCollator``.
    """

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Encode all texts in one forward and compare them pair by pair."""
        embeddings = model(**inputs["texts"])  # [N, H]
        queries, documents = embeddings[inputs["queries"]], embeddings[inputs["documents"]]
        known = ("texts", "queries", "documents")
        targets = {name: value for name, value in inputs.items() if name not in known}
        loss = self.compare(queries, documents, targets)
        loss = self.share(loss, inputs, num_items_in_batch)
        return (loss, {"queries": queries, "documents": documents}) if return_outputs else loss

    def compare(self, queries: Tensor, documents: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """The loss of the batch's pairs, or groups, each by itself."""
        if "mask" in targets:
            self.note_signal((targets["mask"].sum(dim=1) > 1).any(), ALONE)
        loss: Tensor = self.loss(queries, documents, **targets)
        return loss


class OrderTrainer(SimilarityTrainer):
    """For losses that hold every pair of a batch against every other, as ``CoSENTLoss`` does."""

    def compare(self, queries: Tensor, documents: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """The loss of one large batch, of the pairs of all processes, with their gradients.

        Each process computes all of it, so that the shares it takes of it add up to one.
        """
        if self.accelerator.num_processes > 1:
            gathering = Gathering(len(queries), queries.device)
            queries, documents = gathering.gather(queries), gathering.gather(documents)
            targets = {name: gathering.gather(values) for name, values in targets.items()}
        relevances = targets["relevances"]
        self.note_signal(relevances.max() > relevances.min(), ONE_RELEVANCE)
        return super().compare(queries, documents, targets)
