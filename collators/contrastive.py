"""Batches for in-batch-negative contrastive learning."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from collators.sampling import draw, generator
from collators.texts import EmbedderCollator
from common.hashing import text_hashes


@dataclass
class ContrastiveCollator(EmbedderCollator):
    """``PositivePair`` rows to one batch in which every document is a candidate for every query.

    The batch of Q rows with D different documents and N different texts of at most L tokens::

        positives   int  [Q]      which of the D documents belongs to each query
        queries     int  [Q]      row of each query among the N texts
        documents   int  [D]      row of each document among the N texts
        excluded    bool [Q, D]   documents that are no negatives for a query
        hashes      int  [D]      of the documents' texts, to know them in other processes' batches
        known       int  [Q, R]   hashes of the documents relevant to each query, sorted and then
                                  filled up with 0
        texts       dict          the model's inputs, [N, L] each

    A document that repeats in the batch stands in it once, so that it is never a negative for
    its own query. Documents known to be relevant to a query, in its row (``other_positives``) or
    as the positive of another row with the same query, are excluded from its negatives. They are
    known by hashes of 64 bits, so that a query may have any number of them.

    Args:
        train_group_size: One positive and up to ``train_group_size - 1`` hard negatives of a row,
            drawn anew in each epoch. All other documents of the batch are negatives as well.
        seed: The run's seed; see ``collators.sampling``.
    """

    train_group_size: int = 8
    seed: int = 42

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch; sizes follow the rows given."""
        queries = [self.query_text(row) for row in rows]
        candidates = [row["pos_doc"] for row in rows]
        candidates += [text for row in rows for text in self.hard_negatives(row)]
        documents = {text: at for at, text in enumerate(dict.fromkeys(candidates))}
        positives = [documents[row["pos_doc"]] for row in rows]

        hashes = text_hashes(documents)
        relevant: dict[str, NDArray[np.int64]] = {}
        for row in rows:
            known, query = known_hashes(row), row["query"]
            if query in relevant and not np.array_equal(relevant[query], known):
                known = np.union1d(relevant[query], known)
            relevant[query] = known
        among = {query: is_among(hashes, known) for query, known in relevant.items()}
        excluded = torch.from_numpy(np.stack([among[row["query"]] for row in rows]))
        excluded[range(len(rows)), positives] = False

        texts, query_rows, document_rows = self.encode(queries, list(documents))
        return {
            "positives": torch.tensor(positives),
            "queries": query_rows,
            "documents": document_rows,
            "excluded": excluded,
            "hashes": torch.from_numpy(hashes),
            "known": torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(relevant[row["query"]]) for row in rows], batch_first=True
            ),
            "texts": texts,
        }

    def hard_negatives(self, row: dict[str, Any]) -> list[str]:
        """The negatives drawn for a row in its epoch: no text twice, no known positive."""
        different = list(dict.fromkeys(row["negatives"]))
        known = is_among(text_hashes(different), known_hashes(row))
        negatives = [text for text, out in zip(different, known, strict=True) if not out]
        return draw(negatives, self.train_group_size - 1, generator(self.seed, row))

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        """The positive and the hard negatives."""
        return [row["pos_doc"], *self.hard_negatives(row)]


def known_hashes(row: dict[str, Any]) -> NDArray[np.int64]:
    """Those of all texts that are known to answer a row's query, sorted, each once.

    Rows whose queries have many have them counted already: ``other_positives`` has ``hashes``.
    """
    others = row["other_positives"]
    found: NDArray[np.int64] | None = getattr(others, "hashes", None)
    return np.unique(text_hashes([row["pos_doc"], *others])) if found is None else found


def is_among(hashes: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each number is among the known ones, which are sorted and at least one."""
    places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return np.asarray(known[places] == hashes)
