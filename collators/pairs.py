"""Batches of a reranker: single pairs of query and document, or groups with one query."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from collators.sampling import GROUP_SIZE, SEED, draw, draw_group, generator, pad_groups
from collators.texts import model_inputs
from common.hashing import text_hashes
from common.prompts import PADDED, check_room, with_prompt

# Shapes: P pairs of a batch, L tokens of the longest; G groups, C candidates of the largest group.


@dataclass
class PairCollator:
    """``ScoredPair`` or ``CandidateGroup`` rows to one batch of query-document pairs.

    The batch of P pairs of at most L tokens::

        relevances  float [P]
        weights     float [P]
        texts       dict        the model's inputs, [P, L] each: query and document joined

    A scored pair gives one pair; a group gives up to ``train_group_size``, with weight 1, drawn
    anew in each epoch.

    Args:
        tokenizer: The reranker's.
        max_length: Tokens of a pair, special ones included. The longer of the two texts is cut
            first, which is the document unless a query takes more than half of the room.
        query_prompt: Put before each query, unless its row has a prompt of its own.
        document_prompt: Put before each document.
        train_group_size: Candidates drawn from a group.
        seed: The run's seed; see ``collators.sampling``.
        in_batch_negatives: Number of candidates of other queries in the batch that each group gets
            as well, with the relevance 0: easy negatives, which mined ones alone do not teach. None
            that a row of the batch, or of its source (``JudgedGroups``), judges for the query.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    query_prompt: str = ""
    document_prompt: str = ""
    train_group_size: int = GROUP_SIZE
    seed: int = SEED
    in_batch_negatives: int = 0

    def __post_init__(self) -> None:
        """Reject a length with no room for text: tokenizers would silently exceed it."""
        check_room(self.tokenizer, "max_length", self.max_length, pair=True)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch; sizes follow the rows given."""
        queries, documents, relevances, weights = [], [], [], []
        for row, candidates in zip(rows, self.groups(rows), strict=True):
            for document, relevance in candidates:
                queries.append(self.query_text(row))
                documents.append(document)
                relevances.append(relevance)
                weights.append(row.get("weight", 1.0))
        return {
            "relevances": torch.tensor(relevances, dtype=torch.float32),
            "weights": torch.tensor(weights, dtype=torch.float32),
            "texts": self.encode(queries, documents),
        }

    def groups(self, rows: list[dict[str, Any]]) -> list[list[tuple[str, float]]]:
        """The candidates of each row: its own, then those drawn from other rows of the batch."""
        groups = [self.candidates(row) for row in rows]
        if not self.in_batch_negatives or "doc" in rows[0]:
            return groups
        judged: dict[str, set[str]] = {}  # a grade in another row of the query is no 0
        for row in rows:
            judged.setdefault(row["query"], set()).update(row["pos"], row["neg"])
        texts = list(dict.fromkeys(text for group in groups for text, _ in group))
        hashes = text_hashes(texts)
        drawn = []
        for row, group in zip(rows, groups, strict=True):
            elsewhere = np.isin(hashes, row.get("judged", []))
            others = [
                text
                for text, out in zip(texts, elsewhere, strict=True)
                if not out and text not in judged[row["query"]]
            ]
            chosen = draw(others, self.in_batch_negatives, generator(self.seed + 1, row))
            drawn.append(group + [(text, 0.0) for text in chosen])
        return drawn

    def candidates(self, row: dict[str, Any]) -> list[tuple[str, float]]:
        """The documents of a row that are trained on in this epoch, with their relevances."""
        if "doc" in row:
            return [(row["doc"], row["rel"])]
        return draw_group(row, self.train_group_size, self.seed)

    def query_text(self, row: dict[str, Any]) -> str:
        """The row's query behind its own prompt, or else the run's."""
        return with_prompt(row["query"], self.query_prompt, row.get("prompt"))

    def encode(self, queries: list[str], documents: list[str]) -> dict[str, Any]:
        """Join each query with its document by the tokenizer's own rule ([CLS] q [SEP] d [SEP])."""
        documents = [with_prompt(document, self.document_prompt) for document in documents]
        batch = self.tokenizer(
            queries,
            documents,
            truncation="longest_first",
            max_length=self.max_length,
            padding=True,
            **PADDED,
        )
        return model_inputs(batch)

    def count_truncated(self, rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
        """For each length setting, how many of the pairs of ``rows`` it truncates, of how many."""
        pairs = [(self.query_text(row), text) for row in rows for text, _ in self.candidates(row)]
        queries = [query for query, _ in pairs]
        documents = [with_prompt(document, self.document_prompt) for _, document in pairs]
        tokens = self.tokenizer(queries, documents, verbose=False)["input_ids"]
        return {"max_length": (sum(len(ids) > self.max_length for ids in tokens), len(tokens))}


class GroupCollator(PairCollator):
    """``CandidateGroup`` rows to one batch of groups.

    The batch of G rows with P candidates in all, at most C in a group, L tokens in a pair::

        relevances  float [G, C]   0 where mask is False
        mask        bool  [G, C]   True for candidates; P of them
        texts       dict           the model's inputs, [P, L] each, group after group

    Each group holds one positive and up to ``train_group_size - 1`` other candidates, drawn anew
    in each epoch. Settings as in ``PairCollator``.
    """

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch, queries, documents = pad_groups(
            [self.query_text(row) for row in rows], self.groups(rows)
        )
        return {**batch, "texts": self.encode(queries, documents)}


class RerankerDistillationCollator(GroupCollator):
    """``CandidateGroup`` rows to a batch as ``GroupCollator``'s.

    ``relevances`` [G, C] are the teacher's scores. Candidates are drawn from all of the group,
    positives too, but for the first, which is a positive.
    """

    def candidates(self, row: dict[str, Any]) -> list[tuple[str, float]]:
        """The documents of a row that are trained on in this epoch, with the teacher's scores."""
        # The scores of a graded group are what is learned, its positives and negatives alike.
        return super().candidates({**row, "graded": True})
