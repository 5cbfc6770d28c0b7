"""LanceDB: tables in a folder or an object store, opened in this process; nothing to start."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from lancedb.index import FTS, BTree, IvfRq
from numpy.typing import NDArray

from stores.databases.lance_sql import sortable, sql, sql_in
from stores.filters import Filter
from stores.store import Document, Hit, Layout, Store, StoreUnavailable, Table, Vectors

logger = logging.getLogger(__name__)

CATALOG = "tandem_collections"
INDEX_FROM = 50_000  # documents; an exact search of fewer takes some ten milliseconds
# Of each dimension in the copies that the index (RaBitQ) searches, and how many times k documents
# found by them are ordered by their vectors, k being at least FEWEST.
_BITS_AND_CANDIDATES = {"none": (4, 4), "int8": (8, 2), "binary": (1, 20)}
FEWEST = 10
BEFORE_FILTER = 20  # times k: the best documents, of which those that pass a filter may be enough
# Trying a filter on so many documents takes as long as reading a vector.
FILTERED_PER_READ = 30
TRIES = 10  # of an index, while others write
# Every read sees what any process has written.
_CONSISTENT = timedelta(0)


class LanceStore(Store):
    """A folder of tables.

    Args:
        url: The folder, or that in an object store.
    """

    def __init__(self, url: str) -> None:
        self.folder = None if "://" in url else Path(url).expanduser()
        self.database = lancedb.connect(self.folder or url, read_consistency_interval=_CONSISTENT)

    def catalog(self) -> dict[str, dict[str, Any]]:
        if CATALOG not in self.tables():
            return {}
        rows = self.database.open_table(CATALOG).to_arrow().to_pylist()
        return {row["name"]: json.loads(row["about"]) for row in rows}

    def publish(self, collection: str, about: dict[str, Any]) -> None:
        schema = pa.schema([_key("name"), ("about", pa.string())])
        table = self.database.create_table(CATALOG, schema=schema, exist_ok=True)
        row = {"name": collection, "about": json.dumps(about, ensure_ascii=False)}
        _upsert(table, pa.Table.from_pylist([row], schema))

    def tables(self) -> list[str]:
        found: list[str] = []
        page: Any = None
        while page is None or page.page_token:
            page = self.database.list_tables(page_token=page.page_token if page else None)
            found += page.tables
        return found

    def open(self, table: str, layout: Layout, create: bool = False) -> "LanceTable":
        layout.check_one_vector("LanceDB")
        if create and table not in self.tables():
            self.database.create_table(table, schema=_schema(layout))
        return LanceTable(self.database.open_table(table), layout)

    def drop(self, table: str) -> None:
        if table in self.tables():
            self.database.drop_table(table)

    @contextmanager
    def lock(self, collection: str) -> Iterator[None]:
        if self.folder is None:  # commits of several writers exclude each other all the same
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / f"{collection}.lock", timeout=0):
                yield
        except Timeout:
            raise ValueError(
                f"store: another process is indexing the collection {collection!r}; wait for it"
            ) from None

    def close(self) -> None:
        pass


class LanceTable(Table):
    """A table of LanceDB.

    Args:
        table: The opened table.
        layout: Of its vectors.
    """

    def __init__(self, table: Any, layout: Layout) -> None:
        self.table = table
        self.layout = layout

    def count(self) -> int:
        return int(self.table.count_rows())

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        rows = self._rows(ids, ["id", "digest"])
        return dict(zip(rows["id"].to_pylist(), rows["digest"].to_pylist(), strict=True))

    def ids(self, size: int) -> Iterator[list[tuple[str, str, str]]]:
        for batch in self.table.search().select(["id", "source", "digest"]).to_batches(size):
            yield list(zip(*batch.to_pydict().values(), strict=True))

    def documents(self, ids: Sequence[str]) -> dict[str, Document]:
        rows = self._rows(ids, ["id", "text", "fields", "source"]).to_pylist()
        return {
            row["id"]: Document(row["id"], row["text"], json.loads(row["fields"]), row["source"])
            for row in rows
        }

    def vectors(self, ids: Sequence[str]) -> dict[str, Vectors]:
        rows = self._rows(ids, ["id", "vector"])
        flat = rows["vector"].combine_chunks().flatten().to_numpy().astype(np.float32)
        vectors = flat.reshape(-1, self.layout.dimensions)
        return dict(zip(rows["id"].to_pylist(), vectors, strict=True))

    def upsert(self, documents: Sequence[Document], vectors: Vectors | Sequence[Vectors]) -> None:
        fields = [json.dumps(each.metadata, ensure_ascii=False) for each in documents]
        metadata = [json.dumps(sortable(each.metadata), ensure_ascii=False) for each in documents]
        numbers = pa.array(np.asarray(vectors, dtype=self.layout.dtype).ravel())
        columns = {
            "id": pa.array([each.id for each in documents], pa.string()),
            "digest": [each.digest for each in documents],
            "source": [each.source for each in documents],
            "text": [each.text for each in documents],
            "words": [" ".join(each.words) for each in documents],
            "fields": fields,
            "metadata": pa.array(metadata, pa.json_(pa.utf8())),
            "vector": pa.FixedSizeListArray.from_arrays(numbers, self.layout.dimensions),
        }
        _upsert(self.table, pa.table(columns))

    def delete(self, ids: Sequence[str], digests: Sequence[str] | None = None) -> None:
        still = "" if digests is None else f" AND {sql_in(digests, 'digest')}"
        if ids:
            with _concurrent_write():
                self.table.delete(sql_in(ids) + still)

    def build_index(self) -> None:
        for _ in range(TRIES):
            with suppress(StoreUnavailable), _concurrent_write():  # what a client wrote goes first
                self._build_index()
                return
        raise ValueError(
            "store: clients write so often that LanceDB could not bring its indexes up to date; "
            "all documents are written: run this again when clients write less"
        )

    def _build_index(self) -> None:
        table = self.table
        there = {column for index in table.list_indices() for column in index.columns}
        if "id" not in there:
            table.create_index("id", config=BTree())
        if "words" not in there:
            # The words are there as they are to be found.
            words = FTS(
                base_tokenizer="whitespace",
                lower_case=False,
                stem=False,
                remove_stop_words=False,
                ascii_folding=False,
                max_token_length=None,
                with_position=False,
            )
            table.create_index("words", config=words)
        if "vector" not in there and self.count() >= INDEX_FROM:
            bits, _ = _BITS_AND_CANDIDATES[self.layout.quantization]
            table.create_index("vector", config=IvfRq(distance_type="dot", num_bits=bits))
        table.optimize(cleanup_older_than=timedelta(hours=1))

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        query = self.table.search(vector, vector_column_name="vector").distance_type("dot")
        _, candidates = _BITS_AND_CANDIDATES[self.layout.quantization]
        # 0: all partitions are searched.
        query = query.bypass_vector_index() if exact else query.maximum_nprobes(0)
        # Of LanceDB the distance is 1 - the product.
        return [
            Hit(name, 1 - distance)
            for name, distance in self._found(
                query, k, where, ids, "_distance", 0 if exact else candidates
            )
        ]

    def search_words(
        self,
        words: Sequence[str],
        k: int,
        where: Filter | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        if not words:
            return []
        query = self.table.search(" ".join(words), query_type="fts", fts_columns="words")
        return [Hit(*pair) for pair in self._found(query, k, where, ids, "_score")]

    def _rows(self, ids: Sequence[str], columns: list[str]) -> pa.Table:
        query = self.table.search().where(sql_in(ids)).limit(max(1, len(ids)))
        return query.select(columns).to_arrow()

    def _found(
        self,
        query: Any,
        k: int,
        where: Filter | None,
        ids: Sequence[str] | None,
        by: str,
        candidates: int = 0,
    ) -> list[tuple[str, float]]:
        """The ids of the k first documents, and what they are ordered by; ties by id."""
        query, rows = query.select(["id", by]), list[dict[str, Any]]()

        def best(count: int) -> list[dict[str, Any]]:
            factor = -(-candidates * max(count, FEWEST) // count)
            found: list[dict[str, Any]] = (
                (query.refine_factor(factor) if candidates else query).limit(count).to_list()
            )
            return found

        def settled() -> bool:
            """Whether all documents as good as the k-th are found."""
            return len(rows) > k and bool(rows[-1][by] != rows[k - 1][by])

        if ids is not None:
            query = query.where(sql_in(ids), prefilter=True)
        if where:
            first = BEFORE_FILTER * k
            wide = ids is None and self.count() > first * max(1, candidates) * FILTERED_PER_READ
            query = query.where(" AND ".join(map(sql, where)), prefilter=not wide)
            if wide:
                rows = best(first)
                query = query.where("true", prefilter=True)
        count = k + 1
        while not settled():
            rows = best(count)
            if len(rows) < count:
                break
            count *= 4
        sign = 1 if by == "_distance" else -1
        rows.sort(key=lambda row: (sign * row[by], row["id"]))
        return [(row["id"], row[by]) for row in rows[:k]]


def _schema(layout: Layout) -> pa.Schema:
    number = pa.float16() if layout.dtype == "float16" else pa.float32()
    texts = [(name, pa.string()) for name in ("digest", "source", "text", "words", "fields")]
    vector = pa.list_(number, layout.dimensions)
    # "fields" are the metadata as they were given; "metadata" can be filtered by.
    return pa.schema([_key("id"), *texts, ("metadata", pa.json_()), ("vector", vector)])


def _key(name: str) -> pa.Field:
    """The column of an upsert: of two concurrent ones with the same key, one is tried again."""
    return pa.field(name, pa.string(), False, {"lance-schema:unenforced-primary-key": "true"})


@contextmanager
def _concurrent_write() -> Iterator[None]:
    """Write while others may write too; LanceDB retries a commit that conflicts with theirs.

    Raises:
        StoreUnavailable: It conflicted again and again.
    """
    try:
        yield
    except RuntimeError as error:
        if "commit conflict" not in str(error) and "concurrent writers" not in str(error):
            raise
        raise StoreUnavailable("store: too many write into LanceDB at once; try again") from None


def _upsert(table: Any, rows: pa.Table) -> None:
    """Insert rows, or replace those of the same key, the first column."""
    key = _key(rows.column_names[0])
    merge = table.merge_insert(key.name).when_matched_update_all().when_not_matched_insert_all()
    # Looked up by an index, keys that another process is inserting too would be there twice.
    with _concurrent_write():
        merge.use_index(False).execute(rows.set_column(0, key, rows.column(0)))
