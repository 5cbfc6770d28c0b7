"""LanceDB's index: what exact search finds, with filters too."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores import Document, open_store
from stores.databases import lance
from stores.filters import parse_filter
from stores.store import Dtype, Layout, Quantization, StoreUnavailable

ROWS, H, INNER = 6000, 256, 16  # INNER: dimensions that the vectors really have
# They pass half of the documents, a fiftieth, and seven.
FILTERS: list[dict[str, Any]] = [
    {}, {"odd": 1}, {"number": {"lt": 120}}, {"number": {"gte": ROWS - 7}},
]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [("float32", "none"), ("float16", "none"), ("float16", "int8"), ("float16", "binary")],
)
def test_the_index_finds_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Dtype, quantization: Quantization
) -> None:
    monkeypatch.setattr(lance, "INDEX_FROM", 1000)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, INNER), np.float32)
    vectors = vectors @ rng.standard_normal((INNER, H), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = open_store(str(tmp_path)).open("t", Layout(H, dtype, quantization), create=True)
    documents = [
        Document(str(at), f"word w{at % 50}", {"odd": at % 2, "number": at}) for at in range(ROWS)
    ]
    table.upsert(documents, vectors)
    table.build_index()
    assert "vector" in {index.columns[0] for index in table.table.list_indices()}  # type: ignore[attr-defined]
    for given in FILTERS:
        where, found = parse_filter(given), []
        for query in (vectors[:8] + vectors[8:16]) / 2:
            for k in (1, 10):  # a filter comes after the search, and before it
                best = table.search(query, k, where, exact=True)
                assert len(best) == (min(k, 7) if given == FILTERS[-1] else k)
                hits = table.search(query, k, where)
                assert len(hits) == len(best)
                found.append(len(dict(hits).keys() & dict(best).keys()) / len(best))
                scores = vectors[[int(hit.id) for hit in hits]] @ query
                assert [hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=2e-3)
        assert np.mean(found) > 0.98


def test_the_index_is_built_while_clients_write(tmp_path: Path) -> None:
    """What they wrote last goes first, and the index is tried again."""
    table = open_store(str(tmp_path)).open("t", Layout(2), create=True)
    assert isinstance(table, lance.LanceTable)
    table.upsert([Document(f"{at}", "word") for at in range(200)], np.ones((200, 2), np.float32))
    table.build_index()
    client = open_store(str(tmp_path)).open("t", Layout(2))

    def write(first: int) -> None:
        for at in range(first, first + 5):
            client.delete([str(at)])
            time.sleep(0.02)

    for round_ in range(6):
        new = [Document(f"new {round_} {at}", "word") for at in range(200)]
        table.upsert(new, np.ones((200, 2), np.float32))
        writer = threading.Thread(target=write, args=[5 * round_])
        writer.start()
        table.build_index()
        writer.join()
    assert table.count() == 200 + 6 * 195


def test_who_always_comes_too_late_is_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = open_store(str(tmp_path)).open("t", Layout(2), create=True)
    assert isinstance(table, lance.LanceTable)

    def busy(*_: Any, **__: Any) -> None:
        raise RuntimeError("lance error: Too many concurrent writers. Attempted 5 times, ...")

    for name in ("delete", "optimize"):
        monkeypatch.setattr(table.table, name, busy)
    monkeypatch.setattr("lancedb.merge.LanceMergeInsertBuilder.execute", busy)
    with pytest.raises(StoreUnavailable, match="too many write into LanceDB at once; try again"):
        table.delete(["a"])
    with pytest.raises(StoreUnavailable):
        table.upsert([Document("a", "word")], np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="run this again when clients write less"):
        table.build_index()


def test_an_object_store_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise RuntimeError("lance error: no region for bucket 'b', /build/aws.rs:319:13")

    monkeypatch.setattr("lancedb.connect", away)
    with pytest.raises(StoreUnavailable) as error:
        open_store("s3://b/store")
    assert str(error.value).startswith(
        "store: s3://b/store: lance error: no region for bucket 'b'; an"
    )


def test_words_behind_a_filter(tmp_path: Path) -> None:
    table = open_store(str(tmp_path)).open("t", Layout(2), create=True)
    documents = [Document(str(at), f"word {at}", {"number": at}) for at in range(ROWS)]
    table.upsert(documents, np.ones((ROWS, 2), np.float32))
    table.build_index()
    for given in FILTERS[2:]:
        where = parse_filter(given)
        hits = table.search_words(["word"], 5, where)
        assert len(hits) == 5
        limit = given["number"]
        assert all(limit.get("gte", 0) <= int(hit.id) < limit.get("lt", ROWS) for hit in hits)
        assert len(table.search_words(["word"], 5, where, ids=["0", str(ROWS - 1)])) == 1
