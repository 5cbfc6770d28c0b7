"""Batches for the losses of an embedder on judged pairs: weighted MSE and CoSENT."""

from typing import Any

import torch

from collators.texts import EmbedderCollator


class ScoredPairCollator(EmbedderCollator):
    """``ScoredPair`` rows to one batch.

    The batch of B rows with N different texts of at most L tokens::

        relevances  float [B]   rel of each row
        weights     float [B]   weight of each row
        queries     int   [B]   index of each query among the N texts
        documents   int   [B]   index of each document among the N texts
        texts       dict        the model's inputs, [N, L] each

    Two rows (A, B), (A, C) give N = 3, queries [0, 0] and documents [1, 2].
    """

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch; sizes follow the rows given."""
        texts, queries, documents = self.encode(
            [self.query_text(row) for row in rows], [row["doc"] for row in rows]
        )
        return {
            "relevances": torch.tensor([row["rel"] for row in rows], dtype=torch.float32),
            "weights": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
            "queries": queries,
            "documents": documents,
            "texts": texts,
        }

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        """The one document."""
        return [row["doc"]]
