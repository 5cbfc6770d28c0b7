"""A table of PostgreSQL with pgvector."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector, Vector
from psycopg import Connection, errors
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from loaders.parsing.fields import show
from stores.databases.postgres_words import (
    allow_memory,
    lock_key,
    recount,
    search_words,
    sql_of,
    tsvector,
    words_of,
)
from stores.filters import SIGNS, AnyOf, Compared, Filter
from stores.store import Document, Hit, Layout, Table, Vectors

logger = logging.getLogger(__name__)

# Dimensions that a row holds on its page, and an HNSW index takes, by type.
MOST_DIMENSIONS = {"float32": 2000, "float16": 4000}
INDEX_FROM = 20_000  # documents; an exact search of fewer takes some ten milliseconds
CANDIDATES = 20  # times k: found by binary vectors, and ordered by the vectors
# Neighbours that a search of the HNSW index keeps; those that pass a filter lie farther away.
SEARCHED, SEARCHED_FILTERED = 200, 400
WORDS_MEMORY = 2**30  # bytes for building an index of words
NEIGHBOURS_BYTES = 1000  # of a vector in an HNSW graph, beside the vector itself

Connecting = Callable[[], AbstractContextManager[Connection[TupleRow]]]


class PostgresTable(Table):
    """A table of documents, and one of their words.

    Args:
        connection: Opens a transaction.
        name: Its own.
        layout: Of its vectors.
    """

    def __init__(self, connection: Connecting, name: str, layout: Layout) -> None:
        self.connection = connection
        self.name = name
        self.layout = layout
        self.number = "halfvec" if layout.dtype == "float16" else "vector"

    def create(self) -> None:
        """Create the tables unless they are there."""
        with self.connection() as connection:
            connection.execute(
                sql_of(
                    f"CREATE TABLE IF NOT EXISTS {{}} (id text PRIMARY KEY, digest text NOT NULL, "
                    "source text NOT NULL, text text NOT NULL, metadata jsonb NOT NULL, "
                    "words tsvector NOT NULL, length int NOT NULL, "
                    f"vector {self.number}({self.layout.dimensions}) NOT NULL)",
                    self.name,
                )
            )
            # Vectors are read in a search of all: not out of line, and not compressed.
            connection.execute(sql_of("ALTER TABLE {} ALTER vector SET STORAGE PLAIN", self.name))
            # The word '' counts the documents, and their words.
            connection.execute(
                sql_of(
                    "CREATE TABLE IF NOT EXISTS {} (word text PRIMARY KEY, documents bigint NOT "
                    "NULL, length bigint NOT NULL)",
                    words_of(self.name),
                )
            )

    def count(self) -> int:
        with self.connection() as connection:
            found = connection.execute(sql_of("SELECT count(*) FROM {}", self.name)).fetchone()
        assert found is not None
        return int(found[0])

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        return dict(self._rows("id, digest", ids))

    def ids(self, size: int) -> Iterator[list[tuple[str, str, str]]]:
        last = ""
        query = "SELECT id, source, digest FROM {} WHERE id > %s ORDER BY id LIMIT %s"
        while True:
            with self.connection() as connection:
                rows = connection.execute(sql_of(query, self.name), [last, size]).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [(identity, source, digest) for identity, source, digest in rows]

    def documents(self, ids: Sequence[str]) -> dict[str, Document]:
        rows = self._rows("id, text, metadata, source", ids)
        return {row[0]: Document(*row) for row in rows}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vectors]:
        rows = self._rows("id, vector", ids)
        return {
            identity: np.asarray(vector.to_numpy(), dtype=np.float32) for identity, vector in rows
        }

    def upsert(self, documents: Sequence[Document], vectors: Vectors | Sequence[Vectors]) -> None:
        columns = "id, digest, source, text, metadata, words, length, vector"
        kind = HalfVector if self.layout.dtype == "float16" else Vector
        with self._writing() as connection:
            connection.execute(
                sql_of("CREATE TEMP TABLE staged (LIKE {}) ON COMMIT DROP", self.name)
            )
            copied = "COPY staged (id, digest, source, text, metadata, words_, length, vector)"
            connection.execute("ALTER TABLE staged ADD words_ text, ALTER words DROP NOT NULL")
            with connection.cursor().copy(f"{copied} FROM STDIN (FORMAT BINARY)") as copy:
                texts = ["text"] * 4
                copy.set_types([*texts, "jsonb", "text", "int4", self.number])
                for each, vector in zip(documents, vectors, strict=True):
                    row = (each.id, each.digest, each.source, each.text, Jsonb(each.metadata))
                    copy.write_row((*row, tsvector(each.words), len(each.words), kind(vector)))
            try:
                connection.execute("UPDATE staged SET words = words_::tsvector")
            except errors.ProgramLimitExceeded:
                longest = max(documents, key=lambda each: len(set(each.words)))
                raise ValueError(
                    f"store: the document {show(longest.id)} has too many different words "
                    f"({len(set(longest.words)):,}) for PostgreSQL; split it"
                ) from None
            recount(connection, self.name, -1, self.name)
            updates = ", ".join(f"{name} = excluded.{name}" for name in columns.split(", ")[1:])
            connection.execute(
                sql_of(
                    f"INSERT INTO {{}} ({columns}) SELECT {columns} FROM staged ON CONFLICT (id) "
                    f"DO UPDATE SET {updates}",
                    self.name,
                )
            )
            recount(connection, self.name, 1, "staged")

    def delete(self, ids: Sequence[str], digests: Sequence[str] | None = None) -> None:
        with self._writing() as connection:
            connection.execute("CREATE TEMP TABLE staged (id text PRIMARY KEY) ON COMMIT DROP")
            query = (
                "INSERT INTO staged SELECT DISTINCT id FROM {} AS there JOIN unnest(%s::text[], "
                "%s::text[]) AS given (id, digest) USING (id) "
                "WHERE given.digest IS NULL OR given.digest = there.digest"
            )
            connection.execute(sql_of(query, self.name), [list(ids), list(digests or ())])
            recount(connection, self.name, -1, self.name)
            connection.execute(
                sql_of("DELETE FROM {} WHERE id IN (SELECT id FROM staged)", self.name)
            )

    def build_index(self) -> None:
        with self.connection() as connection:
            allow_memory(connection, WORDS_MEMORY)
            connection.execute(sql_of("CREATE INDEX IF NOT EXISTS {1} ON {0} USING gin (words)",
                                    self.name, f"{self.name}_words"))  # fmt: skip
            connection.execute(
                sql_of("CREATE INDEX IF NOT EXISTS {1} ON {0} USING gin (metadata jsonb_path_ops)",
                     self.name, f"{self.name}_meta")
            )  # fmt: skip
        if (count := self.count()) >= INDEX_FROM:
            self._index_vectors(count)
        with self.connection() as connection:
            connection.execute(sql_of("ANALYZE {}", self.name))

    def _index_vectors(self, count: int) -> None:
        operators, what = f"{self.number}_ip_ops", "vector"
        bytes_each = self.layout.dimensions * np.dtype(self.layout.dtype).itemsize
        if self.layout.quantization == "binary":
            operators, what = "bit_hamming_ops", f"({self._binary})"
            bytes_each = self.layout.dimensions // 8
        query = sql_of(
            f"CREATE INDEX IF NOT EXISTS {{1}} ON {{0}} USING hnsw ({what} {operators})",
            self.name, f"{self.name}_hnsw",
        )  # fmt: skip
        with self.connection() as connection:
            wanted = count * (bytes_each + NEIGHBOURS_BYTES)
            if (allowed := allow_memory(connection, wanted)) < wanted:
                logger.warning(
                    "the HNSW index of %s takes about %d MB while it is built, and the server's "
                    "effective_cache_size allows %d MB: it is built much more slowly; raise it to "
                    "what the server's machine has", self.name, wanted >> 20, allowed >> 20,
                )  # fmt: skip
            try:
                with connection.transaction():
                    connection.execute(query)
            except errors.DiskFull:  # of shared memory, of which a container has little
                connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
                connection.execute(query)

    @property
    def _binary(self) -> str:
        width = self.layout.dimensions
        return f"binary_quantize(vector)::bit({width})"

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        with self.connection() as connection:
            hits = self._search(connection, vector, k, conditions(where, ids), exact)
            # The index gives up where those that pass a filter are far from the query.
            if where and not exact and len(hits) < k:
                hits = self._search(connection, vector, k, conditions(where, ids), exact=True)
        return hits

    def _search(
        self,
        connection: Connection[TupleRow],
        vector: NDArray[np.float32],
        k: int,
        of: tuple[str, list[Any]],
        exact: bool,
    ) -> list[Hit]:
        condition, given = of
        searched = max(SEARCHED_FILTERED if condition else SEARCHED, k)
        asked = (HalfVector if self.layout.dtype == "float16" else Vector)(vector)
        if exact:
            connection.execute("SET LOCAL enable_indexscan = off")
        elif self.layout.quantization == "binary" and self._is_indexed(connection):
            # The index finds candidates, and their vectors order them.
            nearest = f"{self._binary} <~> binary_quantize(%s)::bit({self.layout.dimensions})"
            condition += f" ORDER BY {nearest} LIMIT %s"
            given += [asked, CANDIDATES * k]
            searched = max(searched, CANDIDATES * k)
        # More are looked at until enough have passed the filter.
        connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
        connection.execute(f"SET LOCAL hnsw.ef_search = {min(1000, searched)}")
        query = (
            f"SELECT id, -(vector <#> %s) FROM (SELECT id, vector FROM {{}} {condition}) AS of "
            "ORDER BY vector <#> %s, id LIMIT %s"
        )
        rows = connection.execute(sql_of(query, self.name), [asked, *given, asked, k]).fetchall()
        return [Hit(*row) for row in rows]

    def _is_indexed(self, connection: Connection[TupleRow]) -> bool:
        found = connection.execute("SELECT to_regclass(%s)", [f'"{self.name}_hnsw"']).fetchone()
        return found is not None and found[0] is not None

    def search_words(
        self,
        words: Sequence[str],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        condition, given = conditions(where, ids, "words @@ %s::tsquery")
        with self.connection() as connection:
            return search_words(connection, self.name, words, k, condition, given)

    @contextmanager
    def _writing(self) -> Iterator[Connection[TupleRow]]:
        """A transaction; those of several writers follow one another."""
        with self.connection() as connection:
            key = [lock_key(f"write {self.name}")]
            connection.execute("SELECT pg_advisory_xact_lock(%s)", key)
            yield connection

    def _rows(self, columns: str, ids: Sequence[str]) -> list[TupleRow]:
        query = f"SELECT {columns} FROM {{}} WHERE id = ANY(%s)"
        with self.connection() as connection:
            return connection.execute(sql_of(query, self.name), [list(ids)]).fetchall()


def conditions(
    where: Filter | None, ids: Sequence[str] | None, *first: str
) -> tuple[str, list[Any]]:
    """A WHERE clause and its parameters, those of ``first`` excepted."""
    parts, values = list(first), list[Any]()
    for condition in where or ():
        path = _json_condition(condition)
        negated = isinstance(condition, AnyOf) and condition.negated
        parts.append(f"{'NOT ' if negated else ''}metadata @? %s::jsonpath")
        values.append(path)
    if ids is not None:
        parts.append("id = ANY(%s)")
        values.append(list(ids))
    return ("WHERE " + " AND ".join(parts) if parts else ""), values


def _json_condition(condition: AnyOf | Compared) -> str:
    if isinstance(condition, Compared):
        test = f"@ {SIGNS[condition.by]} {json.dumps(condition.value)}"
    else:
        values = (json.dumps(value, ensure_ascii=False) for value in condition.values)
        test = " || ".join(f"@ == {value}" for value in values)
    path = "$" + "".join(f'."{step}"' for step in condition.path)
    return f"{path} ? ({test})"
