"""What text-embeddings-inference answers, as its router's source has it, and what ours does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from encoders import Embedder, Reranker
from served import served
from serving.engine.limits import Limits
from tiny import TEXTS

PAGE = Path(__file__).resolve().parents[3] / "docs/guide/production/other_servers.md"
PAIRS = [[TEXTS[0], text] for text in TEXTS]


@pytest.fixture(scope="module")
def client(tiny_bert: Path, tiny_classifier: Path) -> Iterator[httpx.Client]:
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    limits: dict[str, Any] = {"accept_token_ids": True, "max_items": 32, "max_body_bytes": 2000}
    with (
        served(folders, **limits) as (url, _),
        httpx.Client(base_url=url, timeout=60) as found,
    ):
        yield found


def test_predict_gives_score_and_label_of_each_pair(
    client: httpx.Client, tiny_classifier: Path
) -> None:
    model = Reranker.from_pretrained(tiny_classifier)
    scores = model.score([(query, text) for query, text in PAIRS]).numpy()
    logits = np.log(scores / (1 - scores))
    many = client.post("/predict", json={"inputs": PAIRS}).json()
    one = client.post("/predict", json={"inputs": PAIRS[1]}).json()
    raw = client.post("/predict", json={"inputs": PAIRS, "raw_scores": True}).json()
    np.testing.assert_allclose([entry["score"] for (entry,) in many], scores, atol=1e-5)
    np.testing.assert_allclose([entry["score"] for (entry,) in raw], logits, atol=1e-4)
    assert one == [many[1][0] | {"score": pytest.approx(many[1][0]["score"], abs=1e-5)}]
    label = {entry["label"] for (entry,) in many}
    (about,) = (m for m in client.get("/info").json()["models"] if m["role"] == "reranker")
    assert label == set(about["model_type"]["reranker"]["label2id"])


def test_what_was_tokenized_is_decoded(client: httpx.Client) -> None:
    texts = ["a cat sat on the mat", "the dog"]
    tokens = client.post("/tokenize", json={"inputs": texts}).json()
    ids = [[token["id"] for token in text] for text in tokens]
    assert client.post("/decode", json={"ids": ids}).json() == texts
    assert client.post("/decode", json={"ids": ids[1]}).json() == texts[1:]
    whole = client.post("/decode", json={"ids": ids[1], "skip_special_tokens": False}).json()
    assert whole == ["[CLS] the dog [SEP]"]


def test_token_ids_are_embedded(client: httpx.Client, tiny_bert: Path) -> None:
    (tokens,) = client.post("/tokenize", json={"inputs": TEXTS[0]}).json()
    found = client.post("/embed", json={"inputs": [token["id"] for token in tokens]}).json()
    wanted = Embedder.from_pretrained(tiny_bert).encode(TEXTS[:1])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


# (path, body) -> status and error_type
ERRORS: list[tuple[str, dict[str, Any], int, str]] = [
    ("/embed", {"inputs": []}, 400, "Empty"),
    ("/embed", {"inputs": ["a"] * 33}, 413, "Validation"),
    ("/predict", {"inputs": ["q", "a" * 2000]}, 413, "Validation"),
    ("/embed", {"inputs": "a", "dimensions": 4000}, 422, "Validation"),
    ("/embed", {"inputs": "a", "prompt_name": "none"}, 422, "Validation"),
    ("/embed", {"inputs": "cat " * 200, "truncate": False}, 422, "Validation"),
    ("/embed", {"inputs": [10**6]}, 422, "Tokenizer"),
    ("/rerank", {"query": "q", "texts": []}, 400, "Empty"),
    ("/predict", {"inputs": []}, 400, "Empty"),
    ("/predict", {"inputs": [["q", "d"]] * 33}, 413, "Validation"),
    ("/predict", {"inputs": "one text"}, 422, "Validation"),
    ("/predict", {"inputs": [["q", "d"], ["one"]]}, 422, "Validation"),
    ("/predict", {"inputs": [["q", "d"], ["q", ""]]}, 422, "Validation"),
    ("/decode", {"ids": []}, 400, "Empty"),
    ("/decode", {"ids": [[5]] * 33}, 413, "Validation"),
    ("/decode", {"ids": [[5], [10**6]]}, 422, "Tokenizer"),
    ("/decode", {"ids": [-1]}, 422, "Tokenizer"),
    ("/decode", {"ids": ["a"]}, 422, "Validation"),
]


@pytest.mark.parametrize(("path", "body", "status", "error_type"), ERRORS)
def test_errors(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, error_type: str
) -> None:
    response = client.post(path, json=body)
    assert (response.status_code, response.json()["error_type"]) == (status, error_type)
    assert isinstance(response.json()["error"], str)


def test_a_route_of_another_kind_of_model_answers_in_the_dialect(tiny_bert: Path) -> None:
    with served({"embedder": tiny_bert}) as (url, _):
        missing = httpx.post(f"{url}/predict", json={"inputs": ["a", "b"]})
    assert (missing.status_code, missing.json()["error_type"]) == (404, "Validation")


def test_info_has_its_fields(client: httpx.Client) -> None:
    """All but those of its own build: sha and docker_label."""
    fields = "model_id model_sha model_dtype served_model_name model_type max_concurrent_requests"
    fields += " max_input_length max_batch_tokens max_batch_requests max_client_batch_size"
    fields += " auto_truncate tokenization_workers version"
    found = client.get("/info").json()
    assert set(fields.split()) <= found.keys()
    assert found["model_type"]["embedding"]["pooling"]
    assert [client.get(path).status_code for path in ("/health", "/ping", "/")] == [200] * 3


def test_the_metrics_that_the_page_names_are_there(client: httpx.Client) -> None:
    named = set(re.findall(r"tandem_\w+", PAGE.read_text("utf-8")))
    found = client.get("/metrics").text
    assert len(named) > 12
    assert [name for name in named if not re.search(rf"^{name}(_bucket)?\b", found, re.M)] == []


def test_the_limits_of_the_page_are_the_defaults() -> None:
    rows = re.findall(r" ([\d,]+)(?: MiB| s of [a-z ]+| s)? \(`(\w+)`\)", PAGE.read_text("utf-8"))
    given = {name: int(value.replace(",", "")) for value, name in rows}
    given["max_body_bytes"] *= 2**20
    assert len(given) == 5
    assert {name: getattr(Limits(), name) for name in given} == given
