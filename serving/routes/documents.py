"""Documents of a store: read, write and delete them."""

from typing import Any

from fastapi import Request, Response
from pydantic import Field

from loaders.parsing.fields import RowError
from serving.engine.tokenization import Truncation
from serving.http.errors import ServingError, wrong_field
from serving.http.http_json import Body, example, reply
from serving.http.routing import Router
from serving.service import Service, item_places
from serving.stored_corpus import SOURCE, StoredCorpus
from stores.documents import document_of
from stores.store import Document


class WriteBody(Body):
    """Documents as in a corpus file: id, text, title, and metadata.

    Metadata have any other name, or are in an object ``metadata``, as a document is given back.
    """

    documents: list[dict[str, Any]] = Field(
        examples=[[{"id": "a1", "text": "pandas.read_csv reads it.", "lang": "en"}]]
    )


class DeleteBody(Body):
    """Documents by their ids."""

    ids: list[str] = Field(examples=[["a1"]])


def document_routes(service: Service) -> Router:
    """``/documents``."""
    router = Router("documents")

    @router.at(
        "/documents",
        responses=example({"ids": ["a1"], "truncated": []}),
        summary="Insert documents, or replace those of the same ids",
    )
    async def write(request: Request, body: WriteBody) -> Response:
        stored = writable(service)
        service.check_count(len(body.documents), "documents")
        documents = [
            read_document(fields, place)
            for fields, place in zip(
                body.documents, item_places("documents", len(body.documents)), strict=True
            )
        ]
        check_unique(documents)
        texts, model = [each.text for each in documents], service.model("embedder")
        places = item_places("documents", len(texts))
        for text, place in zip(texts, places, strict=True):
            service.check_text(text, place)
        answer = await service.embed_sides(model, [], texts, Truncation(allowed=True), places)
        await service.in_worker(lambda: stored.write(documents, answer.values))
        content = {"ids": [each.id for each in documents], "truncated": answer.truncated}
        return reply(request, content, answer, ignored=body.ignored(service))

    @router.at(
        "/documents/delete", responses=example({"deleted": ["a1"]}), summary="Delete documents"
    )
    async def delete(request: Request, body: DeleteBody) -> Response:
        stored = writable(service)
        service.check_count(len(body.ids), "ids")
        deleted = await service.in_worker(lambda: stored.delete(body.ids))
        return reply(request, {"deleted": deleted}, ignored=body.ignored(service))

    @router.at(
        "/documents/{identity:path}",
        method="GET",
        responses=example({"id": "a1", "text": "...", "metadata": {}}),
        summary="A document",
    )
    async def read(request: Request, identity: str) -> Response:
        stored = opened(service)
        found = await service.in_worker(lambda: stored.read([identity]))
        if identity not in found:
            raise ServingError("document_not_found", "there is no document with this id", "id")
        document = found[identity]
        content = {"id": identity, "text": document.text, "metadata": document.metadata}
        return reply(request, content)

    return router


def opened(service: Service) -> StoredCorpus:
    """The collection, once the models are loaded."""
    service.engine.check_open()
    stored = service.engine.model_sets.current.stored
    assert stored is not None
    return stored


def writable(service: Service) -> StoredCorpus:
    """The collection, if clients may write.

    Raises:
        ServingError: They may not.
    """
    stored = opened(service)
    if not stored.allow_writes:
        raise ServingError(
            "read_only", "this server does not write documents; start it with --allow_writes true"
        )
    return stored


def read_document(fields: dict[str, Any], place: str) -> Document:
    """A document of a body.

    Raises:
        ServingError: It is malformed.
    """
    try:
        return document_of(fields, SOURCE)
    except RowError as error:
        raise wrong_field(place, str(error)) from None


def check_unique(documents: list[Document]) -> None:
    """Refuse an id that is given twice."""
    seen: dict[str, int] = {}
    for at, each in enumerate(documents):
        if each.id in seen:
            raise wrong_field(f"documents.{at}", f"has the id of documents.{seen[each.id]}")
        seen[each.id] = at
