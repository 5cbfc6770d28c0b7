"""Batches for in-batch-negative contrastive learning."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from collators.sampling import draw, generator
from collators.texts import TextCollator


@dataclass
class ContrastiveCollator(TextCollator):
    """``PositivePair`` rows to one batch in which every document is a candidate for every query.

    The batch of Q rows with D different documents and N different texts of at most L tokens::

        positives   int  [Q]      which of the D documents belongs to each query
        queries     int  [Q]      row of each query among the N texts
        documents   int  [D]      row of each document among the N texts
        excluded    bool [Q, D]   documents that are no negatives for a query
        hashes      int  [D]      of the documents' texts, to know them in other processes' batches
        known       int  [Q, R]   hashes of the documents relevant to each query, filled up with 0
        texts       dict          the model's inputs, [N, L] each

    A document that repeats in the batch stands in it once, so that it is never a negative for
    its own query. Documents known to be relevant to a query, in its row (``other_positives``) or
    as the positive of another row with the same query, are excluded from its negatives.

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

        relevant: dict[str, dict[str, None]] = {}
        for row in rows:
            known = dict.fromkeys([row["pos_doc"], *row["other_positives"]])
            relevant.setdefault(row["query"], {}).update(known)
        excluded = torch.zeros(len(rows), len(documents), dtype=torch.bool)
        for at, row in enumerate(rows):
            others = [text for text in relevant[row["query"]] if text != row["pos_doc"]]
            excluded[at, [documents[text] for text in others if text in documents]] = True

        texts, query_rows, document_rows = self.encode(queries, list(documents))
        return {
            "positives": torch.tensor([documents[row["pos_doc"]] for row in rows]),
            "queries": query_rows,
            "documents": document_rows,
            "excluded": excluded,
            "hashes": torch.tensor([text_hash(text) for text in documents]),
            "known": _filled_up([relevant[row["query"]] for row in rows]),
            "texts": texts,
        }

    def hard_negatives(self, row: dict[str, Any]) -> list[str]:
        """The negatives drawn for a row in its epoch: no text twice, no known positive."""
        known = {row["pos_doc"], *row["other_positives"]}
        negatives = [text for text in dict.fromkeys(row["negatives"]) if text not in known]
        return draw(negatives, self.train_group_size - 1, generator(self.seed, row))

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        """The positive and the hard negatives."""
        return [row["pos_doc"], *self.hard_negatives(row)]


def text_hash(text: str) -> int:
    """A text's 64-bit number, the same in every process and never 0."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True) or 1


def _filled_up(texts: list[dict[str, None]]) -> Tensor:
    """Hashes of the texts of each row [Q, R], with 0 where a row has fewer than R."""
    hashes = [torch.tensor([text_hash(text) for text in row]) for row in texts]
    return torch.nn.utils.rnn.pad_sequence(hashes, batch_first=True)
