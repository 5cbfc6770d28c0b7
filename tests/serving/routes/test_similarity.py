"""Embeddings are compared by the similarity that the model's folder states."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from encoders import Embedder
from served import served
from zoo import ENCODED, backbone, embedder

QUERY, *TEXTS = ENCODED


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dot")
    return embedder(folder / "model", backbone(folder / "base"), similarity_fn_name="dot")


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    documents = {f"d{at}": text for at, text in enumerate(TEXTS)}
    with (
        served({"embedder": model}, documents=documents) as (url, _),
        httpx.Client(base_url=url, timeout=60) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def products(model: Path) -> np.ndarray:
    """Of the query with each text."""
    opened = Embedder.from_pretrained(model)
    found: np.ndarray = (opened.encode([QUERY]) @ opened.encode(TEXTS).T)[0].numpy()
    assert found.max() > 1.1  # no cosine could be
    return found


def test_search_compares_by_the_dot_product(client: httpx.Client, products: np.ndarray) -> None:
    best = np.argsort(-products, kind="stable").tolist()
    for documents in (None, TEXTS):
        body = {"query": QUERY, "documents": documents, "top_n": len(TEXTS)}
        results = client.post("/search", json=body).json()["results"]
        assert [result["index"] for result in results] == best
        found = np.array([[result["score"], result["dot"]] for result in results])
        np.testing.assert_allclose(found[:, 0], products[best], rtol=1e-4)
        assert (found[:, 0] == found[:, 1]).all() and "cosine" not in results[0]


def test_scores_are_dot_products(client: httpx.Client, products: np.ndarray) -> None:
    def post(path: str, body: Any) -> Any:
        return client.post(path, json=body).json()

    (column,) = post("/compare", {"query": QUERY, "documents": TEXTS})["columns"]
    compared = {entry["index"]: entry["score"] for entry in column["ranking"]}
    for found in (
        post("/score", {"query": QUERY, "doc": TEXTS})["scores"],
        [compared[at] for at in range(len(TEXTS))],
    ):
        np.testing.assert_allclose(found, products, rtol=1e-4)
    inputs = {"source_sentence": QUERY, "sentences": TEXTS}
    cosines = np.array(post("/similarity", {"inputs": inputs}))  # TEI has only these
    assert (np.abs(cosines) <= 1).all() and not np.allclose(cosines, products)
    assert client.get("/info").json()["similarity"] == "dot"


def test_what_scores_are_is_told(client: httpx.Client) -> None:
    """The page at / says it."""
    body = {"query": QUERY, "documents": TEXTS}
    assert client.post("/search", json=body).json()["similarity"] == "dot"
    (column,) = client.post("/compare", json=body).json()["columns"]
    assert column["similarity"] == "dot"


def test_pages_neither_skip_nor_repeat_documents_of_equal_scores(tiny_bert: Path) -> None:
    texts = [TEXTS[0] if at % 2 else f"a cat {at} sat {at * 7}" for at in range(400)]
    documents = {f"d{at}": text for at, text in enumerate(texts)}
    with served({"embedder": tiny_bert}, documents=documents) as (url, _):
        found = [
            result["index"]
            for offset in range(0, 400, 50)
            for result in httpx.post(
                f"{url}/search", json={"query": TEXTS[0], "top_n": 50, "offset": offset}, timeout=60
            ).json()["results"]
        ]
    assert sorted(found) == list(range(400))
