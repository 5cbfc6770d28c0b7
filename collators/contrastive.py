"""Batches for in-batch-negative contrastive learning."""

from dataclasses import dataclass
from typing import Any

import torch

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
        for row in rows:
            random = generator(self.seed, row)
            candidates += draw(row["negatives"], self.train_group_size - 1, random)
        documents = {text: at for at, text in enumerate(dict.fromkeys(candidates))}

        relevant: dict[str, set[str]] = {}
        for row in rows:
            relevant.setdefault(row["query"], set()).update(
                [row["pos_doc"], *row["other_positives"]]
            )
        excluded = torch.zeros(len(rows), len(documents), dtype=torch.bool)
        for at, row in enumerate(rows):
            others = relevant[row["query"]] - {row["pos_doc"]}
            excluded[at, [documents[text] for text in others if text in documents]] = True

        texts, query_rows, document_rows = self.encode(queries, list(documents))
        return {
            "positives": torch.tensor([documents[row["pos_doc"]] for row in rows]),
            "queries": query_rows,
            "documents": document_rows,
            "excluded": excluded,
            "texts": texts,
        }
