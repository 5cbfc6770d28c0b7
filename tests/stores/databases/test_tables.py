"""Every store does the same: write, read, search, filter, delete."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from common.bm25 import BM25, best_hits, tokenize
from stores import Document, Store, Table, open_store
from stores.documents import DEEPEST
from stores.filters import parse_filter
from stores.store import Layout, StoreUnavailable

H = 16
TEXTS = [
    "read a csv file with pandas",
    "write the csv file, and read it again: csv",
    "用 pandas 读取 csv 文件",
    "数据 检索 模型",
    "a cat sat on the mat",
    "Full-width ＣＳＶ letters",
    "the the the the the the the a a a",
]


def unit(count: int, seed: int = 0) -> Any:
    vectors = np.random.default_rng(seed).standard_normal((count, H)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def table(store: Store) -> Table:
    return store.open("t", Layout(H), create=True)


@pytest.fixture
def texts(table: Table) -> Table:
    documents = [Document(f"d{at}", text) for at, text in enumerate(TEXTS)]
    table.upsert(documents, unit(len(TEXTS)))
    table.build_index()
    return table


def test_written_is_read(table: Table) -> None:
    odd = {
        "title": 'it\'s "odd" \\ {} %s', "中文": "值", "n": {"deep": [1, 2.5, None, True]},
        "big": 2**60, "half": 0.1, "none": None, "empty": [],
    }  # fmt: skip
    documents = [
        Document("a'b\"c%s{}", "it's a text; DROP TABLE t; -- %s {} \\", odd, "api"),
        Document("文档", "两\n行\ttext 😀", {}),
        Document("3", "x" * 100_000, {"year": 1}),
        Document("deep", "x", {"m": json.loads("[" * DEEPEST + "]" * DEEPEST)}),
    ]
    vectors = unit(4)
    table.upsert(documents, vectors)
    names = [each.id for each in documents]
    assert table.documents([*names, "absent"]) == {each.id: each for each in documents}
    assert table.digests([*names, "absent"]) == {each.id: each.digest for each in documents}
    found = table.vectors(names)
    assert {name: found[name].tolist() for name in names} == dict(
        zip(names, vectors.tolist(), strict=True)
    )
    assert table.count() == 4
    blocks = list(table.ids(2))
    assert all(1 <= len(block) <= 2 for block in blocks)
    assert sorted(pair for block in blocks for pair in block) == sorted(
        (each.id, each.source, each.digest) for each in documents
    )


def test_replaced_and_deleted(texts: Table) -> None:
    new = Document("d0", "something else entirely", {"v": 2})
    texts.upsert([new], unit(1, seed=5))
    assert texts.count() == len(TEXTS)
    assert texts.documents(["d0"]) == {"d0": new}
    assert "d0" not in {hit.id for hit in texts.search_words(["pandas"], 10)}
    assert [hit.id for hit in texts.search_words(["entirely"], 10)] == ["d0"]
    texts.delete(["d0", "absent", "d3"])
    assert texts.count() == len(TEXTS) - 2
    assert texts.documents(["d0", "d3"]) == {}
    assert {hit.id for hit in texts.search(unit(1)[0], 100)} == {
        f"d{at}" for at in range(len(TEXTS)) if at not in (0, 3)
    }
    kept = texts.digests(["d1", "d2"])
    texts.delete(["d1", "d2"], [kept["d1"], kept["d1"]])
    assert texts.digests(["d1", "d2"]) == {"d2": kept["d2"]}
    texts.upsert([Document("d1", "again")], unit(1))
    texts.delete([])
    texts.upsert([], np.empty((0, H), np.float32))
    assert texts.count() == len(TEXTS) - 2


def test_finds_the_most_similar(table: Table) -> None:
    vectors = unit(300)
    table.upsert([Document(f"{at}", f"text {at}") for at in range(300)], vectors)
    table.build_index()
    for query in unit(5, seed=1):
        scores = vectors @ query
        best = np.argsort(-scores)[:20]
        for exact in (False, True):
            hits = table.search(query, 20, exact=exact)
            assert [hit.id for hit in hits] == [str(at) for at in best]
            assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=1e-6)
        some = [str(at) for at in best[5:10]]
        assert [hit.id for hit in table.search(query, 3, ids=some)] == some[:3]
        assert table.search(query, 3, ids=[]) == []


@pytest.mark.parametrize(
    "query",
    ["csv", "read csv file", "pandas 读取", "the a cat", "a a the", "no", "", "no csv", "it's"],
)
def test_words_are_scored_as_by_bm25(texts: Table, query: str) -> None:
    [scores] = BM25(TEXTS).scores([query])
    wanted = {f"d{at}": score for at, score in best_hits(scores, len(TEXTS))}
    hits = texts.search_words(tokenize(query), len(TEXTS))
    assert {hit.id for hit in hits} == set(wanted)
    if "Qdrant" in type(texts).__name__ or "Postgres" in type(texts).__name__:
        assert [hit.score for hit in hits] == pytest.approx(
            sorted(wanted.values(), reverse=True), rel=1e-4
        )
    order = [wanted[hit.id] for hit in hits]
    assert order == sorted(order, reverse=True)
    assert texts.search_words(tokenize(query), 2) == hits[:2]


def test_pages_of_equal_documents_are_of_the_same_order(table: Table) -> None:
    texts = [f"word {at}" if at % 2 else "word" for at in range(400)]
    documents = [Document(str(at), text) for at, text in enumerate(texts)]
    table.upsert(documents, np.repeat(unit(200), 2, axis=0))
    table.build_index()
    query = unit(1, seed=1)[0]
    whole, by_words = table.search(query, 400), table.search_words(["word"], 400)
    assert len({hit.id for hit in whole}) == len({hit.id for hit in by_words}) == 400
    for k in (1, 5, 50, 123, 301):
        assert table.search(query, k) == whole[:k]
        assert table.search_words(["word"], k) == by_words[:k]


METADATA: list[dict[str, Any]] = [
    {"lang": "en", "year": 2001, "f": 1.5, "ok": True, "tags": ["a", "b"],
     "n": {"x": "é中", "y": 3}, "zero": -0.0},
    {"lang": "zh", "year": 2010.5, "tags": "a", "ok": False, "f": -2.5, "zero": 0},
    {"lang": 'q"uo\'te\\', "year": "2001", "tags": [1, 2.5, True]},
    {},
    {"lang": None, "year": [1999, 2020], "f": 1, "ok": 1, "n": "text"},
    {"lang": "", "tags": "line\n\ttab \u2028",
     "n": [{"x": "in a list"}, {"y": 9, "z": [{"q": 1}]}], "in": [["a", ["b"], False], [[1]]]},
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"lang": "en"}, "0"),
        ({"lang": ["en", "zh"]}, "01"),
        ({"lang": "q\"uo'te\\"}, "2"),
        ({"lang": {"not": "en"}}, "12345"),
        ({"lang": {"not": ["en", "zh"]}}, "2345"),
        ({"year": 2001}, "0"),
        ({"year": 2001.0}, "0"),
        ({"year": 2010.5}, "1"),
        ({"year": "2001"}, "2"),
        ({"year": {"gte": 2001}}, "014"),
        ({"year": {"gte": 2001, "lt": 2010}}, "04"),
        ({"f": {"lt": 0}}, "1"),
        ({"f": {"gt": -2.5, "lte": 1.5}}, "04"),
        ({"f": {"gte": 1.25}}, "0"),
        ({"zero": 0}, "01"),
        ({"zero": {"not": -0.0}}, "2345"),
        ({"ok": True}, "0"),
        ({"ok": False}, "1"),
        ({"ok": 1}, "4"),
        ({"tags": "a"}, "01"),
        ({"tags": 2.5}, "2"),
        ({"tags": True}, "2"),
        ({"n.x": "é中"}, "0"),
        ({"n.y": {"gt": 2}}, "05"),
        ({"n.x": ["in a list", 3]}, "5"),
        ({"n.z.q": 1}, "5"),
        ({"in": "a"}, "5"),
        ({"in": False}, "5"),
        ({"in": ["b", 1]}, ""),
        ({"absent": 1}, ""),
        ({"lang": ""}, "5"),
        ({"lang": {"not": ""}}, "01234"),
        ({"tags": "line\n\ttab \u2028"}, "5"),
        ({"tags": ["b", 2.5, True]}, "02"),
        ({"ok": [True, 1, "true"]}, "04"),
        ({"ok": {"not": [True, 1]}}, "1235"),
        ({"ok": {"gte": 0}}, "4"),
        ({"lang": "en", "year": {"lt": 2000}}, ""),
        ({}, "012345"),
    ],
)
def test_filters(table: Table, given: dict[str, Any], wanted: str) -> None:
    documents = [Document(str(at), "word", each) for at, each in enumerate(METADATA)]
    table.upsert(documents, unit(len(METADATA)))
    table.build_index()
    where = parse_filter(given)
    for hits in (table.search(unit(1)[0], 10, where), table.search_words(["word"], 10, where)):
        assert "".join(sorted(hit.id for hit in hits)) == wanted


def test_writers_of_the_same_ids_leave_one_of_each(url: str) -> None:
    store = open_store(url)
    tables = [store.open("t", Layout(H), create=True) for _ in range(3)]
    tables[0].upsert([Document("seed", "word")], unit(1))
    tables[0].build_index()

    def write(number: int) -> None:
        for at in range(6):
            tables[number].upsert([Document(f"d{at}", f"by {number}")], unit(1))

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(3)))
    ids = [identity for block in tables[0].ids(100) for identity, *_ in block]
    assert sorted(ids) == ["d0", "d1", "d2", "d3", "d4", "d5", "seed"]
    store.close()


def test_an_index_that_gives_up_loses_nothing(
    postgres: str, new_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes a filter may be far from the query: pgvector looks at so many tuples only."""
    monkeypatch.setattr("stores.databases.postgres_table.INDEX_FROM", 100)
    settings = ("hnsw.max_scan_tuples=1", "enable_seqscan=off", "enable_sort=off")
    options = "".join(f"%20-c{each.replace('=', '%3D')}" for each in settings)
    store = open_store(new_url("postgresql") + options)
    table, vectors = store.open("t", Layout(H), create=True), unit(2000)
    query = unit(1, seed=1)[0]
    far = np.argsort(vectors @ query)[:20].tolist()
    table.upsert([Document(str(at), "w", {"far": at in far}) for at in range(2000)], vectors)
    table.build_index()
    hits = table.search(query, 10, parse_filter({"far": True}))
    assert [int(hit.id) for hit in hits] == far[:9:-1]
    store.close()


def test_a_document_of_too_many_words_is_named(
    postgres: str, new_url: Callable[[str], str]
) -> None:
    store = open_store(new_url("postgresql"))
    table = store.open("t", Layout(H), create=True)
    documents = [Document("short", "a"), Document("long", " ".join(map(str, range(200_000))))]
    with pytest.raises(ValueError, match=r"the document 'long' has too many different words \(200"):
        table.upsert(documents, unit(2))
    assert table.count() == 0
    store.close()


@pytest.mark.parametrize(
    "layout", [Layout(H, "float16"), Layout(H, "float32", "binary"), Layout(H, "float16", "int8")]
)
def test_layouts(store: Store, layout: Layout) -> None:
    if layout.quantization == "int8" and "Postgres" in type(store).__name__:
        with pytest.raises(ValueError, match="quantization: pgvector has no int8; give binary"):
            store.open("t", layout)
        return
    table, vectors = store.open("t", layout, create=True), unit(200)
    table.upsert([Document(str(at), "w") for at in range(200)], vectors)
    table.build_index()
    query = unit(1, seed=3)[0]
    best = np.argsort(-(vectors @ query))[:5]
    hits = store.open("t", layout).search(query, 5)
    assert [hit.id for hit in hits] == [str(at) for at in best]
    assert [hit.score for hit in hits] == pytest.approx((vectors @ query)[best].tolist(), abs=1e-3)


def test_only_qdrant_keeps_several_vectors_of_a_document(store: Store) -> None:
    layout = Layout(H, multi_vector=True)
    if "Qdrant" in type(store).__name__:
        assert store.open("t", layout, create=True).count() == 0
    else:
        with pytest.raises(ValueError, match="keeps one vector of a document here, and"):
            store.open("t", layout, create=True)


def test_catalog_and_tables(store: Store, texts: Table) -> None:
    assert store.catalog() == {}
    store.publish("docs", {"table": "a", "n": {"中": 1.5}})
    store.publish("more", {"table": "b"})
    store.publish("docs", {"table": "c", "n": None})
    assert store.catalog() == {"docs": {"table": "c", "n": None}, "more": {"table": "b"}}
    assert "t" in store.tables()
    store.drop("t")
    store.drop("t")
    assert "t" not in store.tables()
    with pytest.raises(Exception) as found:
        texts.documents(["d0"])
    assert not isinstance(found.value, StoreUnavailable)


def test_two_connections_see_each_others_writes(url: str) -> None:
    if url.startswith("qdrant:"):  # its local mode is for one process
        return
    one, other = open_store(url), open_store(url)
    first, second = one.open("t", Layout(H), create=True), other.open("t", Layout(H), create=True)
    first.upsert([Document("1", "one")], unit(1))
    assert second.count() == 1
    second.upsert([Document("2", "two")], unit(1))
    assert {hit.id for hit in first.search(unit(1)[0], 5)} == {"1", "2"}
    if url.startswith("qdrant"):  # which has no locks
        return
    with one.lock("docs"):
        with pytest.raises(ValueError, match="another process is indexing the collection 'docs'"):
            other.lock("docs").__enter__()
        with other.lock("more"):
            pass
    with other.lock("docs"):
        pass
    one.close()
    other.close()
