"""Qdrant: several vectors of a document, requests, indexes, and what its client raises."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client.http.exceptions import UnexpectedResponse

from stores import Document, open_store
from stores.databases.qdrant import QdrantStore, guarded
from stores.databases.qdrant_models import LARGEST, NUMBERS, requests
from stores.databases.qdrant_table import MOST_FIELDS
from stores.filters import parse_filter
from stores.store import Layout, StoreUnavailable

H = 8
ENGINE = pytest.param("qdrant engine", marks=pytest.mark.slow)


def test_an_error_without_words_has_its_name() -> None:
    with (
        pytest.raises(StoreUnavailable, match="store: Qdrant: PoolTimeout"),
        guarded(nullcontext()),
    ):
        raise httpx.PoolTimeout("")


def matrices(count: int, seed: int = 0) -> list[Any]:
    """Unit vectors of the tokens of texts that have up to 9 each: [T, H]."""
    draw = np.random.default_rng(seed)
    found = [
        draw.standard_normal((draw.integers(1, 10), H)).astype(np.float32) for _ in range(count)
    ]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in found]
    return [each.astype(np.float16).astype(np.float32) for each in unit]  # as they are kept


def maxsim(query: Any, documents: list[Any]) -> Any:
    return np.array([(query @ each.T).max(axis=1).sum() for each in documents])


@pytest.mark.parametrize("kind", ["qdrant", ENGINE])
@pytest.mark.parametrize(
    "layout", [Layout(H, multi_vector=True), Layout(H, "float16", "int8", multi_vector=True)]
)
def test_several_vectors_are_compared_by_maxsim(
    layout: Layout, kind: str, new_url: Callable[[str], str]
) -> None:
    url, vectors, (query,) = new_url(kind), matrices(100), matrices(1, seed=1)
    store = open_store(url)
    table = store.open("t", layout, create=True)
    documents = [Document(f"{at}", f"word {at}", {"even": at % 2 == 0}) for at in range(100)]
    table.upsert(documents, vectors)
    vectors[7] = matrices(1, seed=2)[0]
    table.upsert([Document("7", "replaced", {"even": False})], vectors[7:8])
    table.delete(["11", "12"])
    store.close()
    store = open_store(url)
    table = store.open("t", layout)
    there = [at for at in range(100) if at not in (11, 12)]
    kept = table.vectors([str(at) for at in range(100)])
    assert {int(each) for each in kept} == set(there)
    assert all(np.array_equal(kept[str(at)], vectors[at]) for at in there)
    scores = maxsim(query, vectors)
    best = sorted(there, key=lambda at: -scores[at])
    for where, ids, wanted in (
        ({}, None, best),
        ({"even": True}, None, [at for at in best if at % 2 == 0]),
        ({}, ["5", "7", "11"], [at for at in best if at in (5, 7)]),
    ):
        hits = table.search(query, 20, parse_filter(where), ids)
        assert [int(hit.id) for hit in hits] == wanted[:20]
        found = [hit.score for hit in hits]
        np.testing.assert_allclose(found, scores[wanted[:20]], atol=1e-5)
    assert [hit.id for hit in table.search_words(["replaced"], 5)] == ["7"]
    store.close()


def test_requests_are_bounded() -> None:
    documents = [Document(str(at), "word") for at in range(600)]
    short = [np.zeros((1, H), np.float32)] * 600
    assert [len(points) for points in requests(documents, short, 1)] == [256, 256, 88]
    long = [np.zeros((NUMBERS // 4 // H, H), np.float32)] * 8
    assert [len(points) for points in requests(documents[:8], long, 1)] == [5, 3]
    texts = [Document(str(at), "\n" * 2**21) for at in range(8)]  # each takes two bytes
    assert [len(points) for points in requests(texts, short[:8], 1)] == [7, 1]
    for size in (0, NUMBERS // H):
        with pytest.raises(ValueError, match=rf"the document '0' has {size:,} vectors of 8 dimen"):
            list(requests(documents[:1], [np.zeros((size, H), np.float32)], 1))
    large = Document("large", "word", {"list": ["a"] * (LARGEST // 5)})
    with pytest.raises(ValueError, match="the document 'large' would be a request of up to 30 MiB"):
        list(requests([large], short[:1], 1))


@pytest.mark.slow
def test_large_documents_are_taken_by_a_server(new_url: Callable[[str], str]) -> None:
    store = open_store(new_url("qdrant engine"))
    table = store.open("t", Layout(H), create=True)
    words = " ".join(map(str, range(400_000)))
    documents = [Document(str(at), f"{at} {words}") for at in range(7)]
    table.upsert(documents, np.ones((7, H), np.float32))
    assert table.count() == 7 and table.documents(["6"]) == {"6": documents[6]}
    store.close()


@pytest.mark.slow
def test_a_server_indexes_vectors_and_what_filters_ask_for(new_url: Callable[[str], str]) -> None:
    store, count, width = open_store(new_url("qdrant engine")), 3000, 1024
    table = store.open("t", Layout(width), create=True)
    assert isinstance(store, QdrantStore)
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((count, width)).astype(np.float32)
    about = {"lang": "zh", "by": {"year": 1999}, "数": [1.5], 'no "name': 1, "a": [[[1]]]}
    documents = [Document(str(at), "word", about) for at in range(count)]
    table.upsert(documents, vectors)
    table.build_index()
    state = store.client.get_collection("t")
    # Those of words count too.
    assert state.status == "green" and state.indexed_vectors_count == 2 * count
    fields = {name: int(index.points) for name, index in state.payload_schema.items()}
    wanted = {"keys", "digest", 'numbers."by.year"', "numbers.数"}
    assert {name for name, points in fields.items() if points == count} == wanted
    # Those that are indexed by earlier processes count.
    later, more = store.open("t", Layout(width)), {f"f-{at}": at for at in range(100)}
    later.upsert([Document("0", "word", about | more)], vectors[:1])
    later.build_index()
    assert len(store.client.get_collection("t").payload_schema) == MOST_FIELDS
    assert later.search(vectors[0], 9, parse_filter({"f-99": {"gte": 99}}))[0].id == "0"
    (hit,) = table.search(vectors[7] / 100, 1, exact=True)
    assert hit.id == "7"
    with pytest.raises(StoreUnavailable, match=r"400 \(Bad Request\): .*[dD]imension"):
        table.search(vectors[7, :5], 1)
    store.close()


def test_a_refusal_without_a_reason_is_given_as_it_is() -> None:
    headers = httpx.Headers()
    for content, told in ((b"<html>", "<html>"), (b"[1]", "[1]"), (b"", "")):
        error = UnexpectedResponse(502, "Bad Gateway", content, headers)
        with pytest.raises(StoreUnavailable) as found, guarded(nullcontext()):
            raise error
        assert str(found.value) == f"store: Qdrant: Unexpected Response: 502 (Bad Gateway): {told}"
