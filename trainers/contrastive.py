"""Train an embedder on queries and their documents, all others of the batch being negatives."""

from typing import Any

import torch
from torch import Tensor, nn

from losses.contrastive import in_batch_accuracy
from trainers.base import LossTrainer


class ContrastiveTrainer(LossTrainer):
    """Compares every query with every document; batches from ``ContrastiveCollator``."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Encode all texts in one forward and pick out each query's document."""
        embeddings = model(**inputs["texts"])  # [N, H]
        queries, documents = embeddings[inputs["queries"]], embeddings[inputs["documents"]]
        positives, excluded = inputs["positives"], inputs["excluded"]
        loss = self.loss(queries, documents, positives, excluded)
        loss = self.share(loss, inputs, num_items_in_batch)
        accuracy = in_batch_accuracy(queries, documents, positives, excluded)
        self.observe("in_batch_accuracy", accuracy, self.count_items(inputs))
        return (loss, {"queries": queries, "documents": documents}) if return_outputs else loss

    def count_items(self, inputs: dict[str, Any]) -> Tensor:
        """The number of queries."""
        positives = inputs["positives"]
        return torch.tensor(float(len(positives)), device=positives.device)
