"""Batches of an embedder: scored pairs, groups with a teacher's scores; equal texts are one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from collators.sampling import GROUP_SIZE, SEED, draw_group, pad_groups
from common.prompts import QueryTokens, check_room, padded, prompt_mask, prompt_of, with_prompt

# Shapes: N different texts of a batch, L tokens of the longest of them.


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is called with: ``input_ids`` and ``attention_mask``, int [N, L], and more.

    Args:
        batch: Of the tokenizer. ``host_mask`` is added, its attention mask as an array that stays
            on the host where tensors go to a GPU: packing a batch there would wait for it.
            An embedder's batch has ``prompt_mask`` [N, L], too, True at the tokens of prompts, and
            a multi-vector encoder's ``query_mask``, an array that is True at those of queries.
    """
    # A copy: a worker moves its tensors to shared memory, from under arrays that are views of them.
    return {**batch, "host_mask": batch["attention_mask"].numpy().astype(bool)}


@dataclass
class EmbedderCollator:
    """Base of the embedder's collators: prompts, maximum lengths, one forward pass per step.

    All texts of a batch, queries and documents, go through the model in one call: DDP and FSDP
    synchronise once per forward pass. A text that repeats is encoded once and referred to by
    index, which is exact but for dropout: its copies share one dropout mask.

    Args:
        tokenizer: The embedder's.
        query_max_length: Tokens, special ones included, after which a query is cut.
        document_max_length: The same for a document.
        query_prompt: Put before each query, unless its row has a prompt of its own.
        document_prompt: Put before each document.
        query_tokens: Of a model that reads queries otherwise than documents, so that the same text
            may stand in a batch as both.
    """

    tokenizer: PreTrainedTokenizerBase
    query_max_length: int
    document_max_length: int
    query_prompt: str = ""
    document_prompt: str = ""
    query_tokens: QueryTokens | None = None

    def __post_init__(self) -> None:
        """Reject a length with no room for text: tokenizers would silently exceed it."""
        for name in ("query_max_length", "document_max_length"):
            check_room(self.tokenizer, name, getattr(self, name))

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        """The documents of a row that are trained on in its epoch; each collator says which."""
        raise NotImplementedError

    def query_text(self, row: dict[str, Any]) -> str:
        """The row's query behind its own prompt, or else the run's."""
        return with_prompt(row["query"], self.query_prompt, row.get("prompt"))

    def encode(self, queries: list[str], documents: list[str]) -> dict[str, Any]:
        """Tokenize both sides together.

        Returns:
            ``texts`` (see ``model_inputs``), and ``queries`` and ``documents``, the index of each
            among the N texts.
        """
        documents = [with_prompt(document, self.document_prompt) for document in documents]
        # Equal texts are one, unless a part of only one of them is a prompt.
        apart = self.query_tokens is not None
        keys = [(text, prompt_of(text), self.query_max_length, apart) for text in queries]
        keys += [(text, prompt_of(text), self.document_max_length, False) for text in documents]
        places = {key: at for at, key in enumerate(dict.fromkeys(keys))}
        encoded: list[dict[str, list[int]]] = [{}] * len(places)
        for max_length, is_query in {key[2:] for key in places}:
            some = [key for key in places if key[2:] == (max_length, is_query)]
            texts = [text for text, *_ in some]
            tokens: Any = self.tokenizer(texts, truncation=True, max_length=max_length)
            if is_query and self.query_tokens is not None:
                tokens = self.query_tokens.expand(tokens)
            for at, key in enumerate(some):
                encoded[places[key]] = {name: tokens[name][at] for name in tokens}
        batch = padded(self.tokenizer, encoded)
        batch["prompt_mask"] = prompt_mask(self.tokenizer, [text for text, *_ in places], batch)
        index = torch.tensor([places[key] for key in keys])
        inputs = model_inputs(batch)
        if self.query_tokens is not None:
            rows = np.array([key[3] for key in places])[:, None]
            inputs["query_mask"] = self.query_tokens.mask(inputs["host_mask"]) & rows
        return {
            "queries": index[: len(queries)],
            "documents": index[len(queries) :],
            "texts": inputs,
        }

    def count_truncated(self, rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
        """For each length setting, how many of the texts of ``rows`` it truncates, of how many."""
        queries = [self.query_text(row) for row in rows]
        documents = [
            with_prompt(text, self.document_prompt)
            for row in rows
            for text in self.documents_of(row)
        ]
        counts = {}
        for name, texts in (("query_max_length", queries), ("document_max_length", documents)):
            tokens = self.tokenizer(texts, verbose=False)["input_ids"]
            limit = getattr(self, name)
            counts[name] = sum(len(ids) > limit for ids in tokens), len(tokens)
        return counts


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
        return {
            "relevances": torch.tensor([row["rel"] for row in rows], dtype=torch.float32),
            "weights": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
            **self.encode([self.query_text(row) for row in rows], [row["doc"] for row in rows]),
        }

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        return [row["doc"]]


@dataclass
class EmbedderDistillationCollator(EmbedderCollator):
    """``CandidateGroup`` rows to a batch for an embedder.

    The batch of G rows with P candidates in all and N different texts of at most L tokens::

        relevances  float [G, C]   the teacher's scores, 0 where mask is False
        mask        bool  [G, C]   True for candidates; P of them
        queries     int   [P]      index of each candidate's query among the N texts
        documents   int   [P]      index of each candidate among the N texts
        texts       dict           the model's inputs, [N, L] each

    Args:
        train_group_size: Candidates of a group, a positive first, drawn anew in each epoch.
        seed: The run's seed; see ``collators.sampling``.
    """

    train_group_size: int = GROUP_SIZE
    seed: int = SEED

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch, queries, documents = pad_groups(
            [self.query_text(row) for row in rows], [self.candidates(row) for row in rows]
        )
        return {**batch, **self.encode(queries, documents)}

    def candidates(self, row: dict[str, Any]) -> list[tuple[str, float]]:
        """The documents of a row that are trained on in this epoch, with the teacher's scores."""
        # The scores of a graded group are what is learned, its positives and negatives alike.
        return draw_group({**row, "graded": True}, self.train_group_size, self.seed)

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        return [document for document, _ in self.candidates(row)]
