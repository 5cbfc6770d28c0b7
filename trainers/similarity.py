"""Train an embedder on judged pairs: weighted MSE, CoSENT, and a teacher's scores."""

from typing import Any

from torch import Tensor, nn

from trainers.base import LossTrainer


class SimilarityTrainer(LossTrainer):
    """Compares each query's embedding with that of its document.

    Batches are from ``ScoredPairCollator``, or from ``TeacherTextCollator`` for distillation.
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
        loss = self.loss(queries, documents, **targets)
        loss = self.share(loss, inputs, num_items_in_batch)
        return (loss, {"queries": queries, "documents": documents}) if return_outputs else loss
