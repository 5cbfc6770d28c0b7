"""A multi-vector encoder, which reads query and document each alone, is served as a reranker."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from encoders import MultiVectorEncoder
from served import served
from tiny import TEXTS

PROMPTS = {"query": "the cat ", "document": "dog "}
BODY = {"query": TEXTS[0], "documents": list(TEXTS)}
LONG = " ".join(TEXTS) * 20


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("late") / "model"
    model = MultiVectorEncoder.from_pretrained(tiny_bert, projection_dim=8, prompts=PROMPTS)
    model.replace_lengths(12, 24)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with served({"reranker": folder}) as (url, _), httpx.Client(base_url=url, timeout=60) as found:
        yield found


def test_scores_are_those_of_score_pairs(client: httpx.Client, folder: Path) -> None:
    model = MultiVectorEncoder.from_pretrained(folder)
    wanted = model.score_pairs([TEXTS[0]] * len(TEXTS), TEXTS).numpy()
    assert np.abs(wanted).max() > 1  # a sum, which no sigmoid may touch
    best = np.argsort(-wanted, kind="stable").tolist()
    for raw in (False, True):
        body = {"query": TEXTS[0], "docs": TEXTS, "raw_scores": raw}
        found = client.post("/score_batch", json=body).json()
        np.testing.assert_allclose(found["scores"], wanted, atol=1e-4)
    for route in ("/rerank", "/v1/rerank", "/v2/rerank"):
        results = client.post(route, json=BODY).json()["results"]
        assert [result["index"] for result in results] == best
        scores = [result["relevance_score"] for result in results]
        np.testing.assert_allclose(scores, wanted[best], atol=1e-4)
    entries = client.post("/rerank", json={"query": TEXTS[0], "texts": TEXTS}).json()  # TEI
    assert [entry["index"] for entry in entries] == best
    (predicted,) = client.post("/predict", json={"inputs": [TEXTS[0], TEXTS[1]]}).json()
    assert predicted["score"] == pytest.approx(wanted[1], abs=1e-4)
    (column,) = client.post("/compare", json=BODY).json()["columns"]
    assert [entry["index"] for entry in column["ranking"]] == best
    info = client.get("/info").json()
    assert "reranker" in info["model_type"]
    assert info["max_input_length"] == 24  # the length of documents, in place of the model's own


def test_each_side_has_its_length(client: httpx.Client) -> None:
    short, words = "a cat", " ".join(["cat"] * 15)
    body = {"query": short, "documents": [short, words, LONG]}
    assert client.post("/v1/rerank", json=body).headers["X-Truncated"] == "1"  # LONG alone
    body = {"query": words, "documents": [short, words]}
    assert client.post("/v1/rerank", json=body).headers["X-Truncated"] == "2"
    refused = client.post("/v1/rerank", json=body | {"truncate": False})
    assert "12 or 24 tokens" in refused.json()["error"]["message"]


def test_what_it_cannot_cut_is_refused(client: httpx.Client) -> None:
    body = {"query": "a", "documents": ["b", LONG]}
    for key, value in (("truncation_side", "left"), ("max_tokens_per_doc", 3)):
        refused = client.post("/v1/rerank", json=body | {key: value})
        assert refused.status_code == 400
        param = refused.json()["error"]["param"]
        assert param == {"truncation_side": "truncation_direction"}.get(key, key)
    short = {"query": "a", "documents": ["b", "a cat"]}
    given = {"truncation_side": "left", "max_tokens_per_doc": 3}
    assert client.post("/v1/rerank", json=short | given).status_code == 200
