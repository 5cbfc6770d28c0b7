"""The first stage of a search: documents of the request, of the server, or of a store."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from common.bm25 import highlights
from serving.engine.similarity import Corpus
from serving.http.errors import wrong_field
from serving.http.http_json import Query
from serving.routes.options import TruncationFields
from serving.service import ModelOutput, Service, item_places
from serving.stored_corpus import StoredCorpus
from stores.filters import Filter, parse_filter
from stores.search import Mode, SearchResult
from stores.store import Document

MOST = 1000  # candidates


class SearchBody(TruncationFields):
    """A query, and documents unless the server has a corpus or a store."""

    query: Query
    documents: list[str] | None = Field(
        None, examples=[["pandas.read_csv reads it.", "Paris is the capital of France."]]
    )
    top_k: int = Field(
        50,
        ge=1,
        le=MOST,
        description="documents that are found and given to the reranker; default: 50, or as many "
        "as the answer reaches to",
    )
    top_n: int = Field(10, ge=1, description="documents of the answer")
    offset: int = Field(0, ge=0, description="the answer begins after so many documents")
    mode: Mode | None = Field(
        None,
        description="of a store: by similarity, by words, or by both; default: hybrid where a "
        "weight of BM25 was chosen for the model, else dense",
    )
    filter: dict[str, Any] | None = Field(
        None,
        description="of a store: what metadata must be, by field: a value, a list of values, or "
        "gt, gte, lt, lte, not",
    )
    highlight: bool = Field(False, description="where the query's words stand in each text")

    @property
    def wanted(self) -> int:
        """How many candidates to find."""
        if self.offset + self.top_n > MOST:
            raise wrong_field(
                "offset", f"offset and top_n reach beyond the {MOST} that are ordered"
            )
        if "top_k" in self.model_fields_set:
            return self.top_k
        return max(self.top_k, self.offset + self.top_n)

    def check_pages(self) -> None:
        """Refuse a page of other candidates than those before it, whose order depends on them."""
        if self.offset and self.wanted > self.top_k:
            raise wrong_field(
                "top_k",
                f"is needed beyond the first {self.top_k}: give at least {self.wanted}, and the "
                "same for every page, as pages of other candidates would skip or repeat documents",
            )


@dataclass(frozen=True)
class Candidate:
    """A document that was found.

    Args:
        text: Its text.
        score: Of the first stage.
        about: What else the answer tells of it.
        truncated: Whether it was cut when it was embedded for this request.
    """

    text: str
    score: float
    about: dict[str, Any]
    truncated: bool = False


@dataclass(frozen=True)
class Candidates:
    """What was found, the best first.

    Args:
        found: The documents.
        outputs: What the embedder computed for the request.
        weight_applies: Whether a reranker's fusion weight was chosen for scores like these.
    """

    found: list[Candidate]
    outputs: list[ModelOutput] = field(default_factory=list)
    weight_applies: bool = True


async def find_candidates(service: Service, body: SearchBody) -> Candidates:
    """The best documents for the query, of those given, of the store or of the corpus."""
    service.check_text(body.query, "query")
    stored = service.engine.model_sets.current.stored
    if body.documents is None and stored is not None:
        return await _stored(service, body, stored)
    for name in ("mode", "filter"):
        if getattr(body, name) is not None:
            raise wrong_field(name, "is for a search of the documents of --store; leave it out")
    return await _given(service, body)


async def _given(service: Service, body: SearchBody) -> Candidates:
    """Candidates among the request's documents, or in the server's corpus."""
    model, corpus = service.model("embedder"), service.engine.model_sets.current.corpus
    documents = body.documents
    if model.reads_texts_separately:
        raise wrong_field(
            "documents", "must be left out: this model searches its store; /score scores pairs"
        )
    if documents is not None:
        service.check_count(len(documents), "documents")
    elif corpus is None:
        raise wrong_field(
            "documents",
            "is missing, and this server has no corpus; give documents, or start it with --corpus "
            "or --store",
        )
    given = documents or []
    places = item_places("documents", len(given))
    for text, place in zip(given, places, strict=True):
        service.check_text(text, place)
    answer = await service.embed_sides(
        model, [body.query], given, body.requested_truncation, ["query", *places]
    )
    query, vectors = answer.values[0], answer.values[1:]
    # Given documents were embedded behind the query; those of a corpus were not, this time.
    cut = {at - 1 for at in answer.truncated}

    def find() -> list[Candidate]:
        searched = corpus
        if documents is not None:
            searched = Corpus(documents, vectors, model.similarity, bm25_weight=model.bm25_weight)
        assert searched is not None
        found = []
        for hit in searched.search(query, body.query, body.wanted):
            about: dict[str, Any] = {"index": hit.number, searched.similarity: hit.similarity}
            if searched.ids is not None:
                about["id"] = searched.ids[hit.number]
            found.append(Candidate(searched.texts[hit.number], hit.score, about, hit.number in cut))
        return found

    return Candidates(await service.in_tokenizer(find), [answer])


async def _stored(service: Service, body: SearchBody, stored: StoredCorpus) -> Candidates:
    try:
        where: Filter | None = parse_filter(body.filter or {})
    except ValueError as error:
        raise wrong_field("filter", str(error).removeprefix("filter: ")) from None
    default_mode: Mode = "hybrid" if stored.bm25_weight else "dense"
    mode, vector, outputs = body.mode or default_mode, None, []
    if mode == "hybrid":
        body.check_pages()
    model = service.model("embedder")
    if mode != "bm25":
        outputs = [
            await service.embed_sides(model, [body.query], [], body.requested_truncation, ["query"])
        ]
        vector = outputs[0].values[0]

    def find() -> tuple[list[SearchResult], list[Document]]:
        return stored.search(vector, body.query, body.wanted, mode, where)

    found, documents = await service.in_worker(find)
    candidates = [
        Candidate(document.text, each.score, _about(each, document, stored))
        for each, document in zip(found, documents, strict=True)
    ]
    return Candidates(candidates, outputs, weight_applies=mode == default_mode)


def _about(found: SearchResult, document: Document, stored: StoredCorpus) -> dict[str, Any]:
    scores = {stored.similarity: found.similarity, "bm25": found.bm25}
    known = {name: score for name, score in scores.items() if score is not None}
    return {"id": found.id, **known, "metadata": document.metadata}


def page_of(
    body: SearchBody, candidates: Sequence[Candidate], order: Sequence[int], scores: np.ndarray
) -> list[dict[str, Any]]:
    """The documents of the answer, in the order of their numbers, with their scores [N]."""
    page = []
    for at in order[body.offset : body.offset + body.top_n]:
        candidate = candidates[at]
        result = {
            **candidate.about,
            "text": candidate.text,
            "score": scores[at],
            "embedder_rank": at + 1,
            "truncated": candidate.truncated,
        }
        if body.highlight:
            result["highlights"] = highlights(candidate.text, body.query)
        page.append(result)
    return page
