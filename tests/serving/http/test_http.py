"""Our own routes over HTTP: answers, limits, keys, errors of each family."""

import base64
import concurrent.futures
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from encoders import Embedder, Reranker
from served import BODIES, JSON, served
from tiny import TEXTS, save_backbone

DOCUMENTS = {f"d{at}": text for at, text in enumerate(TEXTS)}


@pytest.fixture(scope="module")
def client(tiny_bert: Path, tiny_classifier: Path, tmp_path_factory: Any) -> Iterator[httpx.Client]:
    """Embedder, reranker, and a base, with a corpus."""
    other = save_backbone(tmp_path_factory.mktemp("base"), seed=1)
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier, "embedder_baseline": other}
    with (
        served(folders, documents=DOCUMENTS, max_items=50, max_body_bytes=200_000) as (url, _),
        httpx.Client(base_url=url, timeout=60) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def embedder_only(tiny_bert: Path) -> Iterator[httpx.Client]:
    limits: dict[str, Any] = {"accept_token_ids": True, "truncate": False, "max_characters": 3000}
    with (
        served({"embedder": tiny_bert}, **limits) as (url, _),
        httpx.Client(base_url=url, timeout=60) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def embedder(tiny_bert: Path) -> Embedder:
    return Embedder.from_pretrained(tiny_bert)


@pytest.fixture(scope="module")
def reranker(tiny_classifier: Path) -> Reranker:
    return Reranker.from_pretrained(tiny_classifier)


def post(client: httpx.Client, path: str, body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def assert_close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), atol=1e-5)


def test_embed_is_encode(client: httpx.Client, embedder: Embedder) -> None:
    wanted = embedder.encode(TEXTS).numpy()
    found = post(client, "/embed_batch", {"texts": list(TEXTS)})
    assert_close(found["embeddings"], wanted)
    assert found["dim"] == 32
    assert found["truncated"] == []
    tokens = embedder.tokenizer(list(TEXTS))["input_ids"]
    assert found["usage"]["prompt_tokens"] == sum(map(len, tokens))
    one = post(client, "/embed", {"input": TEXTS[5]})
    assert_close(one["embedding"], wanted[5])
    assert one["truncated"] is False
    coded = post(client, "/embed", {"text": TEXTS[5], "encoding_format": "base64"})["embedding"]
    numbers = np.array(one["embedding"], dtype="<f4")
    assert numbers.tobytes() == base64.b64decode(coded)  # bit by bit


def test_fewer_dimensions_are_of_unit_length(client: httpx.Client, embedder: Embedder) -> None:
    wanted = embedder.encode(TEXTS[:1]).numpy()[0, :8]
    found = post(client, "/embed", {"text": TEXTS[0], "dimensions": 8})
    assert_close(found["embedding"], wanted / np.linalg.norm(wanted))
    assert found["dim"] == 8


def test_score_of_the_reranker(client: httpx.Client, reranker: Reranker) -> None:
    pairs = [(TEXTS[0], text) for text in TEXTS]
    wanted = reranker.score(pairs).numpy()
    one = post(client, "/score", {"query": TEXTS[0], "doc": TEXTS[1]})
    assert_close(one["score"], wanted[1])
    many = post(client, "/score", {"query": TEXTS[0], "document": list(TEXTS)})
    assert_close(many["scores"], wanted)
    zipped = post(client, "/score", {"query": list(TEXTS[:2]), "text": list(TEXTS[2:4])})
    wanted_zipped = reranker.score([(TEXTS[0], TEXTS[2]), (TEXTS[1], TEXTS[3])]).numpy()
    assert_close(zipped["scores"], wanted_zipped)
    raw = post(client, "/score", {"query": TEXTS[0], "doc": TEXTS[1], "raw_scores": True})
    assert_close(raw["score"], reranker.score(pairs[1:2], raw=True)[0].item())


def test_score_batch_ranks(client: httpx.Client, reranker: Reranker) -> None:
    docs = [*TEXTS, TEXTS[3]]  # a tie goes to the earlier
    wanted = reranker.score([(TEXTS[0], text) for text in docs]).numpy()
    body = {"query": TEXTS[0], "docs": docs, "return_documents": True}
    found = post(client, "/score_batch", body)
    assert_close(found["scores"], wanted)
    raw = reranker.score([(TEXTS[0], text) for text in docs], raw=True).tolist()
    order = [entry["index"] for entry in found["ranking"]]
    assert [raw[at] for at in order] == pytest.approx(sorted(raw, reverse=True), abs=1e-5)
    assert order.index(3) == order.index(len(docs) - 1) - 1
    assert all(entry["document"] == docs[entry["index"]] for entry in found["ranking"])
    assert len(post(client, "/score_batch", body | {"top_n": 2})["ranking"]) == 2


def test_score_of_an_embedder_is_the_cosine(
    embedder_only: httpx.Client, embedder: Embedder
) -> None:
    wanted = (embedder.encode(TEXTS[:1]) @ embedder.encode(TEXTS).T)[0].numpy()
    assert_close(
        post(embedder_only, "/score", {"query": TEXTS[0], "doc": TEXTS[1]})["score"], wanted[1]
    )
    found = post(embedder_only, "/score", {"query": TEXTS[0], "doc": list(TEXTS)})
    assert_close(found["scores"], wanted)


def test_prompts_are_put_before(tiny_bert: Path, tmp_path: Path) -> None:
    prompts = {"query": "the cat ", "document": "dog "}
    model = Embedder.from_pretrained(tiny_bert, prompts=prompts)
    model.save_pretrained(tmp_path / "prompted")
    with (
        served({"embedder": tmp_path / "prompted"}) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        query = model.encode(["a mat"], prompt_name="query").numpy()
        document = model.encode(["fever"], prompt_name="document").numpy()
        assert_close(
            post(client, "/embed", {"text": "a mat", "prompt": "query"})["embedding"], query[0]
        )
        assert_close(post(client, "/embed", {"inputs": "a mat", "prompt_name": "query"}), query)
        score = post(client, "/score", {"query": "a mat", "doc": "fever"})["score"]
        assert_close(score, (query @ document.T)[0, 0])
        plain = model.encode(["a mat"]).numpy()
        assert_close(post(client, "/embed", {"text": "a mat"})["embedding"], plain[0])
        wrong = client.post("/embed", json={"inputs": "a", "prompt_name": "passage"})
        assert wrong.status_code == 422
        assert "document, query" in wrong.json()["error"]


def test_search_of_documents_and_of_the_corpus(
    client: httpx.Client, embedder: Embedder, reranker: Reranker
) -> None:
    """The nearest by cosine, in the order of the reranker."""
    cosines = (embedder.encode([TEXTS[0]]) @ embedder.encode(TEXTS).T)[0].numpy()
    nearest = np.argsort(-cosines)[:4].tolist()
    scores = reranker.score([(TEXTS[0], TEXTS[at]) for at in nearest]).tolist()
    wanted = [nearest[place] for place in np.argsort(-np.array(scores), kind="stable")]
    body = {"query": TEXTS[0], "top_k": 4}
    given = post(client, "/search", body | {"documents": list(TEXTS)})["results"]
    known = post(client, "/search", body)["results"]
    for results in (given, known):
        assert [result["index"] for result in results] == wanted
        assert_close([result["cosine"] for result in results], cosines[wanted])
    assert [result["id"] for result in known] == [f"d{at}" for at in wanted]
    assert "id" not in given[0]


def test_documents_of_the_server_are_not_held_against_a_request(
    tiny_bert: Path, tiny_classifier: Path
) -> None:
    documents = {"empty": "", "long": "cat " * 300, "usual": TEXTS[0]}
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    with (
        served(folders, documents=documents, max_characters=1000, max_items=2) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        results = post(client, "/search", {"query": TEXTS[0]})["results"]
    assert sorted(result["id"] for result in results) == sorted(documents)
    assert [result["id"] for result in results if result["truncated"]] == ["long"]


def test_compare_shows_every_model(client: httpx.Client, embedder: Embedder) -> None:
    columns = post(client, "/compare", {"query": TEXTS[0], "documents": list(TEXTS)})["columns"]
    assert [column["role"] for column in columns] == ["embedder", "reranker", "embedder_baseline"]
    wanted = (embedder.encode([TEXTS[0]]) @ embedder.encode(TEXTS).T)[0].numpy()
    ranking = columns[0]["ranking"]
    assert_close(
        [entry["score"] for entry in ranking], wanted[[entry["index"] for entry in ranking]]
    )
    assert ranking[0]["index"] == 0
    long = " ".join(TEXTS) * 20
    columns = post(client, "/compare", {"query": "cat", "documents": ["a cat", long]})["columns"]
    for column in columns:
        cut = {entry["index"]: entry["truncated"] for entry in column["ranking"]}
        assert cut == {0: False, 1: True}


def test_truncation_is_reported_or_refused(client: httpx.Client) -> None:
    long = " ".join(TEXTS) * 20
    response = client.post("/embed_batch", json={"texts": ["a", long, "b"]})
    assert response.json()["truncated"] == [1]
    assert response.headers["X-Truncated"] == "1"
    assert response.json()["usage"]["prompt_tokens"] == 3 + 128 + 3
    refused = client.post("/embed_batch", json={"texts": ["a", long], "truncate": False})
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "texts.1"
    assert post(client, "/score_batch", {"query": "a", "docs": ["b", long]})["truncated"] == [1]


def test_a_server_may_refuse_long_texts_and_take_ids(
    embedder_only: httpx.Client, embedder: Embedder
) -> None:
    long = " ".join(TEXTS) * 5
    refused = embedder_only.post("/embed", json={"text": long})
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    post(embedder_only, "/embed", {"text": long, "truncate": True})
    ids = embedder.tokenizer(TEXTS[0])["input_ids"]
    found = post(embedder_only, "/v1/embeddings", {"input": ids, "model": "any"})
    assert_close(found["data"][0]["embedding"], embedder.encode(TEXTS[:1])[0].numpy())
    for wrong in ([-1], [10**6], [[5], []]):
        response = embedder_only.post("/v1/embeddings", json={"input": wrong, "model": "any"})
        assert response.status_code == 400, wrong
    too_long = embedder_only.post("/embed", json={"text": "a" * 3001, "truncate": True})
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (413, "text_too_long")
    assert embedder_only.post("/rerank", json={"query": "a", "documents": []}).status_code == 404


# Bytes that are no JSON, and what is wrong with them.
NO_JSON = [
    b"",
    b"{",
    b"\xff\xfe\xff",
    b'{"text": NaN}',
    b'{"text": "\\ud800"}',
    b'"\xff"',
    b"[" * 100_000,
    b'{"text": ' + b"9" * 6000 + b"}",
]
STRANGE = ["a\u0000b", "👩\u200d👩\u200d👧", "e\u0301", "שלום", "\ufeffa", "𠮷野家"]


@pytest.mark.parametrize("path", BODIES)
def test_every_route_answers_bad_bodies_by_a_short_error(client: httpx.Client, path: str) -> None:
    post(client, path, BODIES[path])
    wrong_types = [dict.fromkeys(BODIES[path], 5), dict.fromkeys(BODIES[path]), [], "a", 5, {}]
    responses = [client.post(path, json=body) for body in wrong_types]
    responses += [client.post(path, content=body, headers=JSON) for body in NO_JSON]
    huge: dict[str, Any] = {name: [{}] * 10_000 for name in BODIES[path]}
    responses.append(client.post(path, json=huge))
    for response in responses:
        assert response.status_code in (400, 422), (response.request.content[:40], response.text)
        assert len(response.content) < 2500
        assert response.headers["X-Request-Id"] == response.json()["request_id"]
        assert b"traceback" not in response.content.lower()


@pytest.mark.parametrize("path", BODIES)
def test_every_route_refuses_what_is_no_json_or_too_large(client: httpx.Client, path: str) -> None:
    content = json.dumps(BODIES[path])
    assert client.post(path, content=content).status_code == 415
    plain = client.post(path, content=content, headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415
    large = client.post(path, content=b" " * 200_001, headers=JSON)
    in_chunks = client.post(path, content=(b" " * 50_000 for _ in range(5)), headers=JSON)
    for response in (large, in_chunks):
        assert response.status_code == 413
        assert "200000 bytes" in response.text
    assert client.get(path).status_code == 405


@pytest.mark.parametrize("text", STRANGE)
def test_strange_texts_are_texts(client: httpx.Client, text: str) -> None:
    assert np.isfinite(post(client, "/embed", {"text": text})["embedding"]).all()
    content = json.dumps({"text": text}, ensure_ascii=False).encode("utf-16")
    found = client.post("/embed", content=content, headers=JSON)
    assert found.status_code == 200


def test_empty_texts_are_named(client: httpx.Client) -> None:
    found = client.post("/embed_batch", json={"texts": ["a", "  ", "b"]})
    assert found.status_code == 422
    assert found.json()["error"] == {
        "message": "texts.1: is empty; give a text",
        "type": "invalid_request_error",
        "param": "texts.1",
        "code": "empty_text",
    }
    assert client.post("/embed_batch", json={"texts": []}).json()["error"]["code"] == "empty_input"
    found = client.post("/v2/rerank", json={"query": "a", "documents": ["b", ""], "model": "m"})
    assert found.status_code == 400
    assert found.json()["message"] == "documents.1: is empty; give a text"
    found = client.post("/rerank", json={"query": "a", "texts": ["b", ""]})
    assert (found.status_code, found.json()["error_type"]) == (422, "Validation")


def test_too_many_items(client: httpx.Client) -> None:
    found = client.post("/embed_batch", json={"texts": ["a"] * 51})
    assert (found.status_code, found.json()["error"]["code"]) == (413, "too_many_items")
    for path in ("/compare", "/search"):  # the query is not one of the documents
        post(client, path, {"query": "a", "documents": ["a"] * 50})


def test_a_query_that_may_not_be_cut_is_named(client: httpx.Client) -> None:
    body = {"query": " ".join(TEXTS) * 20, "documents": ["a"], "truncate": False}
    error = client.post("/search", json=body).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "query")


def test_a_key_that_would_lose_texts_is_refused(client: httpx.Client) -> None:
    for path, body, name in (
        ("/embed", {"text": "a", "inputs": "a"}, "text"),
        ("/embed_batch", {"texts": ["a"], "input": ["b"]}, "input"),
        ("/rerank", {"query": "a", "texts": ["b"], "documents": ["c"]}, "documents"),
        ("/score", {"query": "a", "doc": "b", "text": "c"}, "text"),
    ):
        found = client.post(path, json=body)
        assert found.status_code == 422, path
        assert f"{name}: cannot be given beside" in found.text


def test_errors_are_in_the_dialect_of_the_route(
    client: httpx.Client, embedder_only: httpx.Client
) -> None:
    """Whatever raises them: middleware, routing, validation or a handler."""
    dialects = {
        "/embed_batch": {"error", "request_id"},
        "/v2/rerank": {"error", "request_id", "id", "message", "detail"},
        "/similarity": {"error", "error_type", "param", "request_id"},
    }
    for path, fields in dialects.items():
        for response in (
            client.post(path, content=b"{}"),  # no JSON by its content type: 415
            client.put(path),
            client.post(path, content=b"{", headers=JSON),
            client.post(path, json={}),
        ):
            assert response.status_code >= 400
            assert set(response.json()) == fields, (path, response.text)
    # A server without a reranker has no such route, and says so to clients that expect one.
    absent = embedder_only.post("/v2/rerank", json={})
    assert (absent.status_code, set(absent.json())) == (404, dialects["/v2/rerank"])


def test_the_request_id_is_the_clients_if_it_is_one(client: httpx.Client) -> None:
    given = {"X-Request-Id": "abc-1.2"}
    assert client.get("/live", headers=given).headers["X-Request-Id"] == "abc-1.2"
    for wrong in ("a b", "x" * 200, "<script>"):
        found = client.get("/live", headers={"X-Request-Id": wrong}).headers["X-Request-Id"]
        assert found != wrong


def test_information_and_metrics(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert info["max_client_batch_size"] == 50
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert [model["task"] for model in info["models"]] == ["embedder", "reranker", "embedder"]
    assert "/" not in info["model_id"]
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert names == [model["model_id"] for model in info["models"][:2]]
    before = sample(client, 'tandem_requests_total{route="/embed",status="200"}')
    post(client, "/embed", {"text": "a"})
    assert sample(client, 'tandem_requests_total{route="/embed",status="200"}') == before + 1
    assert sample(client, "tandem_ready") == 1
    assert sample(client, 'tandem_rejected_total{reason="overloaded"}') == 0
    for path in ("/ready", "/live"):
        assert client.get(path).json() == {"status": "ok"}
    for path in ("/health", "/ping"):
        assert client.get(path).json() == {"status": "ok", "replicas": 1}


def sample(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")]
    return values[0] if values else 0.0


def test_order_is_kept_among_many_clients(client: httpx.Client, embedder: Embedder) -> None:
    """1,000 requests of several texts at once: each gets its own vectors."""
    texts = [f"{a} {b}" for a in "abcdefghij" for b in ("cat", "dog", "猫", "python", "fever")]
    wanted = embedder.encode(texts).numpy()
    assert len(np.unique(wanted.round(3), axis=0)) == len(texts)

    def ask(number: int) -> None:
        chosen = [(number * 7 + step * 13) % len(texts) for step in range(number % 6 + 1)]
        found = post(client, "/embed_batch", {"texts": [texts[at] for at in chosen]})
        assert_close(found["embeddings"], wanted[chosen])

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(1000)))


def test_keys(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ["secret-one", "secret-两"]
    with (
        caplog.at_level(logging.DEBUG),
        served({"embedder": tiny_bert}, keys=keys) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for path in ("/live", "/health", "/ping", "/ready", "/", "/docs", "/static/style.css"):
            assert client.get(path).status_code == 200, path
        for path in ("/info", "/metrics", "/openapi.json", "/v1/models", "/nothing"):
            assert client.get(path).status_code == 401, path
            wrong = client.get(path, headers={"Authorization": "Bearer secret-three"})
            assert wrong.status_code == 401
        refused = client.post("/embed", json={"text": "a"})
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"
        for key in keys:
            sent = key.encode()
            for header in ({b"Authorization": b"Bearer " + sent}, {b"X-API-Key": sent}):
                assert client.post("/embed", json={"text": "a"}, headers=header).status_code == 200
        assert client.get("/nothing", headers={"X-API-Key": keys[0]}).status_code == 404
        odd = {b"Authorization": "Bearer \u00e9".encode("latin-1")}
        assert client.get("/info", headers=odd).status_code == 401
    assert "secret" not in caplog.text


def test_other_sites_are_let_in_only_if_named(client: httpx.Client, tiny_bert: Path) -> None:
    origin = {"Origin": "https://a.example"}
    assert "access-control-allow-origin" not in client.get("/live", headers=origin).headers
    ask = origin | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization, Content-Type",
    }
    with (
        served({"embedder": tiny_bert}, keys=["k"], cors_origins=["https://a.example"]) as (url, _),
        httpx.Client(base_url=url, timeout=60) as named,
    ):
        allowed = named.options("/embed", headers=ask)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        refused = named.post("/embed", json={"text": "a"}, headers=origin)
        assert refused.status_code == 401  # and the page can read why
        assert refused.headers["access-control-allow-origin"] == "https://a.example"
        other = named.get("/live", headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
