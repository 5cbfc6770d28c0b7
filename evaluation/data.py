"""What a model is measured on: documents, queries and who answers whom, or judged pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RetrievalData:
    """Documents and queries by id, and for each query the relevance of its judged documents.

    Args:
        documents: The corpus.
        queries: The queries.
        qrels: Query id -> document id -> relevance.
        relevant_from: The relevance from which a document is relevant to metrics that know only
            relevant or not; None: above 0, as in ``trec_eval``.
        candidates: The documents to rank for each query; None: the whole corpus is searched.
        prompts: What stands before a query (by its id) in place of the model's query prompt.
        skip_same_id: A document with the id of the query is the query itself, and no result
            (ArguAna, Quora).
    """

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]
    relevant_from: float | None = None
    candidates: dict[str, list[str]] | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    skip_same_id: bool = False

    def sample(self, count: int | None) -> Self:
        """Return the set with ``count`` of its queries, evenly spread; None or too many: all.

        All documents stay: fewer of them would make the search easier.
        """
        if count is None or count >= len(self.queries):
            return self
        ids = list(self.queries)
        chosen = [ids[at] for at in np.linspace(0, len(ids) - 1, count).round().astype(int)]
        candidates = self.candidates
        return replace(
            self,
            queries={query: self.queries[query] for query in chosen},
            qrels={query: self.qrels[query] for query in chosen if query in self.qrels},
            candidates=candidates and {q: candidates[q] for q in chosen if q in candidates},
            prompts={query: self.prompts[query] for query in chosen if query in self.prompts},
        )

    def is_relevant(self, relevance: float) -> bool:
        """Whether a document of this relevance counts as relevant."""
        return relevance > 0 if self.relevant_from is None else relevance >= self.relevant_from

    def is_query(self, query: str, document: str) -> bool:
        """Whether a document is the query itself, and so no result."""
        return self.skip_same_id and query == document

    def prompted(self, prompt: str) -> dict[str, str]:
        """The queries, each behind its own prompt, or else behind ``prompt``."""
        return {
            query: self.prompts.get(query, prompt) + text for query, text in self.queries.items()
        }


@dataclass(frozen=True)
class PairData:
    """Pairs of a query and a document, with the relevance that people gave each.

    Args:
        queries: One text per pair.
        documents: The same.
        relevances: The same.
        prompts: For each pair what stands before its query in place of the model's query prompt,
            or None; empty: no pair has one.
    """

    queries: list[str]
    documents: list[str]
    relevances: list[float]
    prompts: Sequence[str | None] = ()

    def judged(self) -> NDArray[np.float64]:
        """The relevances [N]."""
        return np.array(self.relevances, dtype=np.float64)

    def prompted(self, prompt: str) -> list[str]:
        """The queries, each behind its own prompt, or else behind ``prompt``."""
        own = self.prompts or [None] * len(self.queries)
        return [
            (prompt if first is None else first) + query
            for first, query in zip(own, self.queries, strict=True)
        ]
