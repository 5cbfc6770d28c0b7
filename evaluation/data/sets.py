"""Evaluation sets: a corpus with queries and relevance judgements, or judged pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from itertools import chain, islice
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.prompts import with_prompt

V = TypeVar("V")


def spread(total: int, count: int) -> list[int]:
    """``count`` of the numbers below ``total``, evenly spaced."""
    places: list[int] = np.linspace(0, total - 1, count).round().astype(int).tolist()
    return places


@dataclass(frozen=True)
class RetrievalData:
    """Documents and queries by id, and for each query the relevance of its judged documents."""

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]  # query id -> document id -> relevance
    # The relevance from which a document is relevant to metrics that know only relevant or not;
    # None: above 0, as in ``trec_eval``.
    relevant_from: float | None = None
    # The documents to rank for each query; None: the whole corpus is searched.
    candidates: dict[str, list[str]] | None = None
    # By query id, the prompt of a query that has its own; others get the model's.
    prompts: dict[str, str] = field(default_factory=dict)
    # Query id -> the document that is the query itself, as in ArguAna and Quora; it is left out of
    # the query's results (``ignore_identical_ids`` of BEIR).
    identical_documents: dict[str, str] = field(default_factory=dict)
    split: str | None = None  # whose judgements these are, where the set has several

    def sample(self, count: int | None) -> Self:
        """Return the set with ``count`` of its queries, evenly spread; None or too many: all.

        All documents stay: fewer of them would make the search easier.
        """
        if count is None or count >= len(self.queries):
            return self
        ids = list(self.queries)
        chosen = [ids[at] for at in spread(len(ids), count)]

        def kept(by_query: Mapping[str, V]) -> dict[str, V]:
            return {query: by_query[query] for query in chosen if query in by_query}

        return replace(
            self,
            queries=kept(self.queries),
            qrels=kept(self.qrels),
            candidates=self.candidates and kept(self.candidates),
            prompts=kept(self.prompts),
            identical_documents=kept(self.identical_documents),
        )

    def few(self, count: int) -> Self:
        """A small set to try: few queries, with few documents each, and the longest documents."""
        part = self.sample(count)
        qrels = {query: dict(islice(own.items(), count)) for query, own in part.qrels.items()}
        candidates = part.candidates
        if candidates is not None:
            candidates = {query: own[:count] for query, own in candidates.items()}
        kept = set(nlargest(count, self.documents, key=lambda d: len(self.documents[d])))
        kept.update(chain(*qrels.values(), *(candidates or {}).values()))
        documents = {d: text for d, text in self.documents.items() if d in kept}
        return replace(part, documents=documents, qrels=qrels, candidates=candidates)

    def is_relevant(self, relevance: float) -> bool:
        """Whether a document of this relevance counts as relevant."""
        return relevance > 0 if self.relevant_from is None else relevance >= self.relevant_from

    def is_identical(self, query: str, document: str) -> bool:
        """Whether a document is the query itself, and so no result."""
        return self.identical_documents.get(query) == document

    def prompted(self, prompt: str) -> dict[str, str]:
        """The queries, each behind its own prompt, or else behind ``prompt``."""
        return {
            query: with_prompt(text, prompt, self.prompts.get(query))
            for query, text in self.queries.items()
        }


@dataclass(frozen=True)
class PairData:
    """Pairs of a query and a document, with the relevance that people gave each."""

    queries: list[str]
    documents: list[str]
    relevances: list[float]
    # For each pair the prompt of its query, or None for the model's; empty: no pair has its own.
    prompts: Sequence[str | None] = ()

    def sample(self, count: int | None) -> Self:
        """Return the pairs of ``count`` queries, evenly spread; None or too many: all."""
        queries = list(dict.fromkeys(self.queries))
        if count is None or count >= len(queries):
            return self
        chosen = {queries[at] for at in spread(len(queries), count)}
        return self._at([at for at, query in enumerate(self.queries) if query in chosen])

    def few(self, count: int) -> Self:
        """The pairs with the longest documents."""
        lengths = [len(q) + len(d) for q, d in zip(self.queries, self.documents, strict=True)]
        return self._at(sorted(nlargest(count, range(len(lengths)), key=lengths.__getitem__)))

    def _at(self, chosen: Sequence[int]) -> Self:
        return type(self)(
            [self.queries[at] for at in chosen],
            [self.documents[at] for at in chosen],
            [self.relevances[at] for at in chosen],
            [self.prompts[at] for at in chosen] if self.prompts else (),
        )

    def judged(self) -> NDArray[np.float64]:
        """The relevances [N]."""
        return np.array(self.relevances, dtype=np.float64)
