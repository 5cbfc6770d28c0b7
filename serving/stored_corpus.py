"""A collection of a vector database, searched and written with the server's embedder."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.kinds import VectorModel
from serving.engine.similarity import for_dot_product
from serving.http.errors import ServingError, wrong_field
from stores.collection import find_live, open_live
from stores.embedding import as_query
from stores.filters import Filter
from stores.fingerprint import fingerprint
from stores.search import Mode, SearchResult, search
from stores.store import Document, Store, StoreUnavailable

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# Whose documents are those that clients write: scripts/index.py leaves them alone.
SOURCE = "api"
RETRY = 5  # seconds


class StoredCorpus:
    """Documents in a store.

    Args:
        store: The database.
        collection: Its name there.
        model: The served one, which must be that of the collection.
        bm25_weight: Of BM25 beside the similarity (``fusion.json``); 0: none was chosen.
        allow_writes: Whether clients may write documents.

    Raises:
        ValueError: There is no such collection, another model made it, or documents that are
            written would be truncated to another length than those that are there.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        model: VectorModel,
        bm25_weight: float = 0.0,
        allow_writes: bool = False,
    ) -> None:
        about = find_live(store, collection)
        made_by = fingerprint(model)
        self.table = open_live(store, collection, made_by)
        length = about["model"]["max_length"]
        if allow_writes and made_by.max_length != length:
            raise ValueError(
                f"allow_writes: documents of the collection {collection!r} were truncated to "
                f"{length} tokens, and this server truncates to {made_by.max_length}; give "
                f"--text_max_length {length}"
            )
        self.store = store
        self.collection = collection
        self.table_name = str(about["table"])
        self.similarity = model.similarity
        self.bm25_weight = bm25_weight
        self.allow_writes = allow_writes

    def search(
        self,
        vector: NDArray[np.float32] | None,
        text: str,
        k: int,
        mode: Mode,
        where: Filter | None,
    ) -> tuple[list[SearchResult], list[Document]]:
        """The k best documents for a query, given by vectors, [H] or [T, H], and text, best first.

        Raises:
            ServingError: The store does not answer.
        """

        def find() -> tuple[list[SearchResult], list[Document]]:
            given = vector
            if given is not None:
                given = as_query(for_dot_product(given[None], self.similarity)[0], self.similarity)
            weight = self.bm25_weight
            found = search(self.table, given, text, k, mode=mode, where=where, bm25_weight=weight)
            documents = self.table.documents([each.id for each in found])
            # One may have been deleted in between.
            found = [each for each in found if each.id in documents]
            return found, [documents[each.id] for each in found]

        return self._call(find)

    def read(self, ids: Sequence[str]) -> dict[str, Document]:
        """Those documents that are there."""
        return self._call(lambda: self.table.documents(_valid_ids(ids)))

    def write(self, documents: Sequence[Document], vectors: np.ndarray) -> None:
        """Insert documents with their embeddings, [N, H] or [T, H] of each, or replace them.

        Raises:
            ServingError: The store does not answer, or cannot hold one of them.
        """
        self._check_live()
        given = for_dot_product(vectors, self.similarity)
        try:
            self._call(lambda: self.table.upsert(documents, given))
        except ValueError as error:
            raise wrong_field("documents", str(error).removeprefix("store: ")) from None
        self._check_live()

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete documents; return which of them were there."""
        self._check_live()

        def remove() -> list[str]:
            there = list(self.table.digests(_valid_ids(ids)))
            self.table.delete(there)
            return there

        deleted = self._call(remove)
        self._check_live()
        return deleted

    def count(self) -> int:
        """How many documents there are."""
        return self._call(self.table.count)

    def _check_live(self) -> None:
        """What is written into a table that is closed, or no longer live, would be lost.

        Asked before and after: a migration looks for what was written until it closed the table.
        """
        about = self._call(self.store.catalog).get(self.collection, {})
        if about.get("table") != self.table_name or about.get("closed"):
            raise ServingError(
                "collection_moved",
                f"the collection {self.collection!r} is being, or has been, migrated to another "
                "model; write to a server of that model",
            )

    def _call(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except Exception as error:
            # A table that was pruned after a migration fails in as many ways as there are stores,
            # and so does an object store that is away.
            tables = None if isinstance(error, StoreUnavailable) else self._tables()
            if tables is None:
                logger.error("%s", error)
                raise ServingError(
                    "store_unavailable", "the document store does not answer", retry_after=RETRY
                ) from None
            if self.table_name in tables:
                raise
            raise ServingError(
                "collection_moved",
                f"the vectors of this server's model were deleted from {self.collection!r}; "
                "restart it with the collection's model",
            ) from None

    def _tables(self) -> list[str] | None:
        """What is in the store; None: it does not answer."""
        try:
            return self.store.tables()
        except Exception:
            return None


def _valid_ids(ids: Sequence[str]) -> list[str]:
    """The ids that a document can have: no database stores a NUL, and some fail on it."""
    return [each for each in ids if "\0" not in each]
