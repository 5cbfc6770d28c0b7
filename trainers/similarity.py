"""Train an embedder on graded pairs: weighted MSE and CoSENT."""

from typing import Any

from torch import Tensor, nn

from trainers.base import LossTrainer


class SimilarityTrainer(LossTrainer):
    """Compares the two embeddings of each row; batches from ``ScoredPairCollator``."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Encode all texts in one forward and compare them row by row."""
        embeddings = model(**inputs["texts"])  # [N, H]
        queries, documents = embeddings[inputs["queries"]], embeddings[inputs["documents"]]
        loss = self.loss(queries, documents, inputs["relevances"], inputs["weights"])
        loss = self.share(loss, inputs, num_items_in_batch)
        return (loss, {"queries": queries, "documents": documents}) if return_outputs else loss

    def count_items(self, inputs: dict[str, Any]) -> Tensor:
        """The rows' weights: a row of weight 2 counts as two."""
        return inputs["weights"].sum()
