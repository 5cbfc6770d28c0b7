"""What a vector database does for us: tables of documents with vectors, and which one is live.

A collection is known by its name. Each model that it was indexed with has a table of its own, and
the catalog says which table is live, and what made its vectors.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.bm25 import tokenize
from stores.filters import Filter

# Shapes: N documents, H dimensions of a vector, T tokens of a text.

Vectors = NDArray[np.float32]  # [N, H]; of a text with several [T, H]
Dtype = Literal["float32", "float16"]
Quantization = Literal["none", "int8", "binary"]
# Longer words are not indexed; no query has them.
LONGEST_WORD = 255
# What scripts/index.py reads from files; other documents come from clients.
CORPUS = "corpus"


class StoreUnavailable(ConnectionError):
    """The database cannot be reached, or does not answer."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the error's name if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass(frozen=True)
class Document:
    """A document as it is stored.

    Args:
        id: Unique in its collection.
        text: What was embedded; a title stands before it.
        metadata: What can be filtered by; JSON.
        source: Where it comes from. A source deletes its own documents only.
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str = CORPUS

    @cached_property
    def digest(self) -> str:
        """A digest of the text (32 characters), and one of all else."""
        other = json.dumps([self.metadata, self.source], sort_keys=True, ensure_ascii=False)
        return _digest(self.text) + _digest(other)

    @cached_property
    def words(self) -> list[str]:
        """The words that BM25 finds it by."""
        return [word for word in tokenize(self.text) if len(word) <= LONGEST_WORD]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Hit(NamedTuple):
    """A document that was found, with its similarity or BM25's score."""

    id: str
    score: float


@dataclass(frozen=True)
class Layout:
    """How a table keeps vectors.

    Args:
        dimensions: H.
        dtype: Of the vectors.
        quantization: Of the copies that an index searches. The best of them are ordered by the
            vectors themselves.
        multi_vector: Whether a text has a vector of each of its tokens [T, H], and not one [H].
    """

    dimensions: int
    dtype: Dtype = "float32"
    quantization: Quantization = "none"
    multi_vector: bool = False

    def check_one_vector(self, database: str) -> None:
        """Refuse several vectors of a document in a database that keeps one.

        Raises:
            ValueError: The layout has several.
        """
        if self.multi_vector:
            raise ValueError(
                f"store: {database} keeps one vector of a document here, and the model makes one "
                "of each token; give a Qdrant store (qdrant+http://host:6333 or qdrant:folder)"
            )


class Table(ABC):
    """Documents with the vectors of one model. Threads may share it.

    Vectors are compared by their dot product, several of a text by MaxSim: the sum, over the
    query's vectors, of the greatest dot product with one of the document's. ``where`` restricts a
    search to documents that pass a filter, ``ids`` to those named.
    """

    @abstractmethod
    def count(self) -> int:
        """How many documents there are."""

    @abstractmethod
    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """The digests of those documents that are there."""

    @abstractmethod
    def ids(self, size: int) -> Iterator[list[tuple[str, str, str]]]:
        """All documents, in blocks of up to ``size``: their ids, sources and digests."""

    @abstractmethod
    def documents(self, ids: Sequence[str]) -> dict[str, Document]:
        """Those documents that are there."""

    @abstractmethod
    def vectors(self, ids: Sequence[str]) -> dict[str, Vectors]:
        """The vectors, [H] or [T, H], of those documents that are there."""

    @abstractmethod
    def upsert(self, documents: Sequence[Document], vectors: Vectors | Sequence[Vectors]) -> None:
        """Insert N documents with their vectors, or replace those of the same ids.

        ``vectors``: [N, H], or [T, H] of each document.

        After a kill all of them are there, or any of them are as they were.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str], digests: Sequence[str] | None = None) -> None:
        """Delete documents; those that are not there do not matter.

        ``digests``: of each; what was written anew in the meantime is left.
        """

    @abstractmethod
    def build_index(self) -> None:
        """Build the indexes, or bring them up to date. Searches are right without, and slower."""

    @abstractmethod
    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The k documents most similar to a query, [H] or [T, H], best first.

        ``exact``: without an index.
        """

    @abstractmethod
    def search_words(
        self,
        words: Sequence[str],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The k documents with the highest BM25 scores for the words of a query, best first."""


class Store(ABC):
    """A database, by its URL."""

    @abstractmethod
    def catalog(self) -> dict[str, dict[str, Any]]:
        """What ``publish`` was given, by collection."""

    @abstractmethod
    def publish(self, collection: str, about: dict[str, Any]) -> None:
        """Say anew, in one step, which table of a collection is live, and what it holds (JSON)."""

    @abstractmethod
    def tables(self) -> list[str]:
        """The names of all tables, those of others too."""

    @abstractmethod
    def open(self, table: str, layout: Layout, create: bool = False) -> Table:
        """Open a table; ``create``: make it unless it is there."""

    @abstractmethod
    def drop(self, table: str) -> None:
        """Delete a table."""

    @abstractmethod
    def lock(self, collection: str) -> AbstractContextManager[None]:
        """Keep other indexers of a collection away.

        Raises:
            ValueError: There is one.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""
