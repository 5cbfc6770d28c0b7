"""Train an embedder on queries and their documents, all others of the batch being negatives."""

from typing import Any

import torch
from torch import Tensor, nn

from losses.contrastive import OtherQueries, in_batch_accuracy
from trainers.base import LossTrainer
from trainers.distributed.gathering import Gathering
from trainers.distributed.gradient_cache import embed_in_chunks
from trainers.guards.idle_steps import NO_NEGATIVE

# Shapes: Q queries and D documents of this process, A queries and E documents of all of them.


class ContrastiveTrainer(LossTrainer):
    """Compares every query with every document; batches from ``ContrastiveCollator``."""

    observed = ("in_batch_accuracy",)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Encode all texts in one forward and pick out each query's document."""
        embeddings = self.embed(model, inputs["texts"])  # [N, H]
        queries, documents = embeddings[inputs["queries"]], embeddings[inputs["documents"]]
        batch = {"positives": inputs["positives"], "excluded": inputs["excluded"]}
        if self.accelerator.num_processes > 1 and self.args.negatives_across_processes:
            batch, documents = across_processes(queries, documents, inputs)
        self.note_signal((~batch["excluded"]).sum() > len(queries), NO_NEGATIVE)
        loss = self.loss(queries, documents, **batch)
        loss = self.share(loss, inputs, num_items_in_batch)
        accuracy = in_batch_accuracy(queries, documents, batch["positives"], batch["excluded"])
        self.observe("in_batch_accuracy", accuracy, self.count_items(inputs))
        return (loss, {"queries": queries, "documents": documents}) if return_outputs else loss

    def embed(self, model: nn.Module, texts: dict[str, Tensor]) -> Tensor:
        """All texts in one forward, or in chunks if the recipe says so."""
        chunk_size = self.args.gradient_cache_chunk_size
        if chunk_size is None:
            embeddings: Tensor = model(**texts)
            return embeddings
        count = -(-len(texts["input_ids"]) // chunk_size)
        if self.is_fsdp_enabled:
            own = torch.tensor([count], device=self.accelerator.device)
            count = int(self.accelerator.gather(own).max())
        return embed_in_chunks(
            model, texts, chunk_size, lambda: self.accelerator.no_sync(model), count
        )

    def count_items(self, inputs: dict[str, Any]) -> Tensor:
        """The number of queries."""
        positives = inputs["positives"]
        return torch.tensor(float(len(positives)), device=positives.device)


def across_processes(
    queries: Tensor, documents: Tensor, inputs: dict[str, Any]
) -> tuple[dict[str, Any], Tensor]:
    """Widen this process's batch to the documents of all processes, with their gradients.

    The loss of the own queries [Q, H] against all documents [E, H] is then this process's part of
    the loss of one large batch. A document that stands in several batches counts once, and what
    is known to be relevant to a query is no negative for it, wherever it stands.

    Returns:
        What the loss is given beside the embeddings, and the embeddings of all documents.
    """
    gathering = Gathering(len(documents), documents.device)
    hashes = gathering.gather(inputs["hashes"])  # [E]
    first = (hashes[:, None] == hashes[None, :]).int().argmax(dim=1)  # where each text stands first
    places = torch.arange(len(hashes), device=hashes.device)
    positives = first[inputs["positives"] + gathering.start]
    excluded = _holds(inputs["known"], hashes) | (first != places)
    excluded[torch.arange(len(positives), device=hashes.device), positives] = False

    asked = Gathering(len(queries), queries.device)
    own = torch.arange(len(queries), device=hashes.device) + asked.start
    width = Gathering(inputs["known"].shape[1], queries.device)
    known = nn.functional.pad(inputs["known"], (0, max(width.counts) - inputs["known"].shape[1]))
    relevant = _holds(asked.gather(known), hashes[positives]).T  # [Q, A]
    relevant[torch.arange(len(own), device=hashes.device), own] = False
    others = OtherQueries(asked.gather(queries), own, relevant)
    batch = {"positives": positives, "excluded": excluded, "others": others}
    return batch, gathering.gather(documents)


def _holds(known: Tensor, hashes: Tensor) -> Tensor:
    """Whether each row of ``known`` [Q, R] has each of ``hashes`` [E], none 0, in it: [Q, E]."""
    ordered = known.sort(dim=1).values
    asked = hashes.expand(len(known), -1).contiguous()
    places = torch.searchsorted(ordered, asked).clamp(max=known.shape[1] - 1)
    return ordered.gather(1, places) == hashes
