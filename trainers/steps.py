"""The steps of the objectives: from a batch, by one forward pass of the model, to its loss."""

from typing import Any

import torch
from torch import Tensor, nn

from common.similarity import Similarity
from losses.contrastive import GatheredQueries, in_batch_accuracy
from trainers.base import BaseTrainer
from trainers.distributed.gathering import Gathering
from trainers.distributed.gradient_cache import embed_in_chunks
from trainers.distributed.item_means import count_items
from trainers.guards.idle_steps import ALIKE, ALONE, NO_NEGATIVE, ONE_RELEVANCE, groups_differ

# Shapes: Q queries and D documents of this process, A queries and E documents of all of them, R
# relevant documents of the query that has most, P pairs, N different texts, H dimensions of an
# embedding.


def reranker_step(
    trainer: BaseTrainer, model: nn.Module, inputs: dict[str, Any], loss: nn.Module, num_items: Any
) -> Tensor:
    """Score pairs of query and document; batches from ``PairCollator`` or ``GroupCollator``."""
    targets = {name: value for name, value in inputs.items() if name != "texts"}
    if getattr(loss, "needs_different_relevances", False):
        trainer.note_signal(groups_differ(targets["relevances"], targets["mask"]), ALIKE)
    elif "mask" in targets:
        trainer.note_signal((targets["mask"].sum(dim=1) > 1).any(), ALONE)
    scores = model(**inputs["texts"])  # [P]
    return trainer.scale_loss(loss(scores, **targets), inputs, num_items)


def similarity_step(
    trainer: BaseTrainer, model: nn.Module, inputs: dict[str, Any], loss: nn.Module, num_items: Any
) -> Tensor:
    """Compare each query with its document.

    Batches are from ``ScoredPairCollator`` or, for distillation, ``EmbedderDistillationCollator``.
    """
    embeddings = model(**inputs["texts"])  # [N, H]: each different text once
    queries, documents = embeddings[inputs["queries"]], embeddings[inputs["documents"]]
    encoded = ("texts", "queries", "documents")
    targets = {name: value for name, value in inputs.items() if name not in encoded}
    if getattr(loss, "compares_all_pairs", False):
        if trainer.accelerator.num_processes > 1:
            # The loss of one large batch: every process computes all of it, so that the shares
            # that `scale_loss` takes of it add up to one.
            gathering = Gathering(len(queries), queries.device)
            queries, documents = gathering.gather(queries), gathering.gather(documents)
            targets = {name: gathering.gather(values) for name, values in targets.items()}
        relevances = targets["relevances"]
        trainer.note_signal(relevances.max() > relevances.min(), ONE_RELEVANCE)
    elif "mask" in targets:
        trainer.note_signal((targets["mask"].sum(dim=1) > 1).any(), ALONE)
    return trainer.scale_loss(loss(queries, documents, **targets), inputs, num_items)


def contrastive_step(
    trainer: BaseTrainer, model: nn.Module, inputs: dict[str, Any], loss: nn.Module, num_items: Any
) -> Tensor:
    """Compare every query with every document; batches from ``ContrastiveCollator``."""
    embeddings = embed(trainer, model, inputs["texts"])  # [N, H]: each different text once
    queries, documents = embeddings[inputs["queries"]], embeddings[inputs["documents"]]
    batch = {name: inputs[name] for name in ("positives", "false_negative_mask")}
    if trainer.accelerator.num_processes > 1 and trainer.args.negatives_across_processes:
        batch, documents = across_processes(queries, documents, inputs)
    positives, mask = batch["positives"], batch["false_negative_mask"]
    trainer.note_signal((~mask).sum() > len(queries), NO_NEGATIVE)
    value = trainer.scale_loss(loss(queries, documents, **batch), inputs, num_items)
    similarity: Similarity = getattr(loss, "similarity", "cosine")
    accuracy = in_batch_accuracy(queries, documents, positives, mask, similarity)
    trainer.record_metric("in_batch_accuracy", accuracy, count_items(inputs))
    return value


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
    return batch, gathering.gather(documents)


def _contains(relevant_hashes: Tensor, hashes: Tensor) -> Tensor:
    """Whether each row of ``relevant_hashes`` [Q, R] contains each of ``hashes`` [E]: [Q, E].

    Rows are padded with 0, which is no text's hash.
    """
    ordered = relevant_hashes.sort(dim=1).values
    wanted = hashes.expand(len(ordered), -1).contiguous()
    places = torch.searchsorted(ordered, wanted).clamp(max=ordered.shape[1] - 1)
    return ordered.gather(1, places) == hashes
