"""Qdrant: several vectors of a document, and what its client raises."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import httpx
import numpy as np
import pytest

from stores import Document, open_store
from stores.databases.qdrant import guarded
from stores.databases.qdrant_models import NUMBERS, requests
from stores.filters import parse_filter
from stores.store import Layout, StoreUnavailable

H = 8


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
    return [each / np.linalg.norm(each, axis=1, keepdims=True) for each in found]


def maxsim(query: Any, documents: list[Any]) -> Any:
    return np.array([(query @ each.T).max(axis=1).sum() for each in documents])


@pytest.mark.parametrize(
    "layout", [Layout(H, multi_vector=True), Layout(H, "float16", "int8", multi_vector=True)]
)
def test_several_vectors_are_compared_by_maxsim(
    layout: Layout, new_url: Callable[[str], str]
) -> None:
    url, vectors, (query,) = new_url("qdrant"), matrices(100), matrices(1, seed=1)
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
    long = [np.zeros((NUMBERS // 4 // H, H), np.float32)] * 6
    assert [len(points) for points in requests(documents[:6], long, 1)] == [4, 2]
    most = np.zeros((NUMBERS // H, H), np.float32)
    with pytest.raises(ValueError, match=r"the document '1' has 131,072 vectors of 8 dimensions"):
        list(requests(documents[:2], [short[0], most], 1))
