"""Qdrant: a server, or its local mode, which keeps a folder and is for small collections.

BM25 is a sparse vector. The server weights words by how rare they are; the length of documents is
compared with the mean of the first block that was written, as Qdrant cannot know of all.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from stores.databases.qdrant_models import (
    as_filter,
    point_id,
    requests,
    vector_params,
    word_id,
)
from stores.filters import Filter
from stores.store import Document, Hit, Layout, Store, StoreUnavailable, Table, Vectors, first_line

CATALOG = "tandem_collections"
VARIABLE = "QDRANT_API_KEY"  # of the environment
CANDIDATES = 10  # times k: found by quantized vectors, and ordered by the vectors
AT_ONCE = 256  # points that are read at once
MATRICES_AT_ONCE = 16  # the same, where each has a vector of each token
MEAN_LENGTH = "mean_length"


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
                address, api_key=os.environ.get(VARIABLE), check_compatibility=False
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

    def open(self, table: str, layout: Layout, create: bool = False) -> "QdrantTable":
        if create and table not in self.tables():
            with self.guarded():
                self.client.create_collection(
                    table,
                    vectors_config={"dense": vector_params(layout)},
                    sparse_vectors_config={
                        "words": models.SparseVectorParams(modifier=models.Modifier.IDF)
                    },
                )
        return QdrantTable(self, table, layout)

    def drop(self, table: str) -> None:
        with self.guarded():
            self.client.delete_collection(table)

    def lock(self, collection: str) -> AbstractContextManager[None]:
        # A folder has one process. A server has no locks: documents are written by their ids.
        return nullcontext()

    def close(self) -> None:
        self.client.close()


class QdrantTable(Table):
    """A collection of Qdrant.

    Args:
        store: Where it is.
        name: Its own.
        layout: Of its vectors.
    """

    def __init__(self, store: QdrantStore, name: str, layout: Layout) -> None:
        self.client, self.guarded = store.client, store.guarded
        self.name = name
        self.layout = layout
        self.is_local = store.is_local  # searched exactly, in this process

    def count(self) -> int:
        with self.guarded():
            return int(self.client.count(self.name, exact=True).count)

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        return {
            record.payload["id"]: record.payload["digest"]
            for record in self._records(ids, ["id", "digest"])
        }

    def ids(self, size: int) -> Iterator[list[tuple[str, str, str]]]:
        start: Any = None
        while True:
            with self.guarded():
                records, start = self.client.scroll(
                    self.name, limit=size, offset=start, with_payload=["id", "source", "digest"]
                )
            if records:
                found = [each.payload or {} for each in records]
                yield [(each["id"], each["source"], each["digest"]) for each in found]
            if start is None:
                return

    def documents(self, ids: Sequence[str]) -> dict[str, Document]:
        fields = ["id", "text", "metadata", "source"]
        return {
            record.payload["id"]: Document(**record.payload)
            for record in self._records(ids, fields)
        }

    def vectors(self, ids: Sequence[str]) -> dict[str, Vectors]:
        # Lists of numbers take eight times the memory of an array.
        size = MATRICES_AT_ONCE if self.layout.multi_vector else AT_ONCE
        return {
            record.payload["id"]: np.asarray(record.vector["dense"], dtype=np.float32)
            for start in range(0, len(ids), size)
            for record in self._records(ids[start : start + size], ["id"], ["dense"])
        }

    def upsert(self, documents: Sequence[Document], vectors: Vectors | Sequence[Vectors]) -> None:
        for points in requests(documents, vectors, self._mean_length(documents)):
            with self.guarded():
                self.client.upsert(self.name, points, wait=True)

    def delete(self, ids: Sequence[str], digests: Sequence[str] | None = None) -> None:
        if ids:
            must: list[Any] = [models.HasIdCondition(has_id=[point_id(each) for each in ids])]
            if digests is not None:
                still = models.MatchAny(any=list(digests))
                must.append(models.FieldCondition(key="digest", match=still))
            chosen = models.FilterSelector(filter=models.Filter(must=must))
            with self.guarded():
                self.client.delete(self.name, chosen, wait=True)

    def build_index(self) -> None:
        # The server indexes by itself, from a size of a segment's vectors on.
        pass

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        if not vector.size:  # none of a query's tokens counts
            return []
        if self.is_local:
            return self._query(vector.tolist(), "dense", k, where, ids)
        rescored = self.layout.quantization != "none"
        quantization = models.QuantizationSearchParams(
            ignore=exact, rescore=rescored, oversampling=float(CANDIDATES) if rescored else None
        )
        params = models.SearchParams(exact=exact, quantization=quantization)
        return self._query(vector.tolist(), "dense", k, where, ids, params)

    def search_words(
        self,
        words: Sequence[str],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        if not words:
            return []
        counts = Counter(map(word_id, words))
        query = models.SparseVector(
            indices=list(counts), values=[float(n) for n in counts.values()]
        )
        return [hit for hit in self._query(query, "words", k, where, ids) if hit.score > 0]

    def _query(
        self,
        query: Any,
        using: str,
        k: int,
        where: Filter | None,
        ids: Sequence[str] | None,
        params: models.SearchParams | None = None,
    ) -> list[Hit]:
        with self.guarded():
            found = self.client.query_points(
                self.name,
                query=query,
                using=using,
                limit=k,
                query_filter=as_filter(where, ids),
                search_params=params,
                with_payload=["id"],
            )
        return [Hit(point.payload["id"], point.score) for point in found.points if point.payload]

    def _records(
        self, ids: Sequence[str], fields: list[str], vectors: list[str] | bool = False
    ) -> list[Any]:
        points = [point_id(each) for each in ids]
        with self.guarded():
            return self.client.retrieve(
                self.name, points, with_payload=fields, with_vectors=vectors
            )

    def _mean_length(self, documents: Sequence[Document]) -> float:
        """The mean length of the first documents written; it is kept in the collection."""
        with self.guarded():
            kept = self.client.get_collection(self.name).config.metadata or {}
            if MEAN_LENGTH not in kept:
                mean = sum(len(each.words) for each in documents) / max(1, len(documents))
                kept = {MEAN_LENGTH: max(1.0, mean)}
                self.client.update_collection(self.name, metadata=kept)
        return float(kept[MEAN_LENGTH])


@contextmanager
def guarded(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Turn what the client raises into our errors; ``lock`` is held meanwhile.

    Raises:
        StoreUnavailable: The server does not answer, or refuses.
    """
    try:
        with lock:
            yield
    except (ApiException, ResponseHandlingException, httpx.HTTPError) as error:
        raise StoreUnavailable(f"store: Qdrant: {first_line(error)}") from None
