"""A collection of Qdrant as a table."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from stores.databases.qdrant_filters import NUMBERS, as_filter, number_field
from stores.databases.qdrant_ids import point_id, word_id
from stores.databases.qdrant_models import requests
from stores.filters import Filter
from stores.store import Document, Hit, Layout, StoreUnavailable, Table, Vectors

CANDIDATES = 10  # times k: found by quantized vectors, and ordered by the vectors
TIES = 16  # documents asked for beyond k, as some can be equal to the last one
AT_ONCE = 256  # points that are read at once
MATRICES_AT_ONCE = 16  # the same, where each has a vector of each token
MEAN_LENGTH = "mean_length"
MOST_FIELDS = 64  # that are indexed
LONGEST_WAIT = 5.0  # seconds between two questions whether it is indexed


class QdrantTable(Table):
    """A collection of Qdrant.

    Args:
        client: Of the server, or its local mode.
        guarded: What its calls are made in.
        name: Its own.
        layout: Of its vectors.
        is_local: It is searched exactly, in this process.
    """

    def __init__(
        self,
        client: QdrantClient,
        guarded: Callable[[], AbstractContextManager[None]],
        name: str,
        layout: Layout,
        is_local: bool,
    ) -> None:
        self.client, self.guarded, self.is_local = client, guarded, is_local
        self.name = name
        self.layout = layout
        self._mean: float | None = None
        self._indexed = set[str]()

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
            for name in {name for point in points for name in (point.payload or {})[NUMBERS]}:
                if len(self._indexed) < MOST_FIELDS:
                    self.index(number_field(name), models.PayloadSchemaType.FLOAT)
            with self.guarded():
                self.client.upsert(self.name, points, wait=True)

    def index(self, field: str, schema: Any) -> None:
        """Index a field of the points' payload; one that is indexed stays as it is."""
        if not self.is_local and field not in self._indexed:
            with self.guarded():
                self.client.create_payload_index(self.name, field, schema, wait=True)
            self._indexed.add(field)

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
        wait = 0.1
        while True:
            with self.guarded():
                about = self.client.get_collection(self.name)
            if about.status == models.CollectionStatus.RED:
                raise StoreUnavailable(
                    f"store: Qdrant cannot index {self.name}: {about.optimizer_status}"
                )
            if about.status != models.CollectionStatus.YELLOW:  # which is: at it
                return
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

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
        """The k best; those of equal scores by id, so that pages neither repeat nor lose one.

        Qdrant leaves their order open, so that all that are equal to the last one are asked for.
        """
        limit = k + TIES
        while True:
            with self.guarded():
                answer = self.client.query_points(
                    self.name,
                    query=query,
                    using=using,
                    limit=limit,
                    query_filter=as_filter(where, ids),
                    search_params=params,
                    with_payload=["id"],
                )
            found = [Hit(point.payload["id"], point.score)
                     for point in answer.points if point.payload]  # fmt: skip
            if len(found) < limit or found[-1].score < found[k - 1].score:
                return sorted(found, key=lambda hit: (-hit.score, hit.id))[:k]
            limit *= 4

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
        if self._mean is None:
            with self.guarded():
                about = self.client.get_collection(self.name)
                self._indexed |= about.payload_schema.keys()
                kept = about.config.metadata or {}
                if MEAN_LENGTH not in kept:
                    mean = sum(len(each.words) for each in documents) / max(1, len(documents))
                    kept = {MEAN_LENGTH: max(1.0, mean)}
                    self.client.update_collection(self.name, metadata=kept)
            self._mean = float(kept[MEAN_LENGTH])
        return self._mean
