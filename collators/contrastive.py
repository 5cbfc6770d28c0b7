"""Batches for in-batch-negative contrastive learning."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from collators.sampling import GROUP_SIZE, SEED, draw, generator
from collators.texts import EmbedderCollator
from common.hashing import text_hashes


@dataclass
class ContrastiveCollator(EmbedderCollator):
    """``PositivePair`` rows to one batch in which every document is a candidate for every query.

    The batch of Q rows with D different documents and N different texts of at most L tokens::

        positives            int  [Q]     which of the D documents belongs to each query
        queries              int  [Q]     index of each query among the N texts
        documents            int  [D]     index of each document among the N texts
        false_negative_mask  bool [Q, D]  documents that are no negatives of a query
        hashes               int  [D]     of the documents' texts, to recognise them in the batches
                                          of other processes
        relevant_hashes      int  [Q, R]  hashes of the documents relevant to each query, sorted
                                          and then padded with 0
        texts                dict         the model's inputs, [N, L] each
        guide_queries        float [Q, G] a guide model's embeddings of the queries, if there is one
        guide_documents      float [D, G] and of the documents

    A document that repeats in the batch stands in it once, so that it is never a negative of its
    own query. A document known to be relevant to a query, from its row (``other_positives``) or as
    the positive of another row with the same query, is masked out of its negatives. Relevance is
    kept as 64-bit hashes, so that a query may have any number of relevant documents.

    Args:
        train_group_size: One positive and up to ``train_group_size - 1`` hard negatives of a row,
            drawn anew in each epoch. All other documents of the batch are negatives as well.
        seed: The run's seed; see ``collators.sampling``.
        guide: From "query" or "document" and texts to a guide model's embeddings of them.
    """

    train_group_size: int = GROUP_SIZE
    seed: int = SEED
    guide: Callable[[Any, Iterable[str]], torch.Tensor] | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        queries = [self.query_text(row) for row in rows]
        candidates = [row["pos_doc"] for row in rows]
        candidates += [text for row in rows for text in self.hard_negatives(row)]
        documents = {text: at for at, text in enumerate(dict.fromkeys(candidates))}
        positives = [documents[row["pos_doc"]] for row in rows]

        hashes = text_hashes(documents)
        relevant: dict[str, NDArray[np.int64]] = {}
        for row in rows:
            found, query = relevant_hashes(row), row["query"]
            if query in relevant and not np.array_equal(relevant[query], found):
                found = np.union1d(relevant[query], found)
            relevant[query] = found
        masks = {query: is_among(hashes, found) for query, found in relevant.items()}
        mask = torch.from_numpy(np.stack([masks[row["query"]] for row in rows]))
        mask[range(len(rows)), positives] = False

        guided = {}
        if self.guide is not None:
            guided["guide_queries"] = self.guide("query", [row["query"] for row in rows])
            guided["guide_documents"] = self.guide("document", documents)
        return {
            **guided,
            "positives": torch.tensor(positives),
            "false_negative_mask": mask,
            "hashes": torch.from_numpy(hashes),
            "relevant_hashes": torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(relevant[row["query"]]) for row in rows], batch_first=True
            ),
            **self.encode(queries, list(documents)),
        }

    def hard_negatives(self, row: dict[str, Any]) -> list[str]:
        """The negatives drawn for a row in its epoch: no text twice, no known positive."""
        different = list(dict.fromkeys(row["negatives"]))
        relevant = is_among(text_hashes(different), relevant_hashes(row))
        negatives = [text for text, out in zip(different, relevant, strict=True) if not out]
        return draw(negatives, self.train_group_size - 1, generator(self.seed, row))

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        return [row["pos_doc"], *self.hard_negatives(row)]


def relevant_hashes(row: dict[str, Any]) -> NDArray[np.int64]:
    """Hashes of all texts that are known to answer a row's query, sorted, each once.

    For queries with many positives the loader has them already, as ``other_positives.hashes``.
    """
    others = row["other_positives"]
    found: NDArray[np.int64] | None = getattr(others, "hashes", None)
    return np.unique(text_hashes([row["pos_doc"], *others])) if found is None else found


def is_among(hashes: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each hash is one of ``known``, which are sorted and at least one."""
    places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return np.asarray(known[places] == hashes)
