"""Build evaluation sets from rows of the training formats, as the loaders return them."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evaluation.data.sets import PairData, RetrievalData

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


def retrieval_from_groups(
    groups: Iterable[Row],
    corpus: Mapping[str, str] | None = None,
    positive_threshold: float = 0.5,
) -> RetrievalData:
    """Merge the documents of all groups into one corpus, which every query searches.

    Equal texts are one document, and equal queries (with equal prompts) are one query. Ids are
    hashes of the texts, so that they do not depend on the other rows. A positive has the
    relevance 1 and a negative 0, in graded groups each document its score; of several judgements
    of one document for one query, the highest counts. A document with the text of a query, and not
    judged for it, is the query itself: it is no result of it.

    Args:
        groups: Candidate groups: ``query``, ``pos``, ``neg``, ``pos_scores``, ``neg_scores``,
            ``graded``, ``prompt``.
        corpus: More documents to search, by id; a text of theirs keeps its id.
        positive_threshold: Where there are grades, the least relevance of a relevant document.

    Raises:
        ValueError: There is no group.
    """
    collection = _Collection(corpus or {})
    for group in groups:
        collection.add(group)
    return collection.data(positive_threshold)


def candidates_from_groups(groups: Iterable[Row], positive_threshold: float = 0.5) -> RetrievalData:
    """The same, but each query ranks the documents of its own groups only."""
    collection = _Collection({})
    for group in groups:
        collection.add(group)
    return collection.data(positive_threshold, candidates=True)


def pairs_from_rows(rows: Iterable[Row]) -> PairData:
    """Turn scored pairs into judged pairs: ``query``, ``doc``, ``rel``, ``weight``, ``prompt``.

    Weights are for training: here each pair counts once.

    Raises:
        ValueError: There is no row.
    """
    queries, documents, relevances, prompts = [], [], [], []
    weighted = 0
    for row in rows:
        queries.append(row["query"])
        documents.append(row["doc"])
        relevances.append(float(row["rel"]))
        prompts.append(row.get("prompt"))
        weighted += row.get("weight", 1.0) != 1.0
    if not queries:
        raise ValueError("there are no scored pairs to evaluate on")
    if weighted:
        logger.info("%d pairs have a weight, which evaluation ignores", weighted)
    some = any(prompt is not None for prompt in prompts)
    return PairData(queries, documents, relevances, prompts if some else ())


class _Collection:
    """Documents, queries and judgements, collected group by group."""

    def __init__(self, corpus: Mapping[str, str]) -> None:
        self.documents: dict[str, str] = {}
        self.ids: dict[str, str] = {}  # of each text
        self.queries: dict[str, str] = {}
        self.prompts: dict[str, str] = {}
        self.qrels: dict[str, dict[str, float]] = {}
        self.graded = False
        for identity, text in corpus.items():
            if self.ids.setdefault(text, identity) == identity:
                self.documents[identity] = text
        if len(self.documents) < len(corpus):
            repeated = len(corpus) - len(self.documents)
            logger.info("%d documents of the corpus repeat the text of another one", repeated)

    def add(self, group: Row) -> None:
        """One group; its query may have been there already."""
        prompt = group.get("prompt")
        query = text_id(group["query"]) if prompt is None else text_id(prompt, group["query"])
        self.queries[query] = group["query"]
        if prompt is not None:
            self.prompts[query] = prompt
        self.graded |= bool(group.get("graded"))
        judged = self.qrels.setdefault(query, {})
        for text, relevance in judgements(group):
            document = self.ids.setdefault(text, text_id(text))
            self.documents[document] = text
            judged[document] = max(relevance, judged.get(document, relevance))

    def data(self, positive_threshold: float, candidates: bool = False) -> RetrievalData:
        """The collected set."""
        if not self.queries:
            raise ValueError("there are no groups of a query and its documents to evaluate on")
        found = RetrievalData(
            self.documents,
            self.queries,
            self.qrels,
            relevant_from=positive_threshold if self.graded else None,
            candidates={q: list(judged) for q, judged in self.qrels.items()}
            if candidates
            else None,
            prompts=self.prompts,
            own_documents={} if candidates else self._own_documents(),
        )
        lacking = sum(not any(map(found.is_relevant, j.values())) for j in self.qrels.values())
        if lacking:
            logger.warning("%d queries have no relevant document: they count 0", lacking)
        return found

    def _own_documents(self) -> dict[str, str]:
        """The document that is the query itself, of queries that have one."""
        own = {query: self.ids.get(text) for query, text in self.queries.items()}
        return {q: d for q, d in own.items() if d is not None and d not in self.qrels[q]}


def judgements(group: Row) -> Iterator[tuple[str, float]]:
    """Each document of a group with its relevance."""
    for side, relevance in (("pos", 1.0), ("neg", 0.0)):
        texts = group[side]
        scores = group[f"{side}_scores"] if group.get("graded") else None
        yield from zip(texts, scores or [relevance] * len(texts), strict=True)


def text_id(*texts: str) -> str:
    """An id for a text: 80 bits of a hash, the same on every machine."""
    digest = hashlib.blake2b(digest_size=10)
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
