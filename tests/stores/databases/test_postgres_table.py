"""PostgreSQL's index of vectors: that it is built, and with what memory; long searches by words."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from common.bm25 import BM25, best_hits, tokenize
from stores import Document, open_store
from stores.databases import postgres_table, postgres_words
from stores.databases.postgres import PostgresStore
from stores.databases.postgres_words import allow_memory
from stores.filters import parse_filter
from stores.store import Dtype, Layout, StoreUnavailable, Table

ROWS, H = 2000, 32


@pytest.fixture
def server(request: pytest.FixtureRequest, new_url: Any) -> Iterator[str]:
    """The URL of an empty schema; what is set for its database is taken back."""
    url = new_url("postgresql")
    yield url
    with psycopg.connect(request.getfixturevalue("postgres"), autocommit=True) as connection:
        connection.execute("ALTER DATABASE postgres RESET ALL")


def setting(server: str, **values: str) -> PostgresStore:
    """A store on a server that is set so."""
    with psycopg.connect(server, autocommit=True) as connection:
        for name, value in values.items():
            connection.execute(f"ALTER DATABASE postgres SET {name} = '{value}'")
    store = open_store(server)
    assert isinstance(store, PostgresStore)
    return store


def filled(store: PostgresStore) -> tuple[Table, Any]:
    vectors = np.random.default_rng(0).standard_normal((ROWS, H)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = store.open("t", Layout(H), create=True)
    table.upsert([Document(str(at), "w", {"number": at}) for at in range(ROWS)], vectors)
    return table, vectors


@pytest.mark.parametrize("memory", ["64MB", "1000GB"])  # 1000GB: more than there is to be shared
def test_the_index_is_built(server: str, monkeypatch: pytest.MonkeyPatch, memory: str) -> None:
    monkeypatch.setattr(postgres_table, "INDEX_FROM", 1000)
    # A table so small is searched by its index, and indexed by several processes, if nothing else
    # is allowed.
    store = setting(
        server,
        maintenance_work_mem=memory,
        min_parallel_table_scan_size="0",
        enable_seqscan="off",
    )
    table, vectors = filled(store)
    table.build_index()
    with store.connection() as connection:
        found = connection.execute("SELECT to_regclass('t_hnsw')::text").fetchone()
    assert found == ("t_hnsw",)
    for query in vectors[:12]:
        best = table.search(query, 5, exact=True)
        assert len(dict(table.search(query, 5)).keys() & dict(best).keys()) >= 4
    few = parse_filter({"number": {"gte": ROWS - 7}})
    assert len(table.search(vectors[0], 10, few)) == 7
    store.close()


def test_memory_is_what_the_server_has(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres_table, "INDEX_FROM", 1000)
    store = setting(server, effective_cache_size="2MB", maintenance_work_mem="1MB")
    with store.connection() as connection:
        assert allow_memory(connection, 3 * 2**19) == 3 * 2**19
        assert connection.execute("SHOW maintenance_work_mem").fetchone() == ("1536kB",)
        assert allow_memory(connection, 2**30) == 2 * 2**20
        connection.rollback()
        assert allow_memory(connection, 1000) == 2**20
    with caplog.at_level(logging.WARNING):
        table, _ = filled(store)
        table.build_index()
    assert "takes about 2 MB while it is built, and the server's" in caplog.text
    store.close()


def test_long_queries_are_scored_as_by_bm25_or_ended(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{at}" for at in rng.integers(0, 2000, 300)) for _ in range(200)]
    store = open_store(server)
    table = store.open("t", Layout(2), create=True)
    documents = [Document(f"{at:03}", text) for at, text in enumerate(texts)]
    table.upsert(documents, np.ones((200, 2), np.float32))
    table.build_index()
    for words in (10, 600):
        query = " ".join(f"w{at}" for at in rng.integers(0, 2000, words))
        [scores] = BM25(texts).scores([query])
        hits = table.search_words(tokenize(query), 10)
        assert [int(hit.id) for hit in hits] == [at for at, _ in best_hits(scores, 10)]
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores)[:-11:-1], rel=1e-4)
    monkeypatch.setattr(postgres_words, "LONGEST_SEARCH", 0.001)
    with pytest.raises(StoreUnavailable, match=r"no answer to a query of \d+ words in 0.001 sec"):
        table.search_words(tokenize(query), 10)
    assert table.count() == 200
    store.close()


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2000), ("float16", 4000)])
def test_vectors_that_fit_no_page_are_refused(server: str, dtype: Dtype, most: int) -> None:
    store = open_store(server)
    table = store.open("t", Layout(most, dtype), create=True)
    table.upsert([Document("中" * 512, "word " * 1000)], np.ones((1, most), np.float32))
    message = (
        rf"dimensions: pgvector holds up to {most:,} of {dtype}, and the model has {most + 1:,}"
    )
    with pytest.raises(ValueError, match=message):
        store.open("more", Layout(most + 1, dtype), create=True)
    assert "more" not in store.tables()
    store.close()


def test_an_error_without_words_has_its_name(server: str) -> None:
    store = setting(server)
    with pytest.raises(StoreUnavailable, match="store: OperationalError"), store.connection():
        raise psycopg.OperationalError
    store.close()


def test_a_user_who_may_only_read_can_search(server: str) -> None:
    """And a host that is gone is noticed, unless the URL has settings of its own."""
    store = open_store(server)
    assert isinstance(store, PostgresStore)
    _, vectors = filled(store)
    store.publish("docs", {"table": "t"})
    with psycopg.connect(server, autocommit=True) as connection:
        schema = connection.execute("SELECT current_schema()").fetchone()
        assert schema is not None
        connection.execute(
            f"CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA {schema[0]} TO reader; "
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema[0]} TO reader"
        )
    reads = make_conninfo(server, user="reader", tcp_user_timeout=5000)
    try:
        reader = PostgresStore(reads)
        assert reader.catalog() == {"docs": {"table": "t"}}
        found = reader.open("t", Layout(H)).search(vectors[3], 1)
        assert [hit.id for hit in found] == ["3"]
        for opened, timeout in ((store, "30000"), (reader, "5000")):
            with opened.connection() as connection:
                given = connection.info.get_parameters()
            assert (given["tcp_user_timeout"], given["connect_timeout"]) == (timeout, "10")
        reader.close()
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP OWNED BY reader; DROP ROLE reader")
