"""Retrieve documents with an embedder, by exact search or a FAISS index."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from common.bm25 import BM25, best_hits
from common.similarity import for_dot_product
from encoders import Embedder
from evaluation.data.sets import RetrievalData
from evaluation.metrics.ranking import order
from evaluation.search.distributed import InferenceSettings, run_distributed
from evaluation.search.exact import check_finite, search
from evaluation.search.faiss_index import build_index, search_index
from evaluation.search.fusion import TwoScores
from loaders.beir.problems import listed

# Shapes: N texts, Q queries, D documents, H width of a vector.

DEPTH = 1_000  # documents that each of two rankings finds before they are fused


@torch.inference_mode()
def retrieve(
    embedder: Embedder,
    data: RetrievalData,
    k: int,
    inference: InferenceSettings = InferenceSettings(),
) -> dict[str, dict[str, float]]:
    """Return the k documents most similar to each query, with scores, best first.

    Queries get their own prompt or the embedder's query prompt, documents its document prompt.
    Where the data have candidates, each query ranks only its own. Under ``torch.distributed`` the
    processes share the work, and each returns the whole result.

    Args:
        embedder: The model.
        data: What to search.
        k: How many documents to find for a query.
        inference: Settings of inference; for kinds of ``index`` see ``build_index``.

    Raises:
        ValueError: There are no documents or queries, a candidate does not exist, or a vector is
            not finite (the text's id is named).
    """
    queries, documents, ids = _vectors(embedder, data, inference)
    if data.candidates is not None:
        found = _rank_candidates(queries, documents, ids, data)
    else:
        found = _search(
            embedder, queries, documents, ids, data, k + bool(data.identical_documents), inference
        )
    return {query: _best(query, scores, data, k) for query, scores in found.items()}


@torch.inference_mode()
def retrieve_with_bm25(
    embedder: Embedder,
    data: RetrievalData,
    k: int,
    inference: InferenceSettings = InferenceSettings(),
) -> TwoScores:
    """The embedder's and BM25's scores of the documents that either of them finds.

    Each finds its best ``max(k, DEPTH)`` for a query, or scores the query's candidates. A document
    that shares no word with the query has 0 from BM25. For the rest see ``retrieve``.
    """
    queries, documents, ids = _vectors(embedder, data, inference)
    wanted = max(k, DEPTH) + bool(data.identical_documents)
    by_words: dict[str, dict[str, float]] = {}
    index, numbers = BM25([data.documents[name] for name in ids]), _numbers(ids)
    if data.candidates is None:
        found = _search(embedder, queries, documents, ids, data, wanted, inference)
        union = {query: dict.fromkeys(scores) for query, scores in found.items()}
    else:
        union = {query: dict.fromkeys(data.candidates.get(query, [])) for query in data.queries}
    for query, scores in zip(
        data.queries, index.score_each(list(data.queries.values())), strict=True
    ):
        if data.candidates is None:
            union[query] |= dict.fromkeys(ids[at] for at, _ in best_hits(scores, wanted))
        kept = [name for name in union[query] if not data.is_identical(query, name)]
        by_words[query] = {name: float(scores[numbers[name]]) for name in kept}
    candidates = {query: list(scores) for query, scores in by_words.items()}
    own = _rank_candidates(queries, documents, ids, replace(data, candidates=candidates))
    if data.candidates is not None:
        found = own
    # An index may miss what is found by words.
    alone = {query: _best(query, scores, data, k) for query, scores in found.items()}
    return TwoScores(own, by_words, alone)


def _vectors(
    embedder: Embedder, data: RetrievalData, inference: InferenceSettings
) -> tuple[Tensor, Tensor, list[str]]:
    """Vectors of the queries [Q, H] and of the documents [D, H], and the documents' ids.

    Where the data have candidates, those are the documents.
    """
    if not data.documents or not data.queries:
        missing = "documents to search" if data.queries else "queries"
        raise ValueError(f"there are no {missing}: nothing can be retrieved")
    texts = list(data.prompted(embedder.find_prompt("query")).values())
    queries = embed_texts(embedder, texts, "", inference, inference.query_max_length)
    ids = list(data.documents) if data.candidates is None else _candidates(data)
    texts, prompt = [data.documents[name] for name in ids], embedder.find_prompt("document")
    documents = embed_texts(embedder, texts, prompt, inference, inference.document_max_length)
    check_finite(queries, list(data.queries), "query")
    check_finite(documents, ids, "document")
    return queries, documents, ids


def _search(
    embedder: Embedder,
    queries: Tensor,
    documents: Tensor,
    ids: Sequence[str],
    data: RetrievalData,
    k: int,
    inference: InferenceSettings,
) -> dict[str, dict[str, float]]:
    """The k documents most similar to each query, by exact search or an index."""
    query_ids = list(data.queries)
    if inference.index is None:
        return search(queries, documents, ids, k, query_ids=query_ids, device=embedder.device)
    index = build_index(documents, inference.index)
    return search_index(index, queries, ids, k, query_ids=query_ids)


def embed_texts(
    embedder: Embedder,
    texts: Sequence[str],
    prompt: str,
    inference: InferenceSettings,
    max_length: int | None,
) -> Tensor:
    """Vectors [N, H] to compare by dot product; equal texts are encoded once: equal vectors."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    different = list(numbers)

    def encode(piece: list[int]) -> Tensor:
        return embedder.encode(
            [different[at] for at in piece],
            prompt=prompt,
            max_length=max_length,
            tokens_per_batch=inference.tokens_per_batch,
            bf16=inference.bf16,
        )

    sizes = [len(prompt) + len(text) for text in different]
    vectors = run_distributed(embedder, sizes, encode, inference, max_length, (embedder.dimension,))
    if not embedder.normalize:
        vectors = for_dot_product(vectors, embedder.similarity)
    if len(different) == len(texts):
        return vectors
    return vectors[[numbers[text] for text in texts]]


def _candidates(data: RetrievalData) -> list[str]:
    """The documents that are a candidate of any query."""
    named = set(chain.from_iterable((data.candidates or {}).values()))
    unknown = sorted(named - data.documents.keys())
    if unknown:
        raise ValueError(
            f"the candidates name {len(unknown)} documents that do not exist: {listed(unknown)}"
        )
    return [document for document in data.documents if document in named]


def _numbers(ids: Sequence[str]) -> dict[str, int]:
    return {document: number for number, document in enumerate(ids)}


def _rank_candidates(
    queries: Tensor, documents: Tensor, ids: Sequence[str], data: RetrievalData
) -> dict[str, dict[str, float]]:
    """The scores of each query [Q, H] with its own candidates among the documents [D, H]."""
    numbers = _numbers(ids)
    run = {}
    for query, vector in zip(data.queries, queries.double(), strict=True):
        own = (data.candidates or {}).get(query, [])
        products = documents[[numbers[document] for document in own]].double() * vector
        scores = products.sum(dim=1).float()
        run[query] = dict(zip(own, scores.tolist(), strict=True))
    return run


def _best(query: str, scores: dict[str, float], data: RetrievalData, k: int) -> dict[str, float]:
    """The k best, best first, without the query itself where the data say that it is no result."""
    found = [document for document in order(scores) if not data.is_identical(query, document)]
    return {document: scores[document] for document in found[:k]}
