"""Train an embedder on scored pairs: weighted MSE, CoSENT, and a teacher's scores.

A multi-vector encoder learns a teacher's scores alike.
"""

from typing import Any

from torch import Tensor, nn

from trainers.base import BaseTrainer
from trainers.distributed.gathering import Gathering
from trainers.guards.idle_steps import EQUAL_RELEVANCES, ONE_CANDIDATE_EACH


class SimilarityTrainer(BaseTrainer):
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
        """Encode all texts in one forward pass and compare them pair by pair."""
        loss, outputs = compute_similarity_loss(self, model, inputs, self.loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def compute_similarity_loss(
    trainer: BaseTrainer, model: nn.Module, inputs: dict[str, Any], loss: nn.Module, num_items: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scaled loss of a batch, and its embeddings of queries and documents, [P, H] each."""
    queries, documents = by_side(model(**inputs["texts"]), inputs)
    encoded = ("texts", "queries", "documents")
    targets = {name: value for name, value in inputs.items() if name not in encoded}
    outputs = {"queries": queries, "documents": documents}
    if getattr(loss, "compares_all_pairs", False):
        if trainer.accelerator.num_processes > 1:
            # The loss of one large batch: every process computes all of it, so that the shares
            # that `scale_loss` takes of it add up to one.
            gathering = Gathering(len(queries), queries.device)
            queries, documents = gathering.gather(queries), gathering.gather(documents)
            targets = {name: gathering.gather(values) for name, values in targets.items()}
        relevances = targets["relevances"]
        trainer.record_signal(relevances.max() > relevances.min(), EQUAL_RELEVANCES)
    elif "mask" in targets:
        trainer.record_signal((targets["mask"].sum(dim=1) > 1).any(), ONE_CANDIDATE_EACH)
    value = loss(queries, documents, **targets)
    return trainer.scale_loss(value, inputs, num_items), outputs


def by_side(embeddings: Tensor, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Embeddings of queries and of documents, from those of each different text, [N, H].

    Of vectors of tokens [N, L, H], queries keep as many positions as the longest of them has.
    """
    asked, mask = embeddings, inputs["texts"].get("query_mask")
    if mask is not None:
        longest = mask.any(axis=0).nonzero()[0][-1] + 1  # known without waiting for a GPU
        asked = embeddings[:, : longest + 1]  # and one that does not count
    return asked[inputs["queries"]], embeddings[inputs["documents"]]
