"""Qdrant: a server, or its local mode, which keeps a folder and is for small collections.

BM25 is a sparse vector. The server weights words by how rare they are; the length of documents is
compared with the mean of the first block that was written, as Qdrant cannot know of all.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from stores.databases.qdrant_filters import KEYS
from stores.databases.qdrant_ids import point_id
from stores.databases.qdrant_models import vector_params
from stores.databases.qdrant_table import QdrantTable
from stores.store import Layout, Store, StoreUnavailable, first_line

CATALOG = "tandem_collections"
VARIABLE = "QDRANT_API_KEY"  # of the environment
TIMEOUT = 60  # seconds; an index of a new field of a large collection takes some of them


class QdrantStore(Store):
    """A server, or a folder.

    Args:
        url: ``qdrant+http://host:6333``, ``qdrant+https://...`` or ``qdrant:folder``.

    Raises:
        StoreUnavailable: The server does not answer.
        ValueError: Another process has opened the folder.
    """

    def __init__(self, url: str) -> None:
        kind, _, rest = url.partition(":")
        self.is_local = kind == "qdrant"
        # The local mode is not made for threads.
        self.guarded = partial(guarded, RLock() if self.is_local else nullcontext())
        if self.is_local:
            try:
                self.client = QdrantClient(path=str(Path(rest).expanduser()))
            except RuntimeError as error:
                raise ValueError(
                    f"store: {rest}: is open in another process; several need a Qdrant server "
                    f"({error})"
                ) from None
        else:
            address = url.removeprefix("qdrant+")
            self.client = QdrantClient(
                address,
                api_key=os.environ.get(VARIABLE),
                timeout=TIMEOUT,
                check_compatibility=False,
            )
        with self.guarded():
            self.client.get_collections()

    def catalog(self) -> dict[str, dict[str, Any]]:
        if CATALOG not in self.tables():
            return {}
        with self.guarded():
            points, _ = self.client.scroll(CATALOG, limit=10_000)
        return {point.payload["name"]: point.payload["about"] for point in points if point.payload}

    def publish(self, collection: str, about: dict[str, Any]) -> None:
        with self.guarded():
            if CATALOG not in self.tables():
                self.client.create_collection(CATALOG, vectors_config={})
            payload = {"name": collection, "about": about}
            point = models.PointStruct(id=point_id(collection), vector={}, payload=payload)
            self.client.upsert(CATALOG, [point])

    def tables(self) -> list[str]:
        with self.guarded():
            return [found.name for found in self.client.get_collections().collections]

    def open(self, table: str, layout: Layout, create: bool = False) -> QdrantTable:
        opened = QdrantTable(self.client, self.guarded, table, layout, self.is_local)
        if create and table not in self.tables():
            with self.guarded():
                self.client.create_collection(
                    table,
                    vectors_config={"dense": vector_params(layout)},
                    sparse_vectors_config={
                        "words": models.SparseVectorParams(modifier=models.Modifier.IDF)
                    },
                )
            keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, on_disk=True)
            for field in (KEYS, "digest"):
                opened.index(field, keyword)
        return opened

    def drop(self, table: str) -> None:
        with self.guarded():
            self.client.delete_collection(table)

    def lock(self, collection: str) -> AbstractContextManager[None]:
        # A folder has one process. A server has no locks: documents are written by their ids.
        return nullcontext()

    def close(self) -> None:
        self.client.close()


@contextmanager
def guarded(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Turn what the client raises into our errors; ``lock`` is held meanwhile.

    Raises:
        StoreUnavailable: The server does not answer, or refuses.
        ValueError: It has no such collection.
    """
    try:
        with lock:
            yield
    except UnexpectedResponse as error:
        told = f"store: Qdrant: {first_line(error)}: {reason(error)}"
        if error.status_code == httpx.codes.NOT_FOUND:
            raise ValueError(told) from None
        raise StoreUnavailable(told) from None
    except (ApiException, ResponseHandlingException, httpx.HTTPError) as error:
        raise StoreUnavailable(f"store: Qdrant: {first_line(error)}") from None


def reason(error: UnexpectedResponse) -> str:
    """What a server says of its refusal."""
    text = error.content.decode(errors="replace")
    try:
        return str(json.loads(text)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
