"""Train an embedder by contrast: every other document of the batch is a negative."""

from typing import Any

import torch
from torch import Tensor, nn

from common.similarity import AnySimilarity
from losses.contrastive import GatheredQueries, Guide, in_batch_accuracy
from trainers.base import BaseTrainer
from trainers.distributed.gathering import Gathering
from trainers.distributed.gradient_cache import embed_in_chunks
from trainers.guards.idle_steps import NO_NEGATIVES
from trainers.similarity import by_side

# Shapes: Q queries and D documents of this process, A queries and E documents of all of them, R
# relevant documents of the query that has most, H dimensions of an embedding. Of a multi-vector
# encoder [.., H] stands for the vectors of a text's tokens, [.., L, H].


class ContrastiveTrainer(BaseTrainer):
    """Compares every query with every document; batches from ``ContrastiveCollator``."""

    recorded_metrics = ("in_batch_accuracy",)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Encode all texts and pick out each query's document."""
        loss, outputs = compute_contrastive_loss(self, model, inputs, self.loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def compute_contrastive_loss(
    trainer: BaseTrainer, model: nn.Module, inputs: dict[str, Any], loss: Any, num_items: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scaled loss of a batch, and its embeddings: queries [Q, H], all documents [E, H]."""
    queries, documents = by_side(embed(trainer, model, inputs["texts"]), inputs)
    batch = {name: inputs[name] for name in ("positives", "false_negative_mask")}
    if "guide_queries" in inputs:
        guide = inputs["guide_queries"], inputs["guide_documents"]
        batch["guide"] = Guide(*guide, inputs["guide_queries"])
    if trainer.accelerator.num_processes > 1 and trainer.args.negatives_across_processes:
        batch, documents = across_processes(queries, documents, inputs)
    positives, mask = batch["positives"], batch["false_negative_mask"]
    left = mask
    if getattr(loss, "finds_false_negatives", False):
        found = loss.widen_mask(queries, documents, positives, mask, batch.get("guide"))
        negatives = ((~mask).sum() - len(queries)).clamp(min=1)
        share = (found & ~mask).sum() / negatives
        trainer.record_metric("false_negatives", share, trainer.count_items(inputs))
        # Where documents are the only negatives, a batch may have lost all of them.
        left = mask if loss.has_other_negatives else found
    trainer.record_signal((~left).sum() > len(queries), NO_NEGATIVES)
    value = trainer.scale_loss(loss(queries, documents, **batch), inputs, num_items)
    similarity: AnySimilarity = getattr(loss, "similarity", "cosine")
    accuracy = in_batch_accuracy(queries, documents, positives, mask, similarity)
    trainer.record_metric("in_batch_accuracy", accuracy, trainer.count_items(inputs))
    return value, {"queries": queries, "documents": documents}


def embed(trainer: BaseTrainer, model: nn.Module, texts: dict[str, Tensor]) -> Tensor:
    """All texts in one forward pass, or in chunks (``gradient_cache_chunk_size``): [N, H]."""
    chunk_size = trainer.args.gradient_cache_chunk_size
    if chunk_size is None:
        embeddings: Tensor = model(**texts)
        return embeddings
    accelerator = trainer.accelerator
    count = -(-len(texts["input_ids"]) // chunk_size)
    if trainer.is_fsdp_enabled:
        # A forward pass of a sharded model is collective: all processes need as many of them.
        own = torch.tensor([count], device=accelerator.device)
        count = int(accelerator.gather(own).max())
    return embed_in_chunks(model, texts, chunk_size, lambda: accelerator.no_sync(model), count)


def across_processes(
    queries: Tensor, documents: Tensor, inputs: dict[str, Any]
) -> tuple[dict[str, Any], Tensor]:
    """Widen this process's batch to the documents of all processes, with their gradients.

    The loss of the own queries [Q, H] against all documents [E, H] is then this process's share of
    the loss of one large batch. A document that stands in several batches counts once, and what
    is known to be relevant to a query is no negative of it, wherever it stands.

    Returns:
        What the loss is given beside the embeddings, and the embeddings of all documents.
    """
    gathering = Gathering(len(documents), documents.device)
    hashes = gathering.gather(inputs["hashes"])  # [E]
    # A text of several batches is one candidate: where it stands first. The others are masked.
    first = (hashes[:, None] == hashes[None, :]).int().argmax(dim=1)
    places = torch.arange(len(hashes), device=hashes.device)
    positives = first[inputs["positives"] + gathering.start]
    mask = _contains(inputs["relevant_hashes"], hashes) | (first != places)
    mask[torch.arange(len(positives), device=hashes.device), positives] = False

    # For the symmetric loss, the same in the other direction: [Q, A].
    by_query = Gathering(len(queries), queries.device)
    own = torch.arange(len(queries), device=hashes.device) + by_query.start
    # R differs between the processes; tensors to gather must not.
    width = Gathering(inputs["relevant_hashes"].shape[1], queries.device)
    missing = max(width.counts) - inputs["relevant_hashes"].shape[1]
    relevant_hashes = nn.functional.pad(inputs["relevant_hashes"], (0, missing))
    relevant = _contains(by_query.gather(relevant_hashes), hashes[positives]).T
    relevant[torch.arange(len(own), device=hashes.device), own] = False
    batch = {
        "positives": positives,
        "false_negative_mask": mask,
        "gathered_queries": GatheredQueries(by_query.gather(queries), own, relevant),
    }
    if "guide_queries" in inputs:
        guide_queries = inputs["guide_queries"]
        guide_documents = gathering.gather(inputs["guide_documents"])
        batch["guide"] = Guide(guide_queries, guide_documents, by_query.gather(guide_queries))
    return batch, gathering.gather(documents)


def _contains(relevant_hashes: Tensor, hashes: Tensor) -> Tensor:
    """Whether each row of ``relevant_hashes`` [Q, R] contains each of ``hashes`` [E]: [Q, E].

    Rows are padded with 0, which is no text's hash.
    """
    ordered = relevant_hashes.sort(dim=1).values
    wanted = hashes.expand(len(ordered), -1).contiguous()
    places = torch.searchsorted(ordered, wanted).clamp(max=ordered.shape[1] - 1)
    return ordered.gather(1, places) == hashes
