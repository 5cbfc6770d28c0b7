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
    candidates: bool = False,
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
        candidates: Each query ranks the documents of its own groups only.

    Raises:
        ValueError: There is no group.
    """
    documents, ids = _distinct(corpus or {})
    queries: dict[str, str] = {}
    prompts: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    graded = False
    for group in groups:
        prompt = group.get("prompt")
        query = text_id(group["query"]) if prompt is None else text_id(prompt, group["query"])
        queries[query] = group["query"]  # which may have been there already
        if prompt is not None:
            prompts[query] = prompt
        graded |= bool(group.get("graded"))
        judged = qrels.setdefault(query, {})
        for text, relevance in judgements(group):
            document = ids.setdefault(text, text_id(text))
            documents[document] = text
            judged[document] = max(relevance, judged.get(document, relevance))
    if not queries:
        raise ValueError("there are no groups of a query and its documents to evaluate on")
    same = {query: ids[text] for query, text in queries.items() if text in ids}
    if candidates:
        same = {}
    found = RetrievalData(
        documents,
        queries,
        qrels,
        relevant_from=positive_threshold if graded else None,
        candidates={q: list(judged) for q, judged in qrels.items()} if candidates else None,
        prompts=prompts,
        identical_documents={q: d for q, d in same.items() if d not in qrels[q]},
    )
    lacking = sum(not any(map(found.is_relevant, judged.values())) for judged in qrels.values())
    if lacking:
        logger.warning("%d queries have no relevant document and score 0", lacking)
    return found


def _distinct(corpus: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The first document of each text by id, and the ids by text."""
    ids: dict[str, str] = {}
    for identity, text in corpus.items():
        ids.setdefault(text, identity)
    if len(ids) < len(corpus):
        repeated = len(corpus) - len(ids)
        logger.info("%d documents of the corpus repeat the text of another one", repeated)
    return {identity: text for text, identity in ids.items()}, ids


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
